import { expect, it } from "vitest";
import { CONFIG_PROPERTIES, environmentName, kebabCase } from "../../src/config/load-config.js";

const HEAD = `# Configuration

Every setting can be an option of \`mblm-server serve\`, a variable of the environment or, in snake_case, a line of the YAML or JSON
file that \`--config\` or \`MBLM_CONFIG\` names; options win over the environment, the environment over the file. \`mblm-server config\` takes
the same options and prints what the server would use, but no secret, and where each value comes from. At the start, every problem is
listed at once: of the settings, of the certificate, the keys and the models that they name. \`mblm-server health\` reads where the server
listens in the same way, and asks it how it is.

| setting | environment | default | meaning |
|---|---|---|---|
`;

interface Property {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default: unknown;
  readonly description: string;
}

function range({ enum: choices, minimum, maximum, type }: Property): string {
  if (choices) return ` (${choices.join(", ")})`;
  if (type === "boolean") return " (true, false)";
  if (minimum === undefined) return "";
  return maximum === undefined || maximum >= Number.MAX_SAFE_INTEGER ? ` (≥ ${minimum})` : ` (${minimum}–${maximum})`;
}

it("docs/configuration.md says what the settings' schema says (npm run openapi writes it anew)", async () => {
  const rows = CONFIG_PROPERTIES.map(([key, property]) => {
    const shown = property.default === "" ? "" : `\`${property.default}\``;
    const meaning = (property.description + range(property)).replaceAll("|", "\\|");
    return `| \`--${kebabCase(key)}\` | \`${environmentName(key)}\` | ${shown} | ${meaning} |\n`;
  });
  await expect(HEAD + rows.join("")).toMatchFileSnapshot("../../docs/configuration.md");
});
