import { MblmError } from "../errors.js";
import type { Sequence } from "./sequence.js";

export interface WaitingLimits {
  /** Sequences that may wait beyond those that a free slot is there for. */
  readonly maxWaiting: number;
  /** Prompt bytes of all waiting sequences; a sequence that waits alone may exceed it. */
  readonly maxQueuedPromptBytes: number;
}

/** Admitted sequences without a slot: by priority, then first come first served; bounded in number and prompt bytes. */
export class WaitingQueue {
  readonly #limits: WaitingLimits;
  readonly #sequences: Sequence[] = [];
  #promptBytes = 0;

  constructor(limits: WaitingLimits) {
    this.#limits = limits;
  }

  get length(): number {
    return this.#sequences.length;
  }

  /** @throws MblmError `overloaded`, leaving the queue as it was; not for what waits for room */
  push(sequence: Sequence, numFreeSlots: number): void {
    if (!sequence.request.waitsForRoom) this.#requireRoom(sequence.input.length, numFreeSlots);
    this.#promptBytes += sequence.input.length;
    const behind = this.#sequences.findIndex((other) => priorityOf(other) > priorityOf(sequence));
    this.#sequences.splice(behind < 0 ? this.#sequences.length : behind, 0, sequence);
  }

  #requireRoom(promptBytes: number, numFreeSlots: number): void {
    const { maxWaiting, maxQueuedPromptBytes } = this.#limits;
    if (this.length - numFreeSlots >= maxWaiting) {
      throw new MblmError("overloaded", `All slots are busy and ${this.length} requests are waiting; try again later.`);
    }
    if (this.length > 0 && this.#promptBytes + promptBytes > maxQueuedPromptBytes) {
      throw new MblmError(
        "overloaded",
        `The waiting prompts would exceed ${maxQueuedPromptBytes} bytes in all; try again later.`,
      );
    }
  }

  shift(): Sequence | undefined {
    const sequence = this.#sequences.shift();
    if (sequence !== undefined) this.#promptBytes -= sequence.input.length;
    return sequence;
  }

  /** Returns whether the sequence was waiting. */
  remove(sequence: Sequence): boolean {
    const index = this.#sequences.indexOf(sequence);
    if (index < 0) return false;
    this.#sequences.splice(index, 1);
    this.#promptBytes -= sequence.input.length;
    return true;
  }
}

function priorityOf(sequence: Sequence): number {
  return sequence.request.priority ?? 0;
}
