import type { ByteLogprobs } from "../core/generation-event.js";
import type { AnswerClass } from "../core/vqa-format.js";

/** How likely an answer is. */
export interface RatedAnswer {
  readonly text: string;
  readonly id: number;
  /** Among the model's answers: they sum to 1. */
  readonly probability: number;
  /** Among all ids, in nats: how sure the model is that an answer, and this one, comes next. */
  readonly logprob: number;
}

/**
 * All answers, the most likely first, equal ones by ascending id.
 *
 * @param top log-probs of all ids of the vocabulary
 */
export function rateAnswers(top: ByteLogprobs["top"], answers: readonly AnswerClass[]): RatedAnswer[] {
  const logprobs = new Map(top.map(({ id, logprob }) => [id, logprob]));
  const found = answers.map(({ text, id }) => ({ text, id, logprob: logprobs.get(id)! }));
  found.sort((a, b) => b.logprob - a.logprob || a.id - b.id);
  const best = found[0]!.logprob;
  const total = found.reduce((sum, { logprob }) => sum + Math.exp(logprob - best), 0);
  return found.map((answer) => ({ ...answer, probability: Math.exp(answer.logprob - best) / total }));
}
