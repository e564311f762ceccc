import { randomUUID } from "node:crypto";
import type { Config } from "../../config/schema.js";
import type { ConstraintCompiler } from "../../constraints/constraint-compiler.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import type { ModelInfo } from "../../core/model-info.js";
import { invalid, seedOfChoice, toGenerationOptions } from "../generation-options.js";
import { toPrompts, truncate } from "../prompts.js";
import type { CompletionBody } from "./completions-schema.js";

/** The server's settings for one request. */
export type RequestLimits = Pick<Config, "maxBatchPrompts" | "maxNewBytes">;

/** Sequences generated for each prompt. */
export function choicesPerPrompt(body: CompletionBody): number {
  return body.best_of ?? body.n;
}

/**
 * The generations that a completion request asks for: prompt p's choice k is number p·choices + k.
 *
 * @param moreStops stop texts beside the request's own
 */
export function toGenerationRequests(
  body: CompletionBody,
  id: string,
  info: ModelInfo,
  compiler: ConstraintCompiler,
  limits: RequestLimits,
  moreStops: readonly string[] = [],
): GenerationRequest[] {
  const { maxBatchPrompts: maxSequences, maxNewBytes } = limits;
  checkCombinations(body);
  if (body.max_tokens > maxNewBytes)
    throw invalid("max_tokens", `must not exceed this server's limit of ${maxNewBytes}`);
  const size = choicesPerPrompt(body);
  const prompts = toPrompts(body.prompt, info.vocabularySize).map((prompt) =>
    truncate(prompt, body.truncate_prompt_tokens, body.max_tokens, info),
  );
  if (prompts.length * size > maxSequences) {
    const name = body.best_of === null ? "n" : "best_of";
    throw invalid(
      name,
      `${prompts.length} prompts × ${size} exceed the limit of ${maxSequences} sequences per request`,
    );
  }
  const options = toGenerationOptions(body, info, compiler, moreStops);
  const numLogprobs = body.best_of !== null && body.best_of > body.n ? (body.logprobs ?? 0) : body.logprobs;
  const numPromptLogprobs = promptLogprobs(body);
  return prompts.flatMap((prompt, p) => {
    const group = { id: randomUUID(), size }; // ids that clients choose need not be unique
    return Array.from({ length: size }, (_, k) => ({
      id: prompts.length * size === 1 ? id : `${id}-${p * size + k}`,
      prompt,
      ...options,
      ...(numLogprobs === null ? {} : { numLogprobs }),
      // The choices of a prompt share its scores.
      ...(numPromptLogprobs === undefined || k > 0
        ? {}
        : { promptScoring: { numTop: numPromptLogprobs, entropy: false } }),
      ...(size === 1 ? {} : { group }),
      sampling: { ...options.sampling, seed: seedOfChoice(options.sampling.seed, k) },
    }));
  });
}

/** Most alternatives that are reported at any place of the prompt; undefined when it is not scored. */
function promptLogprobs({ echo, logprobs, prompt_logprobs }: CompletionBody): number | undefined {
  const wanted = [echo ? logprobs : null, prompt_logprobs].filter((count) => count !== null);
  return wanted.length === 0 ? undefined : Math.max(...wanted);
}

function isList(prompt: CompletionBody["prompt"]): boolean {
  return Array.isArray(prompt) && prompt.length > 0 && typeof prompt[0] !== "number";
}

function checkCombinations(body: CompletionBody): void {
  if (body.suffix !== null && body.suffix !== "") {
    throw invalid("suffix", "is not supported: the model continues text and cannot fill in");
  }
  if (body.stream_options !== null && !body.stream) throw invalid("stream_options", "needs stream: true");
  if (body.session_id !== null && (choicesPerPrompt(body) > 1 || isList(body.prompt))) {
    throw invalid("session_id", "goes with one prompt and one choice");
  }
  if (body.best_of === null) return;
  if (body.best_of < body.n) throw invalid("best_of", `must be at least n (${body.n})`);
  if (body.stream && body.best_of > body.n)
    throw invalid("best_of", "cannot be streamed: the best is known at the end");
}
