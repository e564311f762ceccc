import { readFileSync } from "node:fs";
import { Agent, type Dispatcher, fetch, ProxyAgent, type Response } from "undici";
import type { Environment } from "../../config/environment.js";
import { proxyFor } from "./proxy.js";

const TIMEOUT_MILLISECONDS = 60_000;
const MAX_REDIRECTS = 5;

/** Asks web servers as pip would: by way of the proxies, and with the certificates, that the environment names. */
export class HttpClient {
  readonly #ca: string | undefined;
  /** By proxy; "" for none. */
  readonly #dispatchers = new Map<string, Dispatcher>();

  constructor(private readonly environment: Environment) {
    const { PIP_CERT } = environment;
    this.#ca = PIP_CERT ? readFileSync(PIP_CERT, "utf8") : undefined;
  }

  /** Follows redirections, each by its own proxy. A name and password in the address are sent as such. */
  async get(address: string, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    let url = new URL(address);
    for (let redirects = 0; ; redirects++) {
      const dispatcher = this.#dispatcherFor(url);
      const login = loginOf(url);
      const bare = withoutLogin(url);
      const response = await fetch(bare, { dispatcher, headers: { ...login, ...headers }, redirect: "manual" });
      const location = response.headers.get("location");
      if (response.status < 300 || response.status >= 400 || location === null) return response;
      await response.body?.cancel();
      if (redirects === MAX_REDIRECTS) throw new Error(`more than ${MAX_REDIRECTS} redirections`);
      url = new URL(location, bare);
    }
  }

  #dispatcherFor(url: URL): Dispatcher {
    const proxy = proxyFor(url, this.environment) ?? "";
    let dispatcher = this.#dispatchers.get(proxy);
    if (dispatcher === undefined) {
      const timeouts = { headersTimeout: TIMEOUT_MILLISECONDS, bodyTimeout: TIMEOUT_MILLISECONDS };
      const tls = this.#ca === undefined ? {} : { ca: this.#ca };
      dispatcher =
        proxy === ""
          ? new Agent({ ...timeouts, connect: tls })
          : new ProxyAgent({ ...timeouts, uri: proxy, requestTls: tls });
      this.#dispatchers.set(proxy, dispatcher);
    }
    return dispatcher;
  }

  /** Answers that were not read to their end are given up. */
  async close(): Promise<void> {
    await Promise.all([...this.#dispatchers.values()].map((dispatcher) => dispatcher.destroy()));
  }
}

function loginOf({ username, password }: URL): Record<string, string> {
  if (username === "") return {};
  const login = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { authorization: `Basic ${Buffer.from(login).toString("base64")}` };
}

/** An address as it may be shown, and as fetch takes it. */
export function withoutLogin(address: URL | string): string {
  const url = new URL(address);
  url.username = url.password = "";
  return url.href;
}
