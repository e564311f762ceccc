import type { AST } from "@eslint-community/regexpp";
import type { CodePointSet } from "../code-points.js";
import type { CompileBudget } from "../compile-budget.js";
import { alternate, concat, type Ir, repeat } from "../ir.js";
import { classSet, DOT, escapeSet } from "./character-class.js";
import { parsePattern } from "./parse-pattern.js";

/** The form in the output of one code point of the set. */
export type EncodeCodePoint = (set: CodePointSet) => Ir;

export interface PatternOptions {
  readonly encode: EncodeCodePoint;
  /** What may stand before a start without `^` and after an end without `$`. */
  readonly around: Ir;
  readonly budget: CompileBudget;
}

/** Steps charged per node of a set of code points: turning it into bytes takes about as long as so many elsewhere. */
const STEPS_PER_NODE = 80;

/**
 * The language of an ECMAScript regular expression with the flag `u`.
 *
 * Supported: characters, escapes, `.`, classes, groups, alternatives, quantifiers (lazy ones match the same strings),
 * and `^` and `$` at the ends of the whole expression's alternatives.
 *
 * @throws MblmError `invalid_request` naming what is not supported, or when the pattern is too large
 */
export function patternToIr(pattern: string, options: PatternOptions): Ir {
  const { alternatives } = parsePattern(pattern, options.budget);
  const compiler = new PatternCompiler(options);
  return alternate(alternatives.map((alternative) => compiler.compileWhole(alternative, options.around)));
}

class PatternCompiler {
  readonly #encode: EncodeCodePoint;
  readonly #budget: CompileBudget;
  /** Encoded sets by their spelling in the pattern. */
  readonly #encoded = new Map<string, Ir>();

  constructor({ encode, budget }: PatternOptions) {
    this.#encode = encode;
    this.#budget = budget;
  }

  /** An alternative of the whole pattern: the only place for anchors. */
  compileWhole({ elements }: AST.Alternative, around: Ir): Ir {
    const isStart = isEdge(elements[0], "start");
    const isEnd = isEdge(elements.at(-1), "end");
    const inner = elements.slice(isStart ? 1 : 0, isEnd ? -1 : undefined);
    const parts = inner.map((element) => this.#compile(element));
    return concat([...(isStart ? [] : [around]), ...parts, ...(isEnd ? [] : [around])]);
  }

  #compile(node: AST.Element): Ir {
    switch (node.type) {
      case "Character":
        return this.#compileSet(node.raw, () => [[node.value, node.value]]);
      case "CharacterSet":
        return this.#compileSet(node.raw, () => this.#escapedSet(node));
      case "CharacterClass":
        if (node.unicodeSets) return this.#refuse("the flag v", node);
        return this.#compileSet(node.raw, () => classSet(node, () => this.#refuse("\\p{…}", node)));
      case "Quantifier":
        return repeat(this.#compile(node.element), node.min, node.max);
      case "Group":
        if (node.modifiers !== null) return this.#refuse("a flag inside a group", node);
        return this.#compileAlternatives(node.alternatives);
      case "CapturingGroup":
        return this.#compileAlternatives(node.alternatives);
      case "Assertion":
        return this.#refuse(nameAssertion(node), node);
      case "Backreference":
        return this.#refuse("a backreference", node);
      case "ExpressionCharacterClass":
        return this.#refuse("the flag v", node);
    }
  }

  #compileAlternatives(alternatives: readonly AST.Alternative[]): Ir {
    return alternate(
      alternatives.map(({ elements }) => concat([...elements.map((element) => this.#compile(element))])),
    );
  }

  #escapedSet(node: AST.CharacterSet): CodePointSet {
    if (node.kind === "any") return DOT;
    if (node.kind === "property") return this.#refuse("\\p{…}", node);
    return escapeSet(node.kind, node.negate);
  }

  #compileSet(raw: string, readSet: () => CodePointSet): Ir {
    const known = this.#encoded.get(raw);
    if (known !== undefined) return known;
    const ir = this.#encode(readSet());
    this.#budget.spend(STEPS_PER_NODE * ir.numNodes);
    this.#encoded.set(raw, ir);
    return ir;
  }

  #refuse(what: string, { start }: AST.Node): never {
    return this.#budget.refuse(`${what} is not supported (offset ${start})`);
  }
}

function isEdge(element: AST.Element | undefined, kind: "start" | "end"): boolean {
  return element?.type === "Assertion" && element.kind === kind;
}

function nameAssertion(node: AST.Assertion): string {
  switch (node.kind) {
    case "lookahead":
    case "lookbehind":
      return node.kind;
    case "word":
      return node.negate ? "\\B" : "\\b";
    case "start":
      return "^ other than at the start";
    case "end":
      return "$ other than at the end";
  }
}
