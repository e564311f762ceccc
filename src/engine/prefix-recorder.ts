import type { SequenceRunner } from "./model-runner-interface.js";
import type { PrefixCache } from "./prefix-cache.js";
import type { Sequence } from "./sequence.js";

/** Puts the states of sequences into the prefix cache. */
export class PrefixRecorder {
  constructor(
    private readonly runner: SequenceRunner,
    private readonly cache: PrefixCache,
  ) {}

  /** Keeps the state at the slot's last patch border. A resumed sequence is left out: what came before is not known. */
  record(sequence: Sequence, slot: number): void {
    const { resume, cacheSalt = "" } = sequence.request;
    if (!this.cache.isEnabled || resume !== undefined) return;
    const length = this.runner.length(slot);
    const key = sequence.firstIds(length - (length % this.runner.patchLength));
    if (this.cache.wants(cacheSalt, key)) this.cache.add(cacheSalt, key, this.runner.borderSnapshot(slot));
  }
}
