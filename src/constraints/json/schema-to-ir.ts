import { type CompileBudget, quote } from "../compile-budget.js";
import { alternate, type Ir } from "../ir.js";
import { MAX_SCHEMA_NESTING } from "../limits.js";
import { compileArray } from "./array-schema.js";
import { literalValue } from "./canonical-json.js";
import { DisjointnessCheck } from "./disjoint.js";
import { ANY_VALUE, BOOLEAN, NULL } from "./json-text.js";
import { inferTypes, isOfType, JSON_TYPES, type JsonType } from "./json-type.js";
import { compileInteger, compileNumber } from "./number-schema.js";
import { compileObject } from "./object-schema.js";
import { resolveRef } from "./resolve-ref.js";
import { childPath, isJsonObject, SchemaKeywords } from "./schema-keywords.js";
import { checkSchemaSize } from "./schema-size.js";
import { compileString } from "./string-schema.js";

/** Steps charged for a schema: reading its keywords takes about as long as so many steps elsewhere. */
const STEPS_PER_SCHEMA = 200;

/**
 * The JSON texts that a schema describes, in the spelling of `json-text.ts`. The subset of JSON Schema 2020-12 that is
 * understood is what the functions here read; any other keyword is refused by name.
 *
 * @param schema a JSON value
 * @throws MblmError `invalid_request` naming the keyword that is wrong or not supported by its path
 */
export function schemaToIr(schema: unknown, budget: CompileBudget): Ir {
  checkSchemaSize(schema, budget);
  return new SchemaCompiler(schema, budget).compile(schema, "#");
}

class SchemaCompiler {
  readonly #root: unknown;
  readonly #budget: CompileBudget;
  /** Languages of referenced schemas; undefined while one is being compiled. */
  readonly #referenced = new Map<unknown, Ir | undefined>();
  #nesting = 0;

  constructor(root: unknown, budget: CompileBudget) {
    this.#root = root;
    this.#budget = budget;
  }

  readonly compile = (schema: unknown, path: string): Ir => {
    if (schema === true) return ANY_VALUE;
    if (schema === false) this.#budget.refuse(`${quote(path)} is false, which no value satisfies`);
    if (!isJsonObject(schema)) this.#budget.refuse(`${quote(path)} must be a schema`);
    this.#budget.check(++this.#nesting, MAX_SCHEMA_NESTING, "schemas inside one another");
    this.#budget.spend(STEPS_PER_SCHEMA);
    const keywords = new SchemaKeywords(schema, path, this.#budget);
    const ir = this.#compileKeywords(keywords);
    keywords.finish();
    this.#nesting--;
    return ir;
  };

  #compileKeywords(keywords: SchemaKeywords): Ir {
    if (keywords.has("$ref")) return this.#compileRef(keywords);
    if (keywords.has("anyOf")) return this.#compileBranches(keywords, "anyOf");
    if (keywords.has("oneOf")) return this.#compileOneOf(keywords);
    if (keywords.has("const") || keywords.has("enum")) return compileValues(keywords);
    if (keywords.names.length === 0) return ANY_VALUE;
    return alternate(readTypes(keywords).map((type) => this.#compileType(type, keywords)));
  }

  #compileRef(keywords: SchemaKeywords): Ir {
    const schema = resolveRef(keywords, this.#root);
    const known = this.#referenced.get(schema);
    if (known !== undefined) return known;
    if (this.#referenced.has(schema)) keywords.refuse("$ref", "is recursive, which is not supported");
    this.#referenced.set(schema, undefined);
    const ir = this.compile(schema, keywords.readString("$ref")!);
    this.#referenced.set(schema, ir);
    return ir;
  }

  #compileBranches(keywords: SchemaKeywords, keyword: "anyOf" | "oneOf"): Ir {
    const path = childPath(keywords.path, keyword);
    const branches = keywords.readList(keyword)!;
    return alternate(branches.map((branch, i) => this.compile(branch, childPath(path, i))));
  }

  #compileOneOf(keywords: SchemaKeywords): Ir {
    const ir = this.#compileBranches(keywords, "oneOf");
    // The branches compiled, so whatever they refer to exists and does not lead back to them.
    const check = new DisjointnessCheck((schema) => this.#follow(schema), this.#budget);
    if (!check.areDisjoint(keywords.readList("oneOf")!)) {
      keywords.refuse("oneOf", "has branches that may overlap; use anyOf");
    }
    return ir;
  }

  /** The schema at the end of a chain of `$ref`. */
  #follow(schema: unknown): unknown {
    if (!isJsonObject(schema) || !Object.hasOwn(schema, "$ref")) return schema;
    return this.#follow(resolveRef(new SchemaKeywords(schema, "#", this.#budget), this.#root));
  }

  #compileType(type: JsonType, keywords: SchemaKeywords): Ir {
    switch (type) {
      case "object":
        return compileObject(keywords, this.compile);
      case "array":
        return compileArray(keywords, this.compile);
      case "string":
        return compileString(keywords);
      case "integer":
        return compileInteger(keywords);
      case "number":
        return compileNumber(keywords);
      case "boolean":
        return BOOLEAN;
      case "null":
        return NULL;
    }
  }
}

/** `type`, or what the other keywords imply. */
function readTypes(keywords: SchemaKeywords): readonly JsonType[] {
  const type = keywords.read("type");
  if (!keywords.has("type")) return inferTypes(keywords.names);
  const types = Array.isArray(type) ? type : [type];
  const known = JSON_TYPES.filter((name) => types.includes(name));
  if (known.length === 0 || known.length !== types.length) {
    keywords.refuse("type", `must be one or several of ${JSON_TYPES.join(", ")}`);
  }
  return known;
}

/** `const` and `enum`, of which only `type` may leave out values. */
function compileValues(keywords: SchemaKeywords): Ir {
  const types = keywords.has("type") ? readTypes(keywords) : undefined;
  const values = keywords.has("const") ? [keywords.read("const")] : keywords.readList("enum")!;
  const allowed = values.filter((value) => types === undefined || types.some((type) => isOfType(value, type)));
  return alternate(allowed.map(literalValue));
}
