import type { ErrorObject } from "ajv";
import { MblmError } from "../../errors.js";

/** One thing that is wrong: where, and what. */
interface Problem {
  readonly path: readonly string[];
  /** The field that is blamed, where it is another than the first of the path. */
  readonly field?: string;
  readonly message: string;
  /** Types that are accepted here, where the value is of none. */
  readonly types?: readonly string[];
}

/** Of an `anyOf`, as far as it tells which form a client meant. */
interface Form {
  readonly properties?: { readonly type?: { readonly const?: unknown } };
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: "a string",
  integer: "an integer",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
};

/**
 * The error for data that a schema does not accept, naming the field and the bound.
 *
 * @param problems as Ajv reports them with `verbose` and without `allErrors`; at least one
 */
export function invalidRequest(problems: readonly ErrorObject[]): MblmError {
  const { path, message, field = path[0] } = mostTelling(problems);
  const options = field === undefined ? {} : { field };
  return new MblmError("invalid_request", `${path.join(".") || "body"}: ${message}`, options);
}

/** What is reported last is the outermost: the complaint itself, or that of a union about all its forms. */
function mostTelling(problems: readonly ErrorObject[]): Problem {
  const last = problems.at(-1)!;
  const path = pathOf(last);
  switch (last.keyword) {
    case "anyOf":
      return ofUnion(path, last, problems);
    case "additionalProperties":
      return ofField(
        [...path, String(last.params.additionalProperty)],
        "no such field, or not supported by this server",
      );
    case "required":
      return ofField([...path, String(last.params.missingProperty)], "is required");
    case "propertyNames": {
      const bound = problems.findLast(({ propertyName }) => propertyName !== undefined)?.message;
      return { path, message: `the key ${JSON.stringify(last.params.propertyName)} ${bound}` };
    }
    case "type":
      return ofTypes(path, [last.params.type].flat());
    case "enum":
      return { path, message: `must be ${oneOf(last.params.allowedValues)}` };
    case "const":
      return { path, message: `must be ${oneOf([last.params.allowedValue])}` };
    default:
      return { path, message: last.message ?? "is not valid" };
  }
}

function pathOf({ instancePath }: ErrorObject): string[] {
  const parts = instancePath.split("/").slice(1);
  return parts.map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function ofField(path: readonly string[], message: string): Problem {
  return { path, message, field: path.join(".") };
}

/** Null means "left out": it is no answer to what a field must be. */
function ofTypes(path: readonly string[], all: readonly string[]): Problem {
  const types = [...new Set(all)].filter((type) => type !== "null");
  if (types.length === 0) return { path, types, message: "is not supported by this server" };
  return { path, types, message: `must be ${types.map((type) => TYPE_NAMES[type] ?? type).join(" or ")}` };
}

/** Of the forms of a union, the one that was meant: by the `type` in the data, else the one that fits furthest. */
function ofUnion(path: readonly string[], union: ErrorObject, problems: readonly ErrorObject[]): Problem {
  const forms = union.schema as readonly Form[];
  const within = (form: number): ErrorObject[] =>
    problems.filter(({ schemaPath }) => schemaPath.startsWith(`${union.schemaPath}/${form}/`));
  const tags = forms.map(({ properties }) => properties?.type?.const).filter((tag) => tag !== undefined);
  if (tags.length > 0 && isObject(union.data)) {
    const { type } = union.data;
    const meant = forms.findIndex(({ properties }) => type !== undefined && properties?.type?.const === type);
    if (meant < 0) return { path: [...path, "type"], message: `must be ${oneOf(tags)}` };
    return mostTelling(within(meant));
  }
  const found = forms.map((_, form) => within(form)).filter(({ length }) => length > 0);
  return furthest(found.map(mostTelling));
}

function isObject(data: unknown): data is Readonly<Record<string, unknown>> {
  return typeof data === "object" && data !== null && !Array.isArray(data);
}

/** Forms that get equally far differ in the type that they want there, or one of them has the right one. */
function furthest(problems: readonly Problem[]): Problem {
  const sorted = problems.toSorted((a, b) => comparePlaces(b.path, a.path));
  const equal = sorted.filter(({ path }) => comparePlaces(path, sorted[0]!.path) === 0);
  const ofRightType = equal.find(({ types }) => types === undefined);
  return (
    ofRightType ??
    ofTypes(
      equal[0]!.path,
      equal.flatMap(({ types }) => types!),
    )
  );
}

/** Places in lists by their order; what is inside comes after what it is in. */
function comparePlaces(a: readonly string[], b: readonly string[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = Number(a[i]) - Number(b[i]);
    if (order !== 0 && !Number.isNaN(order)) return order;
  }
  return a.length - b.length;
}

function oneOf(values: readonly unknown[]): string {
  const named = values.filter((value) => value !== null).map(String);
  return named.length === 1 ? named[0]! : `one of ${named.join(", ")}`;
}
