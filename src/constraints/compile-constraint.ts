import type { ByteAutomaton } from "../core/byte-automaton.js";
import { buildAutomaton } from "./automaton/build-automaton.js";
import { ALL_CODE_POINTS } from "./code-points.js";
import { CompileBudget } from "./compile-budget.js";
import type { ConstraintSource } from "./constraint-source.js";
import { alternate, EMPTY, type Ir, literal, repeat } from "./ir.js";
import { ANY_OBJECT } from "./json/json-text.js";
import { schemaToIr } from "./json/schema-to-ir.js";
import { MAX_CHOICES, MAX_NFA_NODES } from "./limits.js";
import { patternToIr } from "./regex/pattern-to-ir.js";
import { encodeUtf8 } from "./utf8.js";

/**
 * Compiles a constraint on a whole output. Every match is valid UTF-8.
 *
 * @param field wire name of the constraint, with which error messages begin
 * @param allowedBytes the only bytes that may occur, when the model or the caller has no others
 * @throws MblmError `invalid_request` when the source is malformed, is not supported, matches nothing, or exceeds a
 *   bound of `limits.ts`
 */
export function compileConstraint(
  source: ConstraintSource,
  field: string,
  allowedBytes?: ReadonlySet<number>,
): ByteAutomaton {
  const budget = new CompileBudget(field);
  return buildAutomaton(toIr(source, budget), budget, allowedBytes);
}

function toIr(source: ConstraintSource, budget: CompileBudget): Ir {
  switch (source.kind) {
    case "regex":
      return patternToIr(source.pattern, { encode: encodeUtf8, around: EMPTY, budget });
    case "choice":
      return choicesToIr(source.choices, budget);
    case "json_schema":
      return schemaToIr(source.schema, budget);
    case "json_object":
      return ANY_OBJECT;
    case "utf8":
      return repeat(encodeUtf8(ALL_CODE_POINTS), 0, Infinity);
  }
}

function choicesToIr(choices: readonly string[], budget: CompileBudget): Ir {
  if (choices.length === 0) budget.refuse("must have at least one choice");
  budget.check(choices.length, MAX_CHOICES, "choices");
  const length = choices.reduce((total, choice) => total + choice.length, 0);
  budget.check(length, MAX_NFA_NODES, "characters of choices");
  if (choices.some((choice) => choice === "")) budget.refuse("must not have an empty choice");
  if (choices.some((choice) => /\p{Surrogate}/u.test(choice))) budget.refuse("has a choice with half a surrogate pair");
  return alternate(choices.map(literal));
}
