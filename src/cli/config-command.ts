import { Command } from "commander";
import { stringify } from "yaml";
import { snakeCase } from "../config/load-config.js";
import { ALL_KEYS, addConfigOptions, readConfig } from "./config-options.js";

/** `mblm-server config`: the effective settings, as a file that --config reads. */
export function configCommand(): Command {
  const command = new Command("config").description("print the effective settings as YAML");
  return addConfigOptions(command, ALL_KEYS).action((options: Record<string, unknown>) => {
    const config = readConfig(options);
    process.stdout.write(
      stringify(Object.fromEntries(Object.entries(config).map(([key, value]) => [snakeCase(key), shown(key, value)]))),
    );
  });
}

/** Secrets are not printed. */
function shown(key: string, value: unknown): unknown {
  if (key === "apiKey") return value === "" ? "" : "***";
  return key === "sessionUrl" ? String(value).replace(/\/\/[^@/]*@/, "//***@") : value;
}
