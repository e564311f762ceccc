import type { Environment } from "../../config/environment.js";

/** The proxy by which an address is reached, as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; undefined for none. */
export function proxyFor(address: URL, environment: Environment): string | undefined {
  const { http_proxy, HTTP_PROXY, https_proxy, HTTPS_PROXY, no_proxy, NO_PROXY } = environment;
  const proxy = address.protocol === "https:" ? https_proxy || HTTPS_PROXY : http_proxy || HTTP_PROXY;
  const exceptions = (no_proxy || NO_PROXY || "").split(/[\s,]+/).filter((entry) => entry !== "");
  if (!proxy || exceptions.some((entry) => isException(entry.toLowerCase(), address))) return undefined;
  return proxy.includes("://") ? proxy : `http://${proxy}`;
}

/** An entry names a host and all that are below it, with a port or for all; `*` names every host. */
function isException(entry: string, { hostname, port, protocol }: URL): boolean {
  if (entry === "*") return true;
  const [, name, entryPort] = /^\*?\.?(.+?)(?::(\d+))?$/.exec(entry) ?? [];
  const actualPort = port || (protocol === "https:" ? "443" : "80");
  if (name === undefined || (entryPort !== undefined && entryPort !== actualPort)) return false;
  return hostname === name || hostname.endsWith(`.${name}`);
}
