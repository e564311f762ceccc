import type { FinishReason } from "../core/generation-event.js";
import { endIds, type OutputConstraint, type StopConditions } from "../core/generation-request.js";
import type { ScoreMask } from "../sampling/sampler.js";
import { ConstraintCursor } from "./constraint-cursor.js";
import { StopMatcher } from "./stop-matcher.js";

/** Why and how an output ended. */
export interface OutputEnd {
  readonly reason: FinishReason;
  readonly matchedStop?: Uint8Array | number;
  /** Latest ids that are not part of what the client is given. */
  readonly numHidden: number;
  /** Whether the last id only ended the output and is no part of the text: an end id, or one that fits no match. */
  readonly isSampledToEnd?: boolean;
}

const NONE: readonly number[] = [];

/** Decides after every generated id whether the output ends there, and before it which ids may come. */
export class EndConditions implements ScoreMask {
  readonly #stop: StopConditions;
  /** Where the output stands in what it must match. */
  readonly cursor: ConstraintCursor | undefined;
  /** The distinct ids that end the output. */
  readonly endIds: readonly number[];
  readonly #matcher: StopMatcher;
  #numGenerated = 0;

  constructor(stop: StopConditions, eosId: number | undefined, constraint?: OutputConstraint) {
    this.#stop = stop;
    this.cursor = constraint && new ConstraintCursor(constraint);
    this.endIds = endIds(stop, eosId);
    this.#matcher = new StopMatcher(stop.stopSequences);
  }

  /** Ids that must not be sampled next: the ids that end an output, until `minNewBytes` ids are there. */
  get bannedIds(): readonly number[] {
    return this.#numGenerated < this.#stop.minNewBytes ? this.endIds : NONE;
  }

  /** Bans what the constraint does not allow next; undefined without one. */
  get mask(): ScoreMask | undefined {
    return this.cursor && this;
  }

  apply(scores: Float64Array): void {
    const { maxNewBytes, minNewBytes } = this.#stop;
    const mayEnd = this.#numGenerated >= minNewBytes;
    this.cursor!.apply(scores, maxNewBytes - this.#numGenerated, mayEnd, this.endIds);
  }

  /** Ids that may still be generated. */
  get numLeft(): number {
    return this.#stop.maxNewBytes - this.#numGenerated;
  }

  /** Ids that must still be generated before one may end the output. */
  get numUnended(): number {
    return Math.max(0, this.#stop.minNewBytes - this.#numGenerated);
  }

  /** Latest ids that could still become part of a stop sequence. */
  get numHeld(): number {
    return this.#matcher.numHeld;
  }

  /** Takes the next generated id. Stop ids come first, then stop sequences, the constraint's end and the length limit. */
  push(id: number): OutputEnd | undefined {
    this.#numGenerated++;
    const { includeStop, minNewBytes } = this.#stop;
    const isPart = this.cursor?.push(id) ?? true;
    const matchedSequence = this.#matcher.push(id, this.#numGenerated >= minNewBytes);
    if (this.endIds.includes(id)) {
      const isShown = includeStop && id < 256;
      return { reason: "stop", matchedStop: id, numHidden: isShown ? 0 : 1, isSampledToEnd: !isShown };
    }
    if (matchedSequence !== undefined) {
      return { reason: "stop", matchedStop: matchedSequence, numHidden: includeStop ? 0 : matchedSequence.length };
    }
    return isPart ? this.#endHere() : { reason: "stop", numHidden: 1, isSampledToEnd: true };
  }

  /** The end of an output that cannot have a single id. */
  atStart(): OutputEnd | undefined {
    return this.#endHere();
  }

  /** The end of an output to which nothing can be added. */
  #endHere(): OutputEnd | undefined {
    const numLeft = this.#stop.maxNewBytes - this.#numGenerated;
    const end = this.cursor?.end(numLeft);
    if (end === "complete") return { reason: "stop", numHidden: 0 };
    return end === "full" || numLeft <= 0 ? { reason: "length", numHidden: 0 } : undefined;
  }
}
