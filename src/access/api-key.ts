import { createHash, randomBytes } from "node:crypto";

/** What a key may be for. `admin` is for whatever has no scope of its own. */
export const SCOPES = ["generate", "sessions", "metrics", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** Bounds of one key; what is left out is not bounded. */
export interface KeyLimits {
  /** Sequences that run or wait at a time. */
  readonly concurrency?: number;
  /** Requests on the average; as many may come at once. */
  readonly requestsPerMinute?: number;
  /** Bytes of prompts and outputs on the average. */
  readonly bytesPerSecond?: number;
}

/** Who may use the server, as the key file says. */
export interface ApiKey {
  /** Names the key in logs, and owns the sessions made with it. */
  readonly name: string;
  /** SHA-256 of each secret that is accepted: two while one takes the other's place. */
  readonly hashes: readonly Buffer[];
  readonly scopes: ReadonlySet<Scope>;
  readonly limits: KeyLimits;
  /** Whether its sessions are those of a server without keys. */
  readonly isPlain: boolean;
}

const SECRET_BYTES = 32;
const HASH_PREFIX = "sha256:";

/** A new secret: 256 random bits, which no search finds, so that one round of SHA-256 is enough to keep it. */
export function makeSecret(): string {
  return `mblm_${randomBytes(SECRET_BYTES).toString("base64url")}`;
}

export function hashSecret(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}

/** As key files spell it. */
export function spellHash(hash: Buffer): string {
  return HASH_PREFIX + hash.toString("hex");
}

export function readHash(text: string): Buffer {
  return Buffer.from(text.slice(HASH_PREFIX.length), "hex");
}

/** The one key of `--api-key`: it may do everything. */
export function plainKey(secret: string): ApiKey {
  return { name: "default", hashes: [hashSecret(secret)], scopes: new Set(SCOPES), limits: {}, isPlain: true };
}
