import { type LookupAddress, lookup } from "node:dns";
import type { IncomingMessage } from "node:http";
import { get } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { Gate } from "../../core/gate.js";
import { reasonOf } from "../../core/stopping.js";
import { MblmError } from "../../errors.js";
import { invalid } from "../generation-options.js";
import { requireFileSize } from "./image-text.js";
import { isPublicAddress } from "./public-address.js";

export interface RemoteLimits {
  /** Names of hosts that may be asked; exact, in lower case. */
  readonly hosts: ReadonlySet<string>;
  readonly maxBytes: number;
}

/** How hosts are reached. Tests have a network of their own. */
export interface Network {
  readonly resolve: (host: string, callback: (error: Error | null, addresses: LookupAddress[]) => void) => void;
  readonly isAllowed: (address: string) => boolean;
  readonly port: number;
  /** Certificates trusted in place of the usual ones. */
  readonly ca?: string;
}

const INTERNET: Network = {
  resolve: (host, callback) => lookup(host, { all: true }, (error, addresses) => callback(error, addresses ?? [])),
  isAllowed: isPublicAddress,
  port: 443,
};
const MAX_SECONDS = 10;
const MAX_FETCHING = 4;
const MAX_WAITING = 32;

/**
 * Fetches images from hosts that the server's owner has listed, and from nowhere else: over https, on its port, without
 * credentials or redirects, within a time and a size; and only from public addresses, which are checked as they are
 * connected to, so that a listed name that resolves to an inner address is of no use.
 */
export class RemoteImages {
  readonly #gate = new Gate(MAX_FETCHING, MAX_WAITING, "images wait to be fetched");

  constructor(
    private readonly limits: RemoteLimits,
    private readonly network: Network = INTERNET,
  ) {}

  /**
   * @param field the URL's name in errors
   * @throws MblmError `invalid_request`, `body_too_large`, `overloaded`, or the reason of `stop`
   */
  async fetch(url: string, field: string, stop: AbortSignal): Promise<Uint8Array> {
    const target = this.#checked(url, field);
    return this.#gate.pass(stop, async () => {
      const controller = new AbortController();
      const abort = (): void => controller.abort();
      const timer = setTimeout(abort, MAX_SECONDS * 1000);
      stop.addEventListener("abort", abort, { once: true });
      if (stop.aborted) abort();
      try {
        return await this.#get(target, field, controller.signal);
      } catch (cause) {
        if (stop.aborted) throw reasonOf(stop);
        if (cause instanceof MblmError) throw cause;
        const problem = controller.signal.aborted ? `it took more than ${MAX_SECONDS} s` : (cause as Error).message;
        throw new MblmError("invalid_request", `${field}: cannot be fetched: ${problem}`, { field, cause });
      } finally {
        clearTimeout(timer);
        stop.removeEventListener("abort", abort);
      }
    });
  }

  #checked(url: string, field: string): URL {
    const { hosts } = this.limits;
    if (hosts.size === 0) throw invalid(field, "must be a data: URL; this server fetches nothing from other hosts");
    const target = URL.canParse(url) ? new URL(url) : undefined;
    if (target?.protocol !== "https:") throw invalid(field, "must be a data: or https: URL");
    if (target.username !== "" || target.password !== "" || target.port !== "") {
      throw invalid(field, "must have no user, password or port");
    }
    const { hostname } = target;
    if (isIP(hostname) !== 0 || hostname.startsWith("[") || !hosts.has(hostname)) {
      throw invalid(field, `${hostname} is none of the hosts that this server fetches images from`);
    }
    return target;
  }

  async #get(target: URL, field: string, signal: AbortSignal): Promise<Uint8Array> {
    const response = await this.#respond(target, signal);
    try {
      if (response.statusCode !== 200)
        throw new Error(`the answer is ${response.statusCode}; redirects are not followed`);
      if ((response.headers["content-encoding"] ?? "identity") !== "identity")
        throw new Error("the answer is compressed");
      return await this.#read(response, field);
    } finally {
      response.destroy();
    }
  }

  #respond(target: URL, signal: AbortSignal): Promise<IncomingMessage> {
    const { port, ca } = this.network;
    const options = {
      port,
      signal,
      agent: false, // a connection of its own: none is reused that was checked for another name
      lookup: this.#lookup,
      headers: { accept: "image/jpeg, image/png, image/webp", "accept-encoding": "identity" },
      ...(ca === undefined ? {} : { ca }),
    };
    return new Promise((resolve, reject) => {
      get(target, options, resolve).on("error", reject);
    });
  }

  /** Resolves a name for the connection itself: what is checked is what is connected to. */
  readonly #lookup: LookupFunction = (host, { all }, callback) => {
    this.network.resolve(host, (error, addresses) => {
      const [first] = addresses;
      if (error) return callback(error, "");
      if (first === undefined || !addresses.every(({ address }) => this.network.isAllowed(address))) {
        return callback(new Error(`${host} has an address that is not public`), "");
      }
      if (all) return callback(null, addresses);
      return callback(null, first.address, first.family);
    });
  };

  async #read(response: IncomingMessage, field: string): Promise<Uint8Array> {
    const { maxBytes } = this.limits;
    requireFileSize(Number(response.headers["content-length"] ?? 0), field, maxBytes);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      length += chunk.length;
      requireFileSize(length, field, maxBytes);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}

/** @throws MblmError `config_invalid` for what is no list of host names */
export function parseHosts(list: string): ReadonlySet<string> {
  const hosts = list
    .split(",")
    .map((host) => host.trim().toLowerCase())
    .filter((host) => host !== "");
  for (const host of hosts) {
    if (/^[a-z0-9-]+(\.[a-z0-9-]+)+$/.test(host) && isIP(host) === 0) continue;
    throw new MblmError("config_invalid", `allowed_image_hosts: ${host} is not the name of a host`);
  }
  return new Set(hosts);
}
