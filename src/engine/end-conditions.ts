import type { StopConditions } from "../core/generation-request.js";
import { StopMatcher } from "./stop-matcher.js";

/** Why and how an output ended. */
export interface OutputEnd {
  readonly reason: "stop" | "length";
  readonly matchedStop?: Uint8Array | number;
  /** Latest ids that are not part of what the client is given. */
  readonly numHidden: number;
}

const NONE: readonly number[] = [];

/** Decides after every generated id whether the output ends there. */
export class EndConditions {
  readonly #stop: StopConditions;
  readonly #endIds: readonly number[];
  readonly #matcher: StopMatcher;
  #numGenerated = 0;

  constructor(stop: StopConditions, eosId: number | undefined) {
    this.#stop = stop;
    this.#endIds = endIds(stop, eosId);
    this.#matcher = new StopMatcher(stop.stopSequences);
  }

  /** Ids that must not be sampled next: the ids that end an output, until `minNewBytes` ids are there. */
  get bannedIds(): readonly number[] {
    return this.#numGenerated < this.#stop.minNewBytes ? this.#endIds : NONE;
  }

  /** Latest ids that could still become part of a stop sequence. */
  get numHeld(): number {
    return this.#matcher.numHeld;
  }

  /** Takes the next generated id. Stop ids come before stop sequences, and both before the length limit. */
  push(id: number): OutputEnd | undefined {
    this.#numGenerated++;
    const { includeStop, maxNewBytes, minNewBytes } = this.#stop;
    const matchedSequence = this.#matcher.push(id, this.#numGenerated >= minNewBytes);
    if (this.#endIds.includes(id)) {
      return { reason: "stop", matchedStop: id, numHidden: includeStop && id < 256 ? 0 : 1 };
    }
    if (matchedSequence !== undefined) {
      return { reason: "stop", matchedStop: matchedSequence, numHidden: includeStop ? 0 : matchedSequence.length };
    }
    return this.#numGenerated >= maxNewBytes ? { reason: "length", numHidden: 0 } : undefined;
  }
}

/** The distinct ids that end an output. */
export function endIds(stop: StopConditions, eosId: number | undefined): number[] {
  const ids = new Set(stop.stopIds);
  if (eosId !== undefined && !stop.ignoreEos) ids.add(eosId);
  return [...ids];
}
