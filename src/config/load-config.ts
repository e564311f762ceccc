import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Value from "typebox/value";
import { parse as parseYaml } from "yaml";
import { MblmError } from "../errors.js";
import { type Config, type ConfigKey, ConfigSchema } from "./schema.js";

/** What the schema says of one setting. */
export interface ConfigProperty {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly pattern?: string;
  /** What the pattern asks for, in words. */
  readonly rule?: string;
  /** Its value is never shown. */
  readonly secret?: boolean;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default: unknown;
  readonly description: string;
}

/** The property schemas, for help texts and parsing. */
export const CONFIG_PROPERTIES = Object.entries(ConfigSchema.properties) as unknown as readonly [
  ConfigKey,
  ConfigProperty,
][];

/** Names the file of settings where `--config` does not. */
export const CONFIG_FILE_VARIABLE = "MBLM_CONFIG";

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
  /** YAML or JSON file; by default what MBLM_CONFIG names. */
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
  if (file !== undefined) collectFile(file, "--config", sources, problems);
  else if (environment[CONFIG_FILE_VARIABLE]) {
    collectFile(environment[CONFIG_FILE_VARIABLE], CONFIG_FILE_VARIABLE, sources, problems);
  }
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
    values[key] = source ? check(key, property, source, problems) : property.default;
  }
  if (problems.length > 0) throw new MblmError("config_invalid", problems.join("\n"));
  if (modelDirs(values as Config).length === 0) values.model = packagedModelDir(defaultModel);
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

/** @param namedBy what names the file, as the user spelled it */
function collectFile(file: string, namedBy: string, sources: Map<ConfigKey, Source>, problems: string[]): void {
  let data: unknown;
  try {
    data = parseYaml(readFileSync(file, "utf8"));
  } catch (cause) {
    // The first line only: the others show the lines of the file, which may have a secret in them.
    const reason = (cause instanceof Error ? cause.message : String(cause)).split("\n", 1)[0]!.replace(/:$/, "");
    problems.push(`${namedBy}: cannot read ${file}: ${reason}`);
    return;
  }
  if (data === null || typeof data !== "object" || Array.isArray(data)) {
    problems.push(`${namedBy}: ${file} is not a mapping of settings`);
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
function check(key: ConfigKey, property: ConfigProperty, { value, spelling }: Source, problems: string[]): unknown {
  const schema = ConfigSchema.properties[key];
  const converted = typeof value === "string" ? convert(value, property.type) : value;
  if (Value.Check(schema, converted)) return converted;
  const shown = property.secret ? "" : ` ${JSON.stringify(value)}`;
  const rule = ruleOf(property, converted) ?? Value.Errors(schema, converted)[0]?.message ?? "is not valid";
  problems.push(`${spelling}:${shown} ${rule}`);
  return undefined;
}

/** What the value should have been, in words; undefined: the validator's own words will do. */
function ruleOf({ type, enum: choices, rule }: ConfigProperty, value: unknown): string | undefined {
  if (choices) return `must be one of ${choices.join(", ")}`;
  if (type === "boolean") return "must be true or false";
  if (type === "string" && typeof value !== "string") return "must be text (in quotes)";
  return rule;
}

function convert(text: string, type: string | undefined): unknown {
  if (type === "integer" || type === "number") return text.trim() === "" ? text : Number(text);
  if (type === "boolean" && (text === "true" || text === "false")) return text === "true";
  return text;
}
