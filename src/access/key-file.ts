import { readFileSync } from "node:fs";
import { type Static, Type } from "typebox";
import Value from "typebox/value";
import { parse } from "yaml";
import { MblmError } from "../errors.js";
import { type ApiKey, readHash, SCOPES } from "./api-key.js";

const Hash = Type.String({ pattern: "^sha256:[0-9a-f]{64}$" });
const Entry = Type.Object(
  {
    name: Type.String({ pattern: "^[A-Za-z0-9_-]{1,32}$" }),
    hash: Type.Union([Hash, Type.Array(Hash, { minItems: 1, maxItems: 8 })]),
    scopes: Type.Array(Type.Enum([...SCOPES]), { minItems: 1 }),
    limits: Type.Optional(
      Type.Object(
        {
          concurrency: Type.Optional(Type.Integer({ minimum: 1 })),
          requests_per_minute: Type.Optional(Type.Number({ minimum: 1 })),
          bytes_per_second: Type.Optional(Type.Number({ minimum: 1 })),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
);
type Entry = Static<typeof Entry>;

/** Reads a key file (YAML or JSON). @throws MblmError `config_invalid` that lists every problem */
export function readKeyFile(path: string): ApiKey[] {
  let data: unknown;
  try {
    data = parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw invalid(path, [cause instanceof Error ? cause.message.split("\n")[0]! : String(cause)], cause);
  }
  if (!Array.isArray(data) || data.length === 0) throw invalid(path, ["must be a list of at least one key"]);
  const problems = data.flatMap((entry, i) => problemsOf(entry, i));
  const names = data.map((entry: { name?: unknown } | null) => entry?.name);
  for (const name of new Set(names.filter((name, i) => names.indexOf(name) !== i && name !== undefined))) {
    problems.push(`${name}: there is more than one entry of this name`);
  }
  if (problems.length > 0) throw invalid(path, problems);
  return (data as Entry[]).map(toKey);
}

/** Never shows a value: a secret may have been put where its hash belongs. */
function problemsOf(entry: unknown, index: number): string[] {
  if (Value.Check(Entry, entry)) return [];
  const { name } = (entry ?? {}) as { name?: unknown };
  const label = typeof name === "string" ? name : `entry ${index + 1}`;
  const fields = new Set(
    Value.Errors(Entry, entry).map(({ instancePath, message }) => {
      const field = instancePath.slice(1).replaceAll("/", ".");
      return field.startsWith("hash")
        ? "hash: must be sha256: and 64 hexadecimal digits"
        : `${field} ${message}`.trim();
    }),
  );
  return [...fields].map((problem) => `${label}: ${problem}`);
}

function toKey({ name, hash, scopes, limits = {} }: Entry): ApiKey {
  const { concurrency, requests_per_minute, bytes_per_second } = limits;
  return {
    name,
    hashes: [hash].flat().map(readHash),
    scopes: new Set(scopes),
    limits: {
      ...(concurrency === undefined ? {} : { concurrency }),
      ...(requests_per_minute === undefined ? {} : { requestsPerMinute: requests_per_minute }),
      ...(bytes_per_second === undefined ? {} : { bytesPerSecond: bytes_per_second }),
    },
    isPlain: false,
  };
}

function invalid(path: string, problems: readonly string[], cause?: unknown): MblmError {
  return new MblmError("config_invalid", problems.map((problem) => `api_key_file: ${path}: ${problem}`).join("\n"), {
    cause,
  });
}
