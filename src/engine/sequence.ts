import type { Clock } from "../core/clock.js";
import type { GenerationEvent, Timings, Usage } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { IdList } from "../core/id-list.js";
import type { ModelInfo } from "../core/model-info.js";
import type { SequenceState, StateSnapshot } from "../core/state-snapshot.js";
import { computeLogprobs } from "../sampling/logprobs.js";
import type { Sampler } from "../sampling/sampler.js";
import { SamplingHistory } from "../sampling/sampling-history.js";
import { EndConditions, type OutputEnd } from "./end-conditions.js";
import { OutputBuffer } from "./output-buffer.js";
import { PromptScorer } from "./prompt-scorer.js";

/** One generation in the engine: what it was asked, how far it has come and what it has not handed out yet. */
export class Sequence {
  readonly #sampling: SamplingHistory;
  readonly #end: EndConditions;
  readonly #output: OutputBuffer;
  readonly #generated = new IdList();
  /** What was predicted behind a sequence of which every id is fed. */
  #nextLogits: Float32Array | undefined;
  /** What is fed before anything is generated: the ids behind a resumed state, then the prompt. */
  readonly input: Uint16Array;
  /** Present when the prompt is scored. */
  readonly scorer: PromptScorer | undefined;
  /** Prompt ids whose state came from the prefix cache. */
  cachedLength = 0;
  /** Calls of the model that have fed the prompt. */
  numPrefillCalls = 0;
  /** Prompt length at which a snapshot should be taken on the way: others may branch off there. */
  cutAt: number | undefined;
  readonly #model: ModelInfo;
  readonly #clock: Clock;
  readonly #submittedAt: number;
  #slotAt: number | undefined;
  #firstIdAt: number | undefined;
  #lastId = 0;
  #checkpointedAt = 0;
  #hasHandedOut = false;
  #outputEnd: OutputEnd | undefined;

  constructor(
    /** Names the sequence in the engine and its events. */
    readonly key: number,
    readonly request: GenerationRequest,
    model: ModelInfo,
    clock: Clock,
  ) {
    this.#model = model;
    const tail = request.resume?.tail ?? NO_IDS;
    this.#nextLogits = request.resume?.logits;
    this.input = tail.length === 0 ? request.prompt : concatenate(tail, request.prompt);
    this.#sampling = new SamplingHistory(request.sampling, model.vocabularySize, this.input, request.resume?.seen);
    this.#end = new EndConditions(request.stop, model.eosId, request.constraint);
    this.#output = new OutputBuffer(request.numLogprobs !== undefined);
    this.#clock = clock;
    this.#submittedAt = clock.now();
    const { promptScoring } = request;
    if (request.continues !== undefined) this.#replay(request.continues);
    this.scorer = promptScoring && new PromptScorer(this.input, tail.length, promptScoring, model.vocabularySize);
    if (!this.#needsState) this.endIfNothingIsLeft();
  }

  /** Puts everything but the model's state where it was after these ids; those that were held back are so again. */
  #replay(ids: Uint16Array): void {
    for (const id of ids) {
      this.#sampling.record(id);
      this.#end.push(id);
    }
    for (const id of ids.subarray(ids.length - this.#end.numHeld)) this.#output.push(id);
    this.#hasHandedOut = true;
  }

  /** Ids before the input. */
  get base(): number {
    return this.request.resume?.snapshot.length ?? 0;
  }

  /** Length at which the input is used up. */
  get inputEnd(): number {
    return this.base + this.input.length;
  }

  /** Whether the model must be run for the state that the request asks for. */
  get #needsState(): boolean {
    return this.request.returnState === true && this.inputEnd > 0;
  }

  get numGenerated(): number {
    return this.#generated.length;
  }

  /** Ids before the input, of it and of the output; one that was sampled only to end the output does not count. */
  get length(): number {
    return this.inputEnd + this.numGenerated - (this.#outputEnd?.isSampledToEnd === true ? 1 : 0);
  }

  /** Whether any output has been taken. */
  get hasHandedOut(): boolean {
    return this.#hasHandedOut;
  }

  /** Set once the output is complete. */
  get outputEnd(): OutputEnd | undefined {
    return this.#outputEnd;
  }

  /** Notes that waiting is over. */
  enterSlot(): void {
    this.#slotAt = this.#clock.now();
  }

  /** The id to feed when the model has been fed `length` ids: the prompt's, then the generated one not fed yet. */
  idAt(length: number): number {
    const index = length - this.base;
    return index < this.input.length ? this.input[index]! : this.#lastId;
  }

  /** The first `length` ids of input and output. */
  firstIds(length: number): Uint16Array {
    const { input } = this;
    if (length <= input.length) return input.subarray(0, length);
    return concatenate(input, this.#generated.first(length - input.length));
  }

  /** What the sequence has come to, with the state of its last border. */
  stateFrom(snapshot: StateSnapshot): SequenceState {
    const ids = this.firstIds(this.length - this.base);
    const seen = this.request.resume?.seen.slice() ?? new Uint8Array(this.#model.vocabularySize);
    for (const id of ids) seen[id] = 1;
    const { id, bundleDigest } = this.#model;
    const tail = ids.slice(snapshot.length - this.base);
    const logits = tail.length > 0 ? undefined : this.#nextLogits;
    return { model: { id, bundleDigest }, snapshot, tail, seen, ...(logits && { logits }) };
  }

  /** What the choice of the next id depends on beside its logits. */
  get choosing(): { readonly history: SamplingHistory; readonly end: EndConditions } {
    return { history: this.#sampling, end: this.#end };
  }

  /** Takes the logits after `length` ids, as far as they predict the prompt. */
  scorePrompt(length: number, logits: Float32Array, offset: number): void {
    this.scorer?.score(length - this.base, logits, offset);
  }

  /** A sequence that generates nothing ends with its prompt's scores. */
  endIfNothingIsLeft(): void {
    if (this.numGenerated > 0 || this.scorer?.isComplete === false) return;
    this.#outputEnd ??= this.#end.atStart();
  }

  /** Ends the output where it is. */
  abort(): void {
    this.#outputEnd ??= { reason: "abort", numHidden: 0 };
  }

  /** Chooses the next id from the model's logits after prompt and output so far, and sees whether it ends the output. */
  generate(logits: Float32Array, offset: number, sampler: Sampler): void {
    this.take(sampler.sample(logits, offset, this.#sampling, this.#end.bannedIds, this.#end.mask), logits, offset);
    if (this.#outputEnd?.isSampledToEnd === true && this.request.returnState === true) {
      this.#nextLogits = logits.slice(offset, offset + this.#model.vocabularySize);
    }
  }

  /**
   * Takes the next id, chosen by the sampler's rule, and sees whether it ends the output.
   *
   * @param logits what it was chosen from; needed for a request with log-probs only
   */
  take(id: number, logits?: Float32Array, offset = 0): void {
    this.#sampling.record(id);
    const { numLogprobs } = this.request;
    const logprobs =
      numLogprobs === undefined
        ? undefined
        : computeLogprobs(logits!, offset, this.#model.vocabularySize, id, numLogprobs);
    this.#output.push(id, logprobs);
    this.#firstIdAt ??= this.#clock.now();
    this.#lastId = id;
    this.#generated.push(id);
    this.#outputEnd = this.#end.push(id);
    if (this.#outputEnd !== undefined) this.#output.dropLast(this.#outputEnd.numHidden);
  }

  /** Takes the prompt's scores that have not been handed out yet. */
  takeScores(): GenerationEvent | undefined {
    const scores = this.scorer?.take();
    return scores && { type: "prompt", scores };
  }

  /** Takes what may be handed out now: all of it at the end, else all but a possible beginning of a stop sequence. */
  takeOutput(): GenerationEvent | undefined {
    const count = this.#output.length - (this.#outputEnd === undefined ? this.#end.numHeld : 0);
    if (count === 0) return undefined;
    this.#hasHandedOut = true;
    return { type: "bytes", ...this.#output.takeFirst(count) };
  }

  /** Whether as many ids were generated since the last checkpoint as the request wants between two. */
  get isCheckpointDue(): boolean {
    const { checkpointEvery = Infinity } = this.request;
    return this.numGenerated - this.#checkpointedAt >= checkpointEvery;
  }

  /** The event of a state that was taken after all output that may be handed out was. */
  checkpoint(state: SequenceState): GenerationEvent {
    this.#checkpointedAt = this.numGenerated;
    return { type: "checkpoint", state, held: this.#output.copyIds() };
  }

  /**
   * The terminal event of an output that has ended: `outputEnd` is set.
   *
   * @param state for a request that asked for it
   */
  finish(state?: SequenceState): GenerationEvent {
    const end = this.#outputEnd!;
    const { matchedStop } = end;
    return {
      type: "finished",
      reason: end.reason,
      ...(matchedStop === undefined ? {} : { matchedStop }),
      ...(state === undefined ? {} : { state }),
      ...(end.reason === "abort" ? { numHeld: this.#end.numHeld } : {}),
      usage: this.#usage(),
      timings: this.#timings(),
    };
  }

  #usage(): Usage {
    return {
      promptBytes: this.request.prompt.length,
      generatedBytes: this.numGenerated,
      cachedBytes: this.cachedLength,
    };
  }

  /** Queue: until it got a slot; prefill: from there to the first generated id; decode: the rest. */
  #timings(): Timings {
    const now = this.#clock.now();
    const slotAt = this.#slotAt ?? now;
    const firstIdAt = this.#firstIdAt ?? now;
    return {
      queueSeconds: slotAt - this.#submittedAt,
      prefillSeconds: firstIdAt - slotAt,
      decodeSeconds: now - firstIdAt,
      prefillChunks: this.numPrefillCalls,
    };
  }
}

const NO_IDS = new Uint16Array();

function concatenate(first: Uint16Array, second: Uint16Array): Uint16Array {
  const ids = new Uint16Array(first.length + second.length);
  ids.set(first);
  ids.set(second, first.length);
  return ids;
}
