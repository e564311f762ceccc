import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Value from "typebox/value";
import { parse as parseYaml } from "yaml";
import { MblmError } from "../errors.js";
import { type Config, type ConfigKey, ConfigSchema } from "./schema.js";

/** The property schemas, for help texts and parsing. */
export const CONFIG_PROPERTIES = Object.entries(ConfigSchema.properties) as unknown as readonly [
  ConfigKey,
  { type?: string; enum?: readonly string[]; default: unknown; description: string },
][];

export const kebabCase = (key: string): string => key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
export const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
export const environmentName = (key: string): string => `MBLM_${snakeCase(key).toUpperCase()}`;

interface Source {
  readonly value: unknown;
  /** As the user spelled it: `--port`, `MBLM_PORT`, `port in server.yaml`. */
  readonly spelling: string;
}

export interface ConfigSources {
  /** Values of command-line options by key; undefined = not given. */
  readonly flags?: Readonly<Partial<Record<ConfigKey, unknown>>>;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** YAML or JSON file. */
  readonly file?: string;
  /** Of the models that come with the package, the one that is meant when none is named. */
  readonly defaultModel?: string;
}

/** The model that comes with the package. */
export function defaultModelDir(): string {
  return packagedModelDir("books");
}

/** The folders of the models to serve, the default first. */
export function modelDirs({ model }: Pick<Config, "model">): string[] {
  return model
    .split(",")
    .map((dir) => dir.trim())
    .filter((dir) => dir !== "");
}

/** A model that comes with the package, by its folder's name. */
export function packagedModelDir(name: string): string {
  // Two folders up from both src/config and dist (bundled chunks lie in dist itself).
  for (const up of ["../models", "../../models"]) {
    const path = fileURLToPath(new URL(`${up}/${name}`, import.meta.url));
    if (exists(`${path}/manifest.json`)) return path;
  }
  return `models/${name}`;
}

function exists(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Flags over environment over file over defaults. Throws one MblmError `config_invalid` that lists every problem. */
export function loadConfig(given: ConfigSources): Config {
  return resolveConfig(given).config;
}

/** As `loadConfig`, with where the values come from that are no defaults, as the user spelled it. */
export function resolveConfig({ flags = {}, environment = process.env, file, defaultModel = "books" }: ConfigSources): {
  readonly config: Config;
  readonly origins: ReadonlyMap<ConfigKey, string>;
} {
  const problems: string[] = [];
  const sources = new Map<ConfigKey, Source>();
  if (file !== undefined) collectFile(file, sources, problems);
  if (environment.PORT) sources.set("port", { value: environment.PORT, spelling: "PORT" });
  collectTelemetry(environment, sources);
  for (const [key] of CONFIG_PROPERTIES) {
    const name = environmentName(key);
    if (environment[name] !== undefined) sources.set(key, { value: environment[name], spelling: name });
    if (flags[key] !== undefined) sources.set(key, { value: flags[key], spelling: `--${kebabCase(key)}` });
  }
  const values: Record<string, unknown> = {};
  for (const [key, property] of CONFIG_PROPERTIES) {
    const source = sources.get(key);
    values[key] = source ? check(key, source, problems) : property.default;
  }
  if (problems.length > 0) throw new MblmError("config_invalid", problems.join("\n"));
  if (values.model === "") values.model = packagedModelDir(defaultModel);
  const origins = new Map([...sources].map(([key, { spelling }]) => [key, spelling] as const));
  return { config: Object.freeze(values) as Config, origins };
}

/** What operators of OpenTelemetry set for every program alike; the more specific name wins. */
function collectTelemetry(
  environment: NonNullable<ConfigSources["environment"]>,
  sources: Map<ConfigKey, Source>,
): void {
  if (environment.OTEL_SDK_DISABLED?.toLowerCase() === "true") return;
  for (const spelling of ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]) {
    if (environment[spelling]) sources.set("otlpEndpoint", { value: environment[spelling], spelling });
  }
}

function collectFile(file: string, sources: Map<ConfigKey, Source>, problems: string[]): void {
  let data: unknown;
  try {
    data = parseYaml(readFileSync(file, "utf8"));
  } catch (cause) {
    problems.push(`--config: cannot read ${file}: ${cause instanceof Error ? cause.message : cause}`);
    return;
  }
  if (data === null || typeof data !== "object" || Array.isArray(data)) {
    problems.push(`--config: ${file} is not a mapping of settings`);
    return;
  }
  const keys = new Map(CONFIG_PROPERTIES.map(([key]) => [snakeCase(key), key]));
  for (const [name, value] of Object.entries(data)) {
    const key = keys.get(name);
    if (key) sources.set(key, { value, spelling: `${name} in ${file}` });
    else problems.push(`${name} in ${file}: no such setting`);
  }
}

/** The value as its type; strings (flags, environment) are converted. Pushes a problem when it is out of bounds. */
function check(key: ConfigKey, { value, spelling }: Source, problems: string[]): unknown {
  const schema = ConfigSchema.properties[key];
  const converted = typeof value === "string" ? convert(value, (schema as { type?: string }).type) : value;
  if (Value.Check(schema, converted)) return converted;
  problems.push(
    `${spelling}: ${JSON.stringify(value)} ${Value.Errors(schema, converted)[0]?.message ?? "is not valid"}`,
  );
  return undefined;
}

function convert(text: string, type: string | undefined): unknown {
  if (type === "integer" || type === "number") return text.trim() === "" ? text : Number(text);
  if (type === "boolean" && (text === "true" || text === "false")) return text === "true";
  return text;
}
