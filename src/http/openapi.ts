import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";
import { accessOf } from "./access/route-scopes.js";
import { MAX_MILLISECONDS, TIMEOUT_HEADER } from "./limits/deadline.js";
import { failures } from "./schemas/errors.js";
import { UploadQuerySchema } from "./uploads/upload-query.js";

/** Collects the contract from the routes' schemas; `openapi.yaml` is what it says. Before any route is registered. */
export async function describeApi(server: FastifyInstance, version: string): Promise<void> {
  await server.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "mblm-server",
        version,
        summary: "Streaming inference for Multiscale Byte Language Models.",
        description:
          "OpenAI's and vLLM's API over bytes. Token counts are byte counts; ids 0–255 are bytes, ids above are special. " +
          "Fields that are not listed are refused with a 400 that names them; `null` means that a field is left out.",
        license: { name: "MIT", identifier: "MIT" },
      } as object as { title: string; version: string },
      // Either: whether keys are asked for is the server's setting.
      security: [{}, { bearer: [] }],
      components: {
        securitySchemes: {
          bearer: { type: "http", scheme: "bearer", description: "An API key, see docs/security.md." },
        },
      },
      servers: [{ url: "http://127.0.0.1:8000" }],
      tags: [
        { name: "completions", description: "Generation." },
        { name: "vision", description: "Questions about images." },
        { name: "scoring", description: "How probable given bytes are." },
        { name: "sessions", description: "Conversations whose state is kept." },
        { name: "tokenizer", description: "Bytes as tokens, for programs that expect a tokenizer." },
        { name: "service", description: "What runs and how it is." },
        { name: "open inference protocol", description: "Health and metadata as KServe expects them." },
      ],
    },
    refResolver: { buildLocalReference: (json, _, __, index) => String(json.$id ?? `schema-${index}`) },
    transform: ({ schema, url, route }) => {
      const content = route.method === "GET" ? undefined : UNCHECKED_BODIES[url];
      const guarded = withAccess(schema, url);
      const querystring = UNCHECKED_QUERIES[url];
      return {
        schema: { ...guarded, ...(content && { body: { content } }), ...(querystring && { querystring }) },
        url,
      };
    },
  });
}

const TIMED = {
  type: "object",
  properties: {
    [TIMEOUT_HEADER]: {
      type: "integer",
      minimum: 1,
      maximum: MAX_MILLISECONDS,
      description: "Time that the request may take in all, its body and waiting included; then it fails with 408.",
    },
  },
};

/** What a key, or the lack of one, may be answered with. */
function withAccess<T extends { readonly response?: unknown }>(schema: T | undefined, url: string): T {
  const access = accessOf(url);
  if (access === "open") return { ...schema!, security: [] };
  if (access === "any") return withFailures(schema, [401]);
  if (access === "metrics") return withFailures(schema, [401, 403]);
  if (access === "admin") return withFailures(schema, [401, 403, 408, 503]);
  return { ...withFailures(schema, [400, 401, 403, 408, 429, 503]), headers: TIMED };
}

function withFailures<T extends { readonly response?: unknown }>(schema: T | undefined, statuses: number[]): T {
  return { ...schema!, response: { ...failures(...statuses), ...(schema?.response as object | undefined) } };
}

const BYTES = { "application/octet-stream": { schema: { type: "string", format: "binary" } } };
/** Queries that their routes check themselves. */
const UNCHECKED_QUERIES: Readonly<Record<string, object>> = { "/v1/completions/upload": UploadQuerySchema };
/** Bodies that their routes read or check themselves. */
const UNCHECKED_BODIES: Readonly<Record<string, object>> = {
  "/v1/completions/upload": BYTES,
  "/v1/score": BYTES,
  "/v1/sessions/:id/append": BYTES,
  "/v1/sessions/:id/snapshot": BYTES,
  "/v1/vqa": {
    "application/json": { schema: { $ref: "VqaRequest#" } },
    "multipart/form-data": { schema: { $ref: "VqaForm#" } },
  },
};
