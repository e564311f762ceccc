import { describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { VERSION } from "../../src/version.js";
import { post } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const seeing = useApp("vqa");

describe("openapi.yaml", () => {
  it("says what the routes' schemas say (npm run openapi writes it anew)", async () => {
    const contract = JSON.parse(JSON.stringify(app().server.swagger()));
    contract.info.version = VERSION;
    await expect(stringify(contract, { aliasDuplicateObjects: false, lineWidth: 120 })).toMatchFileSnapshot(
      "../../openapi.yaml",
    );
  });

  const ROUTES = {
    CompletionRequest: "/v1/completions",
    ChatCompletionRequest: "/v1/chat/completions",
    TokenizeRequest: "/tokenize",
    DetokenizeRequest: "/detokenize",
  };
  it.each([
    ...Object.entries(ROUTES).map(([name, path]) => [name, path, app] as const),
    ["VqaRequest", "/v1/vqa", seeing] as const,
  ])("has examples of %s that run", async (name, path, server) => {
    const { components } = JSON.parse(JSON.stringify(app().server.swagger()));
    const { examples } = components.schemas[name];
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) {
      const response = await post(server(), path, example);
      expect(response.status, JSON.stringify(example)).toBe(200);
      await response.text();
    }
  });
});
