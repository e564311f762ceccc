import { Command } from "commander";
import { Document, isScalar, type Pair } from "yaml";
import { CONFIG_PROPERTIES, resolveConfig, snakeCase } from "../config/load-config.js";
import { redactUrl } from "../config/redact-url.js";
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
    for (const [key, { secret = false }] of CONFIG_PROPERTIES) {
      const value = config[key];
      const pair = document.createPair(snakeCase(key), secret ? withoutSecret(String(value)) : value) as Pair;
      const origin = origins.get(key);
      if (origin !== undefined && isScalar(pair.value)) pair.value.comment = ` ${origin}`;
      document.add(pair);
    }
    process.stdout.write(document.toString());
  });
}

/** Of a URL all but who asks; of anything else nothing. */
function withoutSecret(value: string): string {
  if (value === "") return "";
  return value.includes("://") ? redactUrl(value) : "***";
}
