import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { CompletionBody } from "../../src/http/completions-schema.js";
import { postCompletion, useApp } from "./test-app.js";

interface OpenApi {
  paths: Record<
    string,
    Record<string, { requestBody?: { content: Record<string, { examples: Record<string, { value: object }> }> } }>
  >;
  components: { schemas: Record<string, unknown> };
}

const contract = parse(readFileSync(new URL("../../openapi.yaml", import.meta.url), "utf8")) as OpenApi;
const app = useApp("mamba2-transformer");

describe("openapi.yaml", () => {
  it("describes the request exactly as the route checks it", () => {
    // Every field has a default or is optional: to clients none is required.
    const { required: _, ...schema } = JSON.parse(JSON.stringify(CompletionBody)) as Record<string, unknown>;
    expect(contract.components.schemas.CompletionRequest).toEqual(schema);
  });

  it("lists every route and no other", () => {
    const listed = Object.entries(contract.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace("{id}", ":id")}`),
    );
    for (const route of listed) {
      const [method, url] = route.split(" ") as ["GET", string];
      expect(app().server.hasRoute({ method, url })).toBe(true);
    }
    const served = app().server.printRoutes({ commonPrefix: false, includeHooks: false });
    const count = [...served.matchAll(/\((.*?)\)/g)]
      .flatMap(([, methods]) => methods!.split(", "))
      .filter((m) => m !== "HEAD");
    expect(count).toHaveLength(listed.length);
  });

  it("has examples that run", async () => {
    const { examples } = contract.paths["/v1/completions"]!.post!.requestBody!.content["application/json"]!;
    for (const { value } of Object.values(examples)) {
      const response = await postCompletion(app(), value);
      expect(response.status).toBe(200);
      await response.text();
    }
  });
});
