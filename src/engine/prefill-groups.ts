import type { StateSnapshot } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import type { Sequence } from "./sequence.js";

/** Sequences of one request with the same prompt. */
interface Group {
  readonly size: number;
  numStarted: number;
  /** Members in the engine. */
  readonly members: Set<Sequence>;
  /** The member whose prompt is being computed. */
  leader: Sequence | undefined;
  /** Members with a slot that wait for the leader. */
  followers: Sequence[];
  /** The state after the prompt, while members are still to come. */
  snapshot: StateSnapshot | undefined;
}

/** What a member with a fresh slot does next. */
export type GroupTurn = { readonly kind: "lead" } | { readonly kind: "follow" } | StateSnapshot;

/** Sees to it that a prompt shared by several sequences is computed once. */
export class PrefillGroups {
  readonly #groups = new Map<string, Group>();

  /** @throws MblmError `invalid_request` when the sequence's group has another prompt */
  requireSamePrompt(sequence: Sequence): void {
    const [other] = this.#groupOf(sequence)?.members ?? [];
    if (other === undefined || Buffer.compare(bytesOf(other), bytesOf(sequence)) === 0) return;
    throw new MblmError("invalid_request", "Sequences of one group must have the same prompt.");
  }

  /** Notes a new sequence, whose prompt is that of its group. */
  join(sequence: Sequence): void {
    const { group } = sequence.request;
    if (group === undefined) return;
    let known = this.#groups.get(group.id);
    if (known === undefined) {
      known = {
        size: group.size,
        numStarted: 0,
        members: new Set(),
        leader: undefined,
        followers: [],
        snapshot: undefined,
      };
      this.#groups.set(group.id, known);
    }
    known.members.add(sequence);
  }

  /** The member has a slot: it computes the prompt, waits for the one that does, or takes the state there is. */
  enter(sequence: Sequence): GroupTurn {
    const group = this.#groupOf(sequence);
    if (group === undefined) return { kind: "lead" };
    if (sequence.scorer !== undefined && (group.leader ?? group.snapshot) !== undefined) {
      this.#noteStarted(group, 1); // its scores need the whole computation
      return { kind: "lead" };
    }
    if (group.snapshot !== undefined) {
      const { snapshot } = group;
      this.#noteStarted(group, 1);
      return snapshot;
    }
    if (group.leader === undefined) {
      group.leader = sequence;
      return { kind: "lead" };
    }
    group.followers.push(sequence);
    return { kind: "follow" };
  }

  /**
   * The sequence's prompt is computed. Returns those that were waiting for its state, and the state.
   *
   * @param takeSnapshot called when another member needs the state
   */
  finishPrompt(
    sequence: Sequence,
    takeSnapshot: () => StateSnapshot,
  ): { followers: readonly Sequence[]; snapshot: StateSnapshot } | undefined {
    const group = this.#groupOf(sequence);
    if (group?.leader !== sequence || group.size === 1) return undefined;
    const { followers } = group;
    const snapshot = takeSnapshot();
    group.leader = undefined;
    group.followers = [];
    group.snapshot = snapshot;
    this.#noteStarted(group, 1 + followers.length);
    return { followers, snapshot };
  }

  /** Forgets a sequence. Returns the member that must lead in its place, if it led. */
  leave(sequence: Sequence): Sequence | undefined {
    const group = this.#groupOf(sequence);
    if (group === undefined) return undefined;
    group.members.delete(sequence);
    group.followers = group.followers.filter((other) => other !== sequence);
    if (group.members.size === 0) this.#groups.delete(sequence.request.group!.id);
    if (group.leader !== sequence) return undefined;
    group.leader = group.followers.shift();
    return group.leader;
  }

  #groupOf(sequence: Sequence): Group | undefined {
    const { group } = sequence.request;
    return group === undefined ? undefined : this.#groups.get(group.id);
  }

  /** Once every member has the state, nobody needs it any more. */
  #noteStarted(group: Group, count: number): void {
    group.numStarted += count;
    if (group.numStarted >= group.size) group.snapshot = undefined;
  }
}

function bytesOf({ input }: Sequence): Uint8Array {
  return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
}
