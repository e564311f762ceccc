import type { Scope } from "../../access/api-key.js";

/** `open`: no key is asked for. `any`: every key will do. */
export type Access = Scope | "open" | "any";

/** By path as it is registered. What is not here is `admin`'s: a new route is never open by mistake. */
const ACCESS: Readonly<Record<string, Access>> = {
  "/health": "open",
  "/health/live": "open",
  "/health/ready": "open",
  "/health/startup": "open",
  "/v2/health/live": "open",
  "/v2/health/ready": "open",
  "/metrics": "metrics",
  "/v1/completions": "generate",
  "/v1/completions/upload": "generate",
  "/v1/chat/completions": "generate",
  "/v1/vqa": "generate",
  "/v1/score": "generate",
  "/v1/stream": "generate",
  "/tokenize": "generate",
  "/detokenize": "generate",
  "/tokenizer_info": "any",
  "/v1/sessions": "sessions",
  "/v1/sessions/:id": "sessions",
  "/v1/sessions/:id/fork": "sessions",
  "/v1/sessions/:id/append": "sessions",
  "/v1/sessions/:id/snapshot": "sessions",
  "/v1/models": "any",
  "/v1/models/:id": "any",
  "/version": "any",
  "/load": "any",
  "/openapi.json": "any",
  "/v2": "any",
  "/v2/models/:name": "any",
  "/v2/models/:name/ready": "any",
  "/v2/repository/index": "any",
  "/v2/repository/models/:name/load": "admin",
  "/v2/repository/models/:name/unload": "admin",
};

/** What a request needs; of a path that no route has, any key hears that it does not exist. */
export function accessOf(path: string | undefined): Access {
  return path === undefined ? "any" : (ACCESS[path] ?? "admin");
}
