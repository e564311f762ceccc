import { MblmError } from "../../errors.js";
import type { Question } from "../../vqa/visual-answerer.js";
import type { AppContext } from "../app-context.js";
import { invalid, seedOfChoice, toSampling } from "../generation-options.js";
import { toQuestion } from "../vqa/vqa-request.js";
import { ChatBody } from "./chat-schema.js";

type Message = ChatBody["messages"][number];

/** A conversation that is a question about an image. */
export interface ImageQuestion {
  /** Of the file. */
  readonly url: string;
  readonly text: string;
}

/** Fields that have a meaning for an answer that is one of a few words. Others must have their defaults. */
const HONOURED: ReadonlySet<string> = new Set([
  ...["model", "messages", "max_tokens", "max_completion_tokens", "n", "seed", "user", "request_id", "priority"],
  ...["temperature", "top_p", "top_k", "min_p", "cache_salt", "stream", "stream_options", "stream_interval"],
]);

/** @throws MblmError `invalid_request` for a conversation with an image that is not one question about it */
export function imageQuestionOf(messages: readonly Message[]): ImageQuestion | undefined {
  const urls = messages.flatMap(({ content }) => imageUrls(content));
  if (urls.length === 0) return undefined;
  const [message] = messages;
  if (messages.length > 1 || urls.length > 1 || message!.role !== "user") {
    throw invalid("messages", "with an image there must be one user message, with one image and a question as text");
  }
  const texts = (message!.content as Exclude<Message["content"], string>).map((part) =>
    part.type === "text" ? part.text : "",
  );
  return { url: urls[0]!, text: texts.join("") };
}

function imageUrls(content: Message["content"]): string[] {
  if (typeof content === "string") return [];
  return content.flatMap((part) => (part.type === "image_url" ? [part.image_url.url] : []));
}

/**
 * The choices for a question about an image, with what they cost.
 *
 * @throws MblmError `invalid_request` for a model that sees no images and for fields that make no sense here; what the
 *   image and the engine are refused with
 */
export async function answerImageQuestion(
  chat: ChatBody,
  { url, text }: ImageQuestion,
  id: string,
  { vision, engine, config }: AppContext,
  controller: AbortController,
) {
  if (vision === undefined)
    throw invalid("messages", `${engine.info.id} was not trained to answer questions about images`);
  requireHonoured(chat);
  if (chat.n > config.maxBatchPrompts) throw invalid("n", `exceeds the limit of ${config.maxBatchPrompts} per request`);
  return blaming("messages", async () => {
    const question = toQuestion(text, "question", vision.template);
    const file = await vision.fileAt(url, "image_url", controller.signal);
    const image = await vision.read(file, controller.signal);
    const options = { id, priority: chat.priority, cacheSalt: chat.cache_salt };
    return vision.answer(image, choices(chat, question, engine.info.vocabularySize), options, controller);
  });
}

/** The question once per choice, each with its own random numbers. */
function choices(chat: ChatBody, question: Question, vocabularySize: number): Question[] {
  const sampling = toSampling(chat, vocabularySize);
  return Array.from({ length: chat.n }, (_, k) => ({
    ...question,
    sampling: { ...sampling, seed: seedOfChoice(sampling.seed, k) },
  }));
}

function requireHonoured(chat: ChatBody): void {
  if (chat.stream_options !== null && !chat.stream) throw invalid("stream_options", "needs stream: true");
  for (const [name, property] of Object.entries(ChatBody.properties)) {
    const value = chat[name as keyof ChatBody];
    const isDefault = JSON.stringify(value) === JSON.stringify((property as { default?: unknown }).default);
    if (!isDefault && !HONOURED.has(name)) throw invalid(name, "is not supported in a question about an image");
  }
}

/** Errors of what lies inside a field are that field's. */
async function blaming<T>(field: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (!(thrown instanceof MblmError) || thrown.field === undefined) throw thrown;
    throw new MblmError(thrown.code, `${field}: ${thrown.message}`, { field, cause: thrown });
  }
}
