import { type AST, RegExpParser } from "@eslint-community/regexpp";
import type { CompileBudget } from "../compile-budget.js";
import { MAX_GROUP_DEPTH, MAX_PATTERN_LENGTH } from "../limits.js";
import { measureGroupDepth } from "./group-depth.js";

/** Steps charged for a pattern and for each of its characters: parsing takes about as long as so many elsewhere. */
const STEPS_PER_PATTERN = 4000;
const STEPS_PER_CHARACTER = 50;

const parser = new RegExpParser({ ecmaVersion: 2025 });

/**
 * The syntax tree of a regular expression with the flag `u`.
 *
 * @throws MblmError `invalid_request` when it is too long, too deep or not a regular expression
 */
export function parsePattern(pattern: string, budget: CompileBudget): AST.Pattern {
  budget.check(pattern.length, MAX_PATTERN_LENGTH, "characters of a pattern");
  budget.check(measureGroupDepth(pattern), MAX_GROUP_DEPTH, "levels of groups in a pattern");
  budget.spend(STEPS_PER_PATTERN + STEPS_PER_CHARACTER * pattern.length);
  try {
    return parser.parsePattern(pattern, 0, pattern.length, { unicode: true });
  } catch (error) {
    return budget.refuse(`not a regular expression: ${reasonOf(error)}`);
  }
}

/** What is wrong and where; the parser's message repeats the whole pattern before it. */
function reasonOf(error: unknown): string {
  if (!(error instanceof SyntaxError) || !("index" in error)) throw error;
  const reason = error.message.slice(error.message.lastIndexOf("/u: ") + "/u: ".length);
  return `${reason} at offset ${error.index}`;
}
