import type { ByteAutomaton } from "../core/byte-automaton.js";
import { CompileBudget } from "./compile-budget.js";
import { compileConstraint } from "./compile-constraint.js";
import type { ConstraintSource } from "./constraint-source.js";
import { checkSchemaSize } from "./json/schema-size.js";

/** Compiles constraints and keeps those used most recently, since clients tend to send the same ones again. */
export class ConstraintCompiler {
  readonly #maxEntries: number;
  /** From the least to the most recently used. */
  readonly #automata = new Map<string, ByteAutomaton>();

  /** @param maxEntries automata kept, at least 1; one may take several MB */
  constructor(maxEntries: number) {
    this.#maxEntries = maxEntries;
  }

  /** As `compileConstraint`. Refusals are not kept. */
  compile(source: ConstraintSource, field: string, allowedBytes?: ReadonlySet<number>): ByteAutomaton {
    const key = keyOf(source, field, allowedBytes);
    const automaton = this.#automata.get(key) ?? compileConstraint(source, field, allowedBytes);
    this.#automata.delete(key);
    this.#automata.set(key, automaton);
    if (this.#automata.size > this.#maxEntries) {
      const [oldest] = this.#automata.keys();
      this.#automata.delete(oldest!);
    }
    return automaton;
  }
}

function keyOf(source: ConstraintSource, field: string, allowedBytes: ReadonlySet<number> | undefined): string {
  // JSON.stringify recurses into the schema.
  if (source.kind === "json_schema") checkSchemaSize(source.schema, new CompileBudget(field));
  return JSON.stringify([source, allowedBytes === undefined ? null : [...allowedBytes].sort((a, b) => a - b)]);
}
