import type { ByteAutomaton } from "../core/byte-automaton.js";
import { CompileBudget } from "./compile-budget.js";
import { compileConstraint } from "./compile-constraint.js";
import type { ConstraintSource } from "./constraint-source.js";
import { checkSchemaSize } from "./json/schema-size.js";

/** Compiles constraints and keeps those used most recently, since clients tend to send the same ones again. */
export class ConstraintCompiler {
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  /** From the least to the most recently used. */
  readonly #automata = new Map<string, ByteAutomaton>();

  #bytes = 0;

  /**
   * @param maxEntries automata kept, at least 1
   * @param maxBytes memory of those kept; one alone may exceed it
   */
  constructor(maxEntries: number, maxBytes = Number.POSITIVE_INFINITY) {
    this.#maxEntries = maxEntries;
    this.#maxBytes = maxBytes;
  }

  /** As `compileConstraint`. Refusals are not kept. */
  compile(source: ConstraintSource, field: string, allowedBytes?: ReadonlySet<number>): ByteAutomaton {
    const key = keyOf(source, field, allowedBytes);
    const known = this.#automata.get(key);
    const automaton = known ?? compileConstraint(source, field, allowedBytes);
    this.#automata.delete(key);
    this.#automata.set(key, automaton);
    if (known === undefined) this.#bytes += bytesOf(automaton);
    this.#dropOldest();
    return automaton;
  }

  #dropOldest(): void {
    for (const [key, automaton] of this.#automata) {
      const isFull = this.#automata.size > this.#maxEntries || this.#bytes > this.#maxBytes;
      if (!isFull || this.#automata.size === 1) return;
      this.#automata.delete(key);
      this.#bytes -= bytesOf(automaton);
    }
  }
}

function bytesOf({ classes, next, accepting, distance }: ByteAutomaton): number {
  return classes.byteLength + next.byteLength + accepting.byteLength + distance.byteLength;
}

function keyOf(source: ConstraintSource, field: string, allowedBytes: ReadonlySet<number> | undefined): string {
  // JSON.stringify recurses into the schema.
  if (source.kind === "json_schema") checkSchemaSize(source.schema, new CompileBudget(field));
  return JSON.stringify([source, allowedBytes === undefined ? null : [...allowedBytes].sort((a, b) => a - b)]);
}
