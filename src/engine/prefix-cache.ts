import type { PrefixCacheStats } from "../core/engine-stats.js";
import { type StateSnapshot, snapshotBytes } from "../core/state-snapshot.js";
import { PrefixTree } from "./prefix-tree.js";

/** Shorter prefixes are computed again: copying a state costs about as much. */
export const MIN_CACHED_LENGTH = 64;

interface Entry {
  readonly salt: string;
  readonly key: Uint16Array;
  readonly snapshot: StateSnapshot;
  readonly bytes: number;
}

/** What the cache has for a prompt. */
export interface CachedPrefix {
  /** State after the longest cached prefix; undefined when there is none. */
  readonly snapshot: StateSnapshot | undefined;
  /** Ids that the prompt shares with some cached sequence: others are likely to branch off there, too. */
  readonly numShared: number;
}

/**
 * States after prefixes that were computed before, by the prefix's bytes and the client's salt, bounded in memory; the
 * least recently used go first. A recurrent state cannot be cut, so a prefix is found only where a snapshot was taken:
 * at the end of prompts and outputs, and where a prompt branched off a cached sequence.
 */
export class PrefixCache {
  readonly #trees = new Map<string, PrefixTree<Entry>>();
  /** Least recently used first. */
  readonly #entries = new Set<Entry>();
  #bytes = 0;
  #numQueries = 0;
  #queriedBytes = 0;
  #numHits = 0;
  #hitBytes = 0;

  /** @param maxBytes memory for states and keys; 0 keeps nothing */
  constructor(private readonly maxBytes: number) {}

  get isEnabled(): boolean {
    return this.maxBytes > 0;
  }

  /** The longest cached proper prefix of a prompt: at least one id is left to be fed. */
  find(salt: string, prompt: Uint16Array): CachedPrefix {
    this.#numQueries++;
    this.#queriedBytes += prompt.length;
    const match = this.#trees.get(salt)?.match(prompt.subarray(0, -1));
    const entry = match?.value;
    if (entry !== undefined) {
      this.#touch(entry);
      this.#numHits++;
      this.#hitBytes += entry.key.length;
    }
    return { snapshot: entry?.snapshot, numShared: match?.numShared ?? 0 };
  }

  /** Whether a state for this key would be worth its memory beside that of the longest cached prefix. */
  wants(salt: string, key: Uint16Array): boolean {
    if (!this.isEnabled || key.length < MIN_CACHED_LENGTH) return false;
    const nearest = this.#trees.get(salt)?.match(key).value;
    if (nearest === undefined) return true;
    this.#touch(nearest);
    return key.length - nearest.key.length >= MIN_CACHED_LENGTH;
  }

  /** Keeps the state after `key`. A state larger than the whole cache is not kept. */
  add(salt: string, key: Uint16Array, snapshot: StateSnapshot): void {
    const entry = { salt, key: key.slice(), snapshot, bytes: snapshotBytes(snapshot) + 2 * key.byteLength };
    if (entry.bytes > this.maxBytes) return;
    const known = this.#trees.get(salt)?.match(key).value;
    if (known?.key.length === key.length) this.#remove(known);
    while (this.#bytes + entry.bytes > this.maxBytes) this.#remove(this.#entries.values().next().value!);
    const tree = this.#trees.get(salt) ?? new PrefixTree<Entry>();
    this.#trees.set(salt, tree);
    tree.set(entry.key, entry);
    this.#entries.add(entry);
    this.#bytes += entry.bytes;
  }

  stats(): PrefixCacheStats {
    return {
      numEntries: this.#entries.size,
      bytes: this.#bytes,
      maxBytes: this.maxBytes,
      numQueries: this.#numQueries,
      queriedBytes: this.#queriedBytes,
      numHits: this.#numHits,
      hitBytes: this.#hitBytes,
    };
  }

  #touch(entry: Entry): void {
    this.#entries.delete(entry);
    this.#entries.add(entry);
  }

  #remove(entry: Entry): void {
    const tree = this.#trees.get(entry.salt)!;
    tree.delete(entry.key);
    if (tree.isEmpty) this.#trees.delete(entry.salt);
    this.#entries.delete(entry);
    this.#bytes -= entry.bytes;
  }
}
