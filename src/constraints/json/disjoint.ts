import type { CompileBudget } from "../compile-budget.js";
import { isOfType, JSON_TYPES } from "./json-type.js";
import { isJsonObject } from "./schema-keywords.js";

/** Steps charged for comparing two schemas, besides the values they list. */
const STEPS_PER_PAIR = 15;

/** What a schema says plainly about its values. */
interface Facts {
  /** All values, if they are listed and none is a list or object. */
  readonly values: ReadonlySet<unknown> | undefined;
  /** The types that values may have, integers being numbers. */
  readonly types: ReadonlySet<string>;
  /** Schemas of the properties that every value has, if all values are objects. */
  readonly required: ReadonlyMap<string, unknown>;
}

/**
 * Tells schemas that share no value by what is plain to see: their types, their scalar `const` or `enum`, or such a
 * difference in a property that both require. It may miss that two schemas are disjoint, never that they overlap.
 */
export class DisjointnessCheck {
  readonly #follow: (schema: unknown) => unknown;
  readonly #budget: CompileBudget;
  /** By schema: each takes part in many comparisons. */
  readonly #facts = new Map<unknown, Facts>();

  /** @param follow gives the schema that a schema with `$ref` stands for, and any other as it is */
  constructor(follow: (schema: unknown) => unknown, budget: CompileBudget) {
    this.#follow = follow;
    this.#budget = budget;
  }

  areDisjoint(schemas: readonly unknown[]): boolean {
    return schemas.every((a, i) => schemas.slice(i + 1).every((b) => this.#differ(a, b)));
  }

  #differ(left: unknown, right: unknown): boolean {
    const a = this.#factsOf(left);
    const b = this.#factsOf(right);
    this.#budget.spend(STEPS_PER_PAIR + (a.values?.size ?? a.types.size));
    if (a.values !== undefined && b.values !== undefined) return !intersect(a.values, b.values);
    if (!intersect(a.types, b.types)) return true;
    return Array.from(a.required).some(([name, schema]) => {
      const other = b.required.get(name);
      return other !== undefined && this.#differ(schema, other);
    });
  }

  #factsOf(schema: unknown): Facts {
    const known = this.#facts.get(schema);
    if (known !== undefined) return known;
    const facts = readFacts(this.#follow(schema));
    this.#facts.set(schema, facts);
    return facts;
  }
}

function readFacts(schema: unknown): Facts {
  if (!isJsonObject(schema)) return { values: undefined, types: new Set(JSON_TYPES), required: new Map() };
  const values = Object.hasOwn(schema, "const") ? [schema.const] : Array.isArray(schema.enum) ? schema.enum : undefined;
  const isScalar = values?.every((value) => typeof value !== "object" || value === null);
  const types = JSON_TYPES.filter((type) =>
    values === undefined ? isDeclared(schema.type, type) : values.some((value) => isOfType(value, type)),
  );
  return {
    values: isScalar ? new Set(values) : undefined,
    types: new Set(types.map((type) => (type === "integer" ? "number" : type))),
    required: types.length === 1 && types[0] === "object" ? requiredProperties(schema) : new Map(),
  };
}

/** Whether the keyword `type` allows a type; its absence allows all. */
function isDeclared(declared: unknown, type: string): boolean {
  return declared === undefined || declared === type || (Array.isArray(declared) && declared.includes(type));
}

function requiredProperties({ properties, required }: Readonly<Record<string, unknown>>): Map<string, unknown> {
  if (!isJsonObject(properties) || !Array.isArray(required)) return new Map();
  return new Map(required.filter((name) => Object.hasOwn(properties, name)).map((name) => [name, properties[name]]));
}

function intersect<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean {
  for (const item of a) if (b.has(item)) return true;
  return false;
}
