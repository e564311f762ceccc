import { MblmError } from "../errors.js";
import { MAX_WORK } from "./limits.js";

/** How much of an offending text a message repeats, in UTF-16 code units. */
const MAX_QUOTED = 100;

/**
 * What one compilation may still cost, and the one way to refuse it. Work is counted in elementary steps rather than
 * read from a clock, so the same source is accepted or refused on every machine.
 */
export class CompileBudget {
  #spent = 0;
  #place = "";

  /** @param field wire name of the constraint, with which every message begins */
  constructor(readonly field: string) {}

  /** @throws MblmError `invalid_request` */
  refuse(reason: string): never {
    throw new MblmError("invalid_request", `${this.field}: ${this.#place}${reason}`, { field: this.field });
  }

  /** Runs a part of the compilation; what it refuses is said to be at `place`. */
  within<T>(place: string, compile: () => T): T {
    const outer = this.#place;
    this.#place = `${quote(place)}: `;
    const result = compile();
    this.#place = outer;
    return result;
  }

  /** Refuses when `amount` is over `limit`, both in `unit`. */
  check(amount: number, limit: number, unit: string): void {
    if (amount > limit) this.refuse(`needs more than the ${limit} ${unit} allowed`);
  }

  /** Charges `steps` elementary steps. */
  spend(steps: number): void {
    this.#spent += steps;
    if (this.#spent > MAX_WORK) this.refuse(`needs more than the ${MAX_WORK} steps of compilation allowed`);
  }
}

/** The text in a length that fits a message. */
export function quote(text: string): string {
  return text.length <= MAX_QUOTED ? text : `${text.slice(0, MAX_QUOTED)}…`;
}
