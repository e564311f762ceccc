import { describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { VERSION } from "../../src/version.js";
import { post } from "./api.js";
import { useApp } from "./test-app.js";

interface Contract {
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: {
    readonly schemas: Record<string, { required?: string[]; properties: Record<string, object> }>;
  };
}
interface Operation {
  readonly parameters?: { readonly name: string; readonly in: string; readonly required: boolean }[];
  readonly requestBody?: { readonly content: Record<string, { readonly schema: { readonly $ref?: string } }> };
}

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

  it("asks for no field that may be left out", () => {
    const { paths, components } = JSON.parse(JSON.stringify(app().server.swagger())) as Contract;
    const operations = Object.values(paths).flatMap((path) => Object.values(path));
    const parameters = operations.flatMap(({ parameters = [] }) => parameters);
    const queries = parameters.filter(({ in: place }) => place === "query");
    expect(queries.length).toBeGreaterThan(30);
    expect(queries.filter(({ required }) => required).map(({ name }) => name)).toEqual([]);
    const bodies = operations.flatMap(({ requestBody }) => Object.values(requestBody?.content ?? {}));
    const names = bodies.flatMap(({ schema }) => schema.$ref?.split("/").at(-1) ?? []);
    expect(names).toContain("VqaForm");
    for (const name of names) {
      const { required = [], properties } = components.schemas[name]!;
      expect([name, required.filter((key) => "default" in properties[key]!)]).toEqual([name, []]);
    }
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
