import { Command } from "commander";
import { Document, isScalar, type Pair } from "yaml";
import { resolveConfig, snakeCase } from "../config/load-config.js";
import type { ConfigKey } from "../config/schema.js";
import { ALL_KEYS, addConfigOptions, toSources } from "./config-options.js";

/** `mblm-server config`: the effective settings. */
export function configCommand(): Command {
  const command = new Command("config").description(
    "print the effective settings as YAML (for --config), and where each comes from",
  );
  return addConfigOptions(command, ALL_KEYS).action((options: Record<string, unknown>) => {
    const { config, origins } = resolveConfig(toSources(options));
    const document = new Document();
    document.contents = document.createNode({}) as typeof document.contents;
    for (const [key, value] of Object.entries(config)) {
      const pair = document.createPair(snakeCase(key), shown(key, value)) as Pair;
      const origin = origins.get(key as ConfigKey);
      if (origin !== undefined && isScalar(pair.value)) pair.value.comment = ` ${origin}`;
      document.add(pair);
    }
    process.stdout.write(document.toString());
  });
}

/** Secrets are not printed. */
function shown(key: string, value: unknown): unknown {
  if (key === "apiKey") return value === "" ? "" : "***";
  return key === "sessionUrl" ? String(value).replace(/\/\/[^@/]*@/, "//***@") : value;
}
