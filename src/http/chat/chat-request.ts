import type { GenerationRequest } from "../../core/generation-request.js";
import type { AppContext } from "../app-context.js";
import { toGenerationRequests } from "../completions/completion-request.js";
import type { CompletionBody } from "../completions/completions-schema.js";
import { invalid } from "../generation-options.js";
import type { ChatBody } from "./chat-schema.js";

const DEFAULT_MAX_TOKENS = 1024;

/** A conversation as the completion of its rendered text. */
export function toCompletionBody(body: ChatBody, context: AppContext): CompletionBody {
  if (body.top_logprobs !== null && !body.logprobs) throw invalid("top_logprobs", "needs logprobs: true");
  if (
    body.max_tokens !== null &&
    body.max_completion_tokens !== null &&
    body.max_tokens !== body.max_completion_tokens
  ) {
    throw invalid("max_tokens", "differs from max_completion_tokens");
  }
  const { messages, max_completion_tokens, top_logprobs, logprobs, add_generation_prompt, ...shared } = body;
  return {
    ...shared,
    prompt: context.chatTemplate.render(messages, add_generation_prompt),
    max_tokens: body.max_tokens ?? max_completion_tokens ?? DEFAULT_MAX_TOKENS,
    logprobs: logprobs ? (top_logprobs ?? 0) : null,
    best_of: null,
    echo: false,
    prompt_logprobs: null,
    session_id: null,
    suffix: null,
  };
}

export function toChatRequests(body: CompletionBody, id: string, context: AppContext): GenerationRequest[] {
  const { engine, constraints, config } = context;
  return toGenerationRequests(body, id, engine.info, constraints, config, engine.info.chat.stop);
}
