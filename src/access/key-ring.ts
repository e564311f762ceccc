import { timingSafeEqual } from "node:crypto";
import { type ApiKey, hashSecret, plainKey } from "./api-key.js";
import { readKeyFile } from "./key-file.js";
import { KeyLimiter } from "./key-limiter.js";

/** A key that was shown, and what it has used. */
export interface Caller {
  readonly key: ApiKey;
  readonly limiter: KeyLimiter;
}

/** The keys that are accepted now. */
export class KeyRing {
  #callers: readonly Caller[];

  /**
   * @param secret of the one plain key; "" for none
   * @param file of more keys; "" for none
   * @param now monotonic seconds
   * @throws MblmError `config_invalid`
   */
  constructor(
    private readonly secret: string,
    private readonly file: string,
    private readonly now: () => number,
  ) {
    this.#callers = this.#read([]);
  }

  /** Whether a key is asked for at all. */
  get isUsed(): boolean {
    return this.#callers.length > 0;
  }

  /** Reads the file again; what keys have used is remembered. @throws MblmError `config_invalid`, and the old keys stay */
  reload(): void {
    this.#callers = this.#read(this.#callers);
  }

  /** Every hash is compared, in constant time, so that the time says nothing of the secrets. */
  find(secret: string): Caller | undefined {
    const hash = hashSecret(secret);
    let found: Caller | undefined;
    for (const caller of this.#callers) {
      for (const other of caller.key.hashes) if (timingSafeEqual(hash, other)) found = caller;
    }
    return found;
  }

  #read(old: readonly Caller[]): Caller[] {
    const keys = [
      ...(this.secret === "" ? [] : [plainKey(this.secret)]),
      ...(this.file === "" ? [] : readKeyFile(this.file)),
    ];
    return keys.map((key) => {
      const before = old.find((other) => other.key.name === key.name && other.key.isPlain === key.isPlain);
      const isSame = JSON.stringify(before?.key.limits) === JSON.stringify(key.limits);
      return { key, limiter: before && isSame ? before.limiter : new KeyLimiter(key.limits, this.now) };
    });
  }
}
