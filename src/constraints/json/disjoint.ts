import type { CompileBudget } from "../compile-budget.js";
import { isOfType, JSON_TYPES } from "./json-type.js";
import { isJsonObject } from "./schema-keywords.js";

type Schema = Readonly<Record<string, unknown>>;

/**
 * Tells schemas that share no value by what is plain to see: their types, their scalar `const` or `enum`, or such a
 * difference in a property that both require. It may miss that two schemas are disjoint, never that they overlap.
 */
export class DisjointnessCheck {
  readonly #follow: (schema: unknown) => unknown;
  readonly #budget: CompileBudget;

  /** @param follow gives the schema that a schema with `$ref` stands for, and any other as it is */
  constructor(follow: (schema: unknown) => unknown, budget: CompileBudget) {
    this.#follow = follow;
    this.#budget = budget;
  }

  areDisjoint(schemas: readonly unknown[]): boolean {
    return schemas.every((a, i) => schemas.slice(i + 1).every((b) => this.#differ(a, b)));
  }

  #differ(left: unknown, right: unknown): boolean {
    const a = this.#follow(left);
    const b = this.#follow(right);
    if (!isJsonObject(a) || !isJsonObject(b)) return false;
    const [valuesA, valuesB] = [scalarValues(a), scalarValues(b)];
    this.#budget.spend(10 + (valuesA?.length ?? 0) + (valuesB?.length ?? 0));
    if (valuesA !== undefined && valuesB !== undefined) {
      const inB = new Set(valuesB);
      return !valuesA.some((value) => inB.has(value));
    }
    const [typesA, typesB] = [typesOf(a, valuesA), typesOf(b, valuesB)];
    if (!typesA.some((type) => typesB.includes(type))) return true;
    return isOnlyObject(typesA) && isOnlyObject(typesB) && this.#differInProperty(a, b);
  }

  #differInProperty(a: Schema, b: Schema): boolean {
    return requiredProperties(a).some(([name, schema]) => {
      const other = requiredProperties(b).find(([otherName]) => otherName === name);
      return other !== undefined && this.#differ(schema, other[1]);
    });
  }
}

/** The values a schema lists, if they are all strings, numbers, booleans or null. */
function scalarValues(schema: Schema): readonly unknown[] | undefined {
  const values = Object.hasOwn(schema, "const") ? [schema.const] : schema.enum;
  if (!Array.isArray(values)) return undefined;
  return values.every((value) => typeof value !== "object" || value === null) ? values : undefined;
}

/** The types of the schema's values, integers being numbers; all types when it does not say. */
function typesOf(schema: Schema, values: readonly unknown[] | undefined): readonly string[] {
  const types = JSON_TYPES.filter((type) => {
    if (values !== undefined) return values.some((value) => isOfType(value, type));
    return (
      schema.type === undefined || schema.type === type || (Array.isArray(schema.type) && schema.type.includes(type))
    );
  });
  return types.map((type) => (type === "integer" ? "number" : type));
}

function isOnlyObject(types: readonly string[]): boolean {
  return types.length === 1 && types[0] === "object";
}

function requiredProperties({ properties, required }: Schema): readonly (readonly [string, unknown])[] {
  if (!isJsonObject(properties) || !Array.isArray(required)) return [];
  return Object.entries(properties).filter(([name]) => required.includes(name));
}
