import { randomBytes } from "node:crypto";
import type { Usage } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import { IdList } from "../../core/id-list.js";
import { MblmError } from "../../errors.js";
import type { PartialGeneration } from "../../session/stream-progress.js";
import type { AppContext } from "../app-context.js";
import { type GenerationOptions, toGenerationOptions } from "../generation-options.js";
import { usageBody } from "../wire.js";
import type { GenerateMessage } from "./messages.js";

/** One generation of a stream, which may come about in several parts. */
export class GenerationRun {
  readonly #options: GenerationOptions;
  /** What names it when a client asks for it again. */
  readonly #request: string;
  readonly #ids = new IdList();
  #promptBytes: number;
  #cachedBytes = 0;
  #numHeld = 0;
  /** Ids that the part under way hands out once more. */
  #numRepeated = 0;

  /**
   * @param partial what was done of it before, if it is this one
   * @throws MblmError `invalid_request` naming the field
   */
  constructor(message: GenerateMessage, promptBytes: number, context: AppContext, partial?: PartialGeneration) {
    const { type: _, stream: __, ...fields } = message;
    const { maxNewBytes } = context.config;
    if (fields.max_tokens > maxNewBytes) {
      throw new MblmError("invalid_request", `max_tokens: must not exceed this server's limit of ${maxNewBytes}`, {
        field: "max_tokens",
      });
    }
    this.#request = JSON.stringify(fields);
    const before = partial?.request === this.#request ? partial : undefined;
    const seed = before?.seed ?? (fields.seed === null ? randomBytes(8).readBigUInt64LE() : BigInt(fields.seed));
    const options = toGenerationOptions({ ...NOT_ASKED, ...fields }, context.engine.info, context.constraints);
    this.#options = { ...options, sampling: { ...options.sampling, seed: BigInt.asUintN(64, seed) } };
    this.#promptBytes = (before?.promptBytes ?? 0) + promptBytes;
    for (const id of before?.ids ?? []) this.#ids.push(id);
  }

  /** What is asked of the engine next. */
  toRequest(): GenerationOptions & Pick<GenerationRequest, "continues"> {
    if (this.#ids.length === 0) return this.#options;
    return { ...this.#options, continues: this.#ids.first(this.#ids.length).slice() };
  }

  /** Notes what the engine has handed out. */
  take(ids: Uint16Array): void {
    for (const id of ids) {
      if (this.#numRepeated > 0) this.#numRepeated--;
      else this.#ids.push(id);
    }
  }

  /** The part that ran was interrupted; its last `numHeld` ids will be handed out again. */
  interrupt(numHeld: number, usage: Usage): void {
    this.#numHeld = numHeld;
    this.#numRepeated = numHeld;
    this.#cachedBytes += usage.cachedBytes;
  }

  /** Ids that were held back when it was interrupted. */
  get held(): Uint16Array {
    const ids = this.#ids.first(this.#ids.length);
    return ids.slice(ids.length - this.#numHeld);
  }

  /**
   * What is kept of it.
   *
   * @param held ids after those taken
   */
  toPartial(held: Uint16Array = NONE): PartialGeneration {
    return {
      request: this.#request,
      seed: this.#options.sampling.seed,
      ids: Uint16Array.from([...this.#ids.first(this.#ids.length), ...held]),
      promptBytes: this.#promptBytes,
    };
  }

  /** Of the whole generation, given the last part's. */
  usage(last: Usage | undefined, numBefore: number) {
    const usage = {
      promptBytes: this.#promptBytes,
      generatedBytes: numBefore + (last?.generatedBytes ?? 0),
      cachedBytes: this.#cachedBytes + (last?.cachedBytes ?? 0),
    };
    return usageBody([usage], 1);
  }

  get numGenerated(): number {
    return this.#ids.length;
  }
}

const NONE = new Uint16Array();

/** Fields of completions that a stream has no use for. */
const NOT_ASKED = {
  n: 1,
  stream: true,
  stream_options: null,
  stream_interval: 1,
  return_token_ids: false,
  truncate_prompt_tokens: null,
  request_id: null,
};
