import { type Command, Option } from "commander";
import {
  CONFIG_FILE_VARIABLE,
  CONFIG_PROPERTIES,
  type ConfigSources,
  environmentName,
  kebabCase,
  loadConfig,
} from "../config/load-config.js";
import type { Config, ConfigKey } from "../config/schema.js";

/** Adds `--config` and an option for each of the settings. */
export function addConfigOptions(command: Command, keys: readonly ConfigKey[]): Command {
  command.option("--config <file>", `YAML or JSON file of settings, in snake_case [env: ${CONFIG_FILE_VARIABLE}]`);
  for (const [key, property] of CONFIG_PROPERTIES) {
    if (!keys.includes(key)) continue;
    const choices = property.enum ? ` [${property.enum.join(", ")}]` : "";
    const shown = property.default === "" ? "" : ` (default: ${property.default})`;
    const description = `${property.description}${choices}${shown} [env: ${environmentName(key)}]`;
    command.addOption(new Option(`--${kebabCase(key)} <value>`, description));
  }
  return command;
}

/** The effective settings for parsed options. */
export function readConfig(options: Record<string, unknown>, defaultModel?: string): Config {
  return loadConfig({ ...toSources(options), ...(defaultModel === undefined ? {} : { defaultModel }) });
}

/** Parsed options as sources of settings. */
export function toSources({ config, ...flags }: Record<string, unknown>): ConfigSources {
  return { flags, ...(typeof config === "string" ? { file: config } : {}) };
}

export const ALL_KEYS: readonly ConfigKey[] = CONFIG_PROPERTIES.map(([key]) => key);
export const ENGINE_KEYS: readonly ConfigKey[] = [
  "model",
  "device",
  "cudaDir",
  "kernels",
  "threads",
  "backend",
  "verifyChecksums",
];
