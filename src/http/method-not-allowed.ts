import type { FastifyInstance } from "fastify";

/**
 * The methods that each path of the server answers, noted while routes are registered: call it before registering any.
 * Returns the methods of a request's path, none when no route has it.
 */
export function noteMethods(server: FastifyInstance): (path: string) => readonly string[] {
  const routes: { readonly pattern: RegExp; readonly methods: readonly string[] }[] = [];
  server.addHook("onRoute", ({ url, method }) => {
    routes.push({ pattern: toPattern(url), methods: [method].flat() });
  });
  return (path) => routes.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods);
}

/** `/v1/models/:id` → an expression for the paths it matches. */
function toPattern(url: string): RegExp {
  const segments = url.split("/").map((segment) => (segment.startsWith(":") ? "[^/]+" : escapePattern(segment)));
  return new RegExp(`^${segments.join("/")}$`);
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
