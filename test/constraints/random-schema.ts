import type { Random } from "./random.js";

/** A schema of the supported subset with a way to make values of it, their members in the order of the schema. */
export interface RandomSchema {
  readonly schema: Readonly<Record<string, unknown>>;
  readonly sample: () => unknown;
}

const TEXTS = ["", "a", "Ab c", 'say "hi"', "back\\slash", "tab\tnew\nline", "\u0001\u001f\u007f", "é€😀\u2028", "/"];
const NAMES = ["a", "b", "name", 'quo"te', "sl/ash", "til~de", "é", "__proto", " "];

/** Patterns with texts in which they match. */
const PATTERNS: readonly (readonly [string, readonly string[]])[] = [
  ["^[a-z]+$", ["a", "xyz"]],
  ["b", ["b", "abc", 'b"', "\nb\u0000", "😀b"]],
  ["^a|z$", ["a", "a\\", "z", '"z']],
  ["^$", [""]],
  ["^[^a]{2}$", ['"\\', "\n\u0002", "€😀", "/b"]],
  ["^\\d{2,3}\\.\\w?$", ["12.", "123._"]],
  ["\\\\", ["\\", 'x\\"']],
];
const FORMATS: readonly (readonly [string, readonly string[]])[] = [
  ["date", ["2024-02-29", "1999-12-31", "2000-02-29"]],
  ["time", ["23:59:59Z", "00:00:00.125+05:30"]],
  ["date-time", ["2024-02-29T12:00:00Z", "1990-12-31T23:59:59.999-08:00"]],
  ["uuid", ["01234567-89ab-cdef-ABCD-0123456789ab"]],
  ["ipv4", ["0.0.0.0", "255.249.199.9"]],
  ["email", ["a.b+c@example.com", "x@y-z.org"]],
];

export function randomSchema(random: Random, depth: number): RandomSchema {
  const isLeaf = depth === 0 || random.chance(0.3);
  // Open values make by far the largest automata.
  const make = isLeaf && random.chance(0.03) ? anyValue : random.pick(isLeaf ? LEAVES : BRANCHES);
  return make(random, depth);
}

type Make = (random: Random, depth: number) => RandomSchema;

const anyValue: Make = (random) => {
  const values = [null, true, 0, -1.5, "x", [], {}, [[1], { a: [2] }], { a: { b: {} } }];
  const schema = random.pick([
    {},
    { title: "any" },
    { type: ["object", "array", "string", "number", "boolean", "null"] },
  ]);
  return { schema, sample: () => random.pick(values) };
};

const text: Make = (random) => {
  const minLength = random.integer(0, 3);
  const maxLength = minLength + random.integer(0, 4);
  const characters = ["a", '"', "\\", "\n", "é", "€", "😀", "\u0000"];
  return {
    schema: random.chance(0.2) ? { type: "string" } : { type: "string", minLength, maxLength },
    sample: () => random.list(minLength, maxLength, () => random.pick(characters)).join(""),
  };
};

const pattern: Make = (random) => {
  const [source, samples] = random.pick(PATTERNS);
  return { schema: { type: "string", pattern: source }, sample: () => random.pick(samples) };
};

const format: Make = (random) => {
  const [name, samples] = random.pick(FORMATS);
  return { schema: { type: "string", format: name }, sample: () => random.pick(samples) };
};

const integer: Make = (random) => {
  const span = random.pick([0, 3, 9, 95, 1000, 1_000_000, 9e14]);
  const minimum = random.integer(-span, span);
  const maximum = minimum + random.integer(0, span);
  const lower = random.pick([{ minimum }, { exclusiveMinimum: minimum - 1 }, { minimum: minimum - 0.5 }]);
  const upper = random.pick([{ maximum }, { exclusiveMaximum: maximum + 1 }, { exclusiveMaximum: maximum + 0.5 }]);
  return {
    schema: { type: "integer", ...(random.chance(0.8) ? lower : {}), ...(random.chance(0.8) ? upper : {}) },
    sample: () => random.integer(minimum, maximum),
  };
};

const number: Make = (random) => ({
  schema: { type: "number" },
  sample: () => (random.next() - 0.5) * 10 ** random.integer(-300, 300),
});

const values: Make = (random) => {
  const scalars = [null, false, 12, -0.25, 1e21, ...TEXTS];
  const choices = [
    ...random.list(1, 4, () => random.pick(scalars)),
    random.pick([[], [1, "a"], { x: { y: [] }, z: 0 }]),
  ];
  if (random.chance(0.3)) return { schema: { const: choices[0] }, sample: () => choices[0] };
  return { schema: { enum: [...new Set(choices)] }, sample: () => random.pick(choices) };
};

const booleanOrNull: Make = (random) =>
  random.pick([
    { schema: { type: "boolean" }, sample: () => random.chance(0.5) },
    { schema: { type: "null" }, sample: () => null },
    { schema: { type: ["boolean", "null"] }, sample: () => random.pick([true, false, null]) },
  ]);

const object: Make = (random, depth) => {
  const names = NAMES.filter(() => random.chance(0.3));
  const members = names.map((name) => ({ name, isRequired: random.chance(0.5), ...randomSchema(random, depth - 1) }));
  const isClosed = random.chance(0.5);
  return {
    schema: {
      type: "object",
      properties: Object.fromEntries(members.map(({ name, schema }) => [name, schema])),
      required: members.filter(({ isRequired }) => isRequired).map(({ name }) => name),
      ...(isClosed ? { additionalProperties: false } : {}),
    },
    sample: () => {
      const present = members.filter(({ isRequired }) => isRequired || random.chance(0.5));
      return Object.fromEntries(present.map(({ name, sample }) => [name, sample()]));
    },
  };
};

const map: Make = (random, depth) => {
  const value = randomSchema(random, depth - 1);
  const maxProperties = random.integer(1, 4);
  const minProperties = random.integer(0, 1);
  return {
    schema: { type: "object", additionalProperties: value.schema, minProperties, maxProperties },
    sample: () => {
      const names = new Set([random.pick(NAMES), ...random.list(0, maxProperties - 1, () => random.pick(NAMES))]);
      return Object.fromEntries(Array.from(names, (name) => [name, value.sample()]));
    },
  };
};

const array: Make = (random, depth) => {
  const item = randomSchema(random, depth - 1);
  const minItems = random.integer(0, 3);
  const maxItems = minItems + random.integer(0, 3);
  return {
    schema: { type: "array", items: item.schema, minItems, ...(random.chance(0.6) ? { maxItems } : {}) },
    sample: () => random.list(minItems, maxItems, item.sample),
  };
};

const tuple: Make = (random, depth) => {
  const prefix = random.list(1, 3, () => randomSchema(random, depth - 1));
  const rest = random.pick([undefined, randomSchema(random, depth - 1)]);
  const limit = rest === undefined ? prefix.length : prefix.length + 2;
  const minItems = random.integer(0, limit);
  const maxItems = random.integer(minItems, limit);
  return {
    schema: {
      type: "array",
      prefixItems: prefix.map(({ schema }) => schema),
      ...(rest === undefined ? {} : { items: rest.schema }),
      minItems,
      maxItems,
    },
    sample: () => {
      const length = random.integer(minItems, maxItems);
      return Array.from({ length }, (_, i) => (prefix[i] ?? rest!).sample());
    },
  };
};

const union: Make = (random, depth) => {
  const branches = random.list(1, 3, () => randomSchema(random, depth - 1));
  return {
    schema: { description: "either", anyOf: branches.map(({ schema }) => schema) },
    sample: () => random.pick(branches).sample(),
  };
};

const exclusiveUnion: Make = (random, depth) => {
  const inner = randomSchema(random, depth - 1);
  const properties = (kind: string) => ({ kind: { const: kind }, value: inner.schema });
  return {
    schema: {
      oneOf: [
        { type: ["integer", "null"] },
        { enum: ["x", "y"] },
        { type: "object", properties: properties("p"), required: ["kind"] },
        { type: "object", properties: properties("q"), required: ["value", "kind"] },
      ],
    },
    sample: () =>
      random.pick([
        () => 7,
        () => null,
        () => "y",
        () => ({ kind: "p" }),
        () => ({ kind: "q", value: inner.sample() }),
      ])(),
  };
};

const LEAVES: readonly Make[] = [text, pattern, format, integer, number, values, booleanOrNull];
const BRANCHES: readonly Make[] = [object, object, map, array, tuple, union, exclusiveUnion];
