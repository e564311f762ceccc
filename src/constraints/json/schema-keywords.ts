import { type CompileBudget, quote } from "../compile-budget.js";

/** Keywords that describe a value without restricting it, and the places where definitions are kept. */
const ANNOTATIONS = new Set([
  "title",
  "description",
  "default",
  "examples",
  "$schema",
  "$id",
  "$comment",
  "deprecated",
  "readOnly",
  "writeOnly",
  "$defs",
  "definitions",
]);

/** Reads the keywords of one schema and refuses those that nobody asked for: none is ignored by oversight. */
export class SchemaKeywords {
  readonly #unread: Set<string>;

  /** @param path JSON pointer of the schema, as a URI fragment: `#/properties/a` */
  constructor(
    readonly schema: Readonly<Record<string, unknown>>,
    readonly path: string,
    readonly budget: CompileBudget,
  ) {
    this.#unread = new Set(Object.keys(schema).filter((keyword) => !ANNOTATIONS.has(keyword)));
  }

  get names(): readonly string[] {
    return [...this.#unread];
  }

  has(keyword: string): boolean {
    return Object.hasOwn(this.schema, keyword);
  }

  read(keyword: string): unknown {
    this.#unread.delete(keyword);
    return this.has(keyword) ? this.schema[keyword] : undefined;
  }

  readString(keyword: string): string | undefined {
    return this.#readAs(keyword, "a string", (value): value is string => typeof value === "string");
  }

  readNumber(keyword: string): number | undefined {
    return this.#readAs(keyword, "a number", (value): value is number => Number.isFinite(value));
  }

  /** An integer of at least 0. */
  readCount(keyword: string): number | undefined {
    const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
    return this.#readAs(keyword, "an integer of at least 0", isCount);
  }

  /** An array with at least one item. */
  readList(keyword: string): readonly unknown[] | undefined {
    const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value) && value.length > 0;
    return this.#readAs(keyword, "a list that is not empty", isList);
  }

  readStrings(keyword: string): readonly string[] | undefined {
    const isList = (value: unknown): value is readonly string[] =>
      Array.isArray(value) && value.every((item) => typeof item === "string");
    return this.#readAs(keyword, "a list of strings", isList);
  }

  readObject(keyword: string): Readonly<Record<string, unknown>> | undefined {
    return this.#readAs(keyword, "an object", isJsonObject);
  }

  /** Refuses the schema if any keyword has not been read. */
  finish(): void {
    for (const keyword of this.#unread) this.refuse(keyword, "is not supported here");
  }

  /** @throws MblmError `invalid_request` naming the keyword by its path */
  refuse(keyword: string, reason: string): never {
    return this.budget.refuse(`${quote(childPath(this.path, keyword))} ${reason}`);
  }

  #readAs<T>(keyword: string, expected: string, isValid: (value: unknown) => value is T): T | undefined {
    const value = this.read(keyword);
    if (!this.has(keyword)) return undefined;
    return isValid(value) ? value : this.refuse(keyword, `must be ${expected}`);
  }
}

export function isJsonObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The path of what lies below `path` under a name or index. */
export function childPath(path: string, name: string | number): string {
  return `${path}/${String(name).replaceAll("~", "~0").replaceAll("/", "~1")}`;
}
