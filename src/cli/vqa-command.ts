import { readFileSync } from "node:fs";
import { Command } from "commander";
import { MblmError } from "../errors.js";
import { ImageDecoder } from "../vqa/image-decoder.js";
import { preprocess } from "../vqa/preprocess.js";
import { type QuestionAnswer, VisualAnswerer } from "../vqa/visual-answerer.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import { startInlineEngine } from "../worker/inline-engine.js";
import { addConfigOptions, ENGINE_KEYS, readConfig } from "./config-options.js";
import { engineOptions } from "./engine-options.js";
import { number } from "./sampling-options.js";

interface VqaOptions {
  readonly top: number;
  readonly json?: boolean;
}

const DEFAULT_MODEL = "clevr";
const KEYS = [...ENGINE_KEYS, "maxImagePixels"] as const;

/** `mblm-server vqa`: questions about an image file, answered in this process. */
export function vqaCommand(): Command {
  const command = new Command("vqa")
    .description("answer questions about an image")
    .argument("<image>", "JPEG, PNG or WebP file; - for standard input")
    .argument("<question...>", "one or more questions")
    .option("--top <n>", "answers to show for each question", number(1, 1024, { isInteger: true }), 3)
    .option("--json", "a line of JSON per question")
    .addHelpText(
      "after",
      `\nThe model is models/${DEFAULT_MODEL} unless --model names another that answers questions about images.\n` +
        "\nExample:\n" +
        '  $ mblm-server vqa scene.png "How many cubes are there?" "Is there a big red thing?"\n',
    );
  return addConfigOptions(command, KEYS).action(async (image: string, questions: string[], options: VqaOptions) => {
    const settings = Object.entries(options).filter(
      ([key]) => key === "config" || (KEYS as readonly string[]).includes(key),
    );
    const config = readConfig(Object.fromEntries(settings), DEFAULT_MODEL);
    const file = readImage(image);
    const engine = await startInlineEngine({ ...engineOptions(config), numSlots: Math.min(8, questions.length) });
    try {
      for (const [i, answer] of (await answers(engine, file, questions, config.maxImagePixels)).entries()) {
        process.stdout.write(
          options.json ? toJson(questions[i]!, answer, options.top) : toText(questions[i]!, answer, options.top),
        );
      }
    } finally {
      await engine.close();
    }
  });
}

function readImage(path: string): Uint8Array {
  try {
    return readFileSync(path === "-" ? 0 : path);
  } catch (cause) {
    throw new MblmError("config_invalid", `cannot read the image: ${(cause as Error).message}`, { cause });
  }
}

async function answers(
  engine: EngineClient,
  file: Uint8Array,
  questions: readonly string[],
  maxPixels: number,
): Promise<readonly QuestionAnswer[]> {
  const { vqa, id, vocabularySize } = engine.info;
  if (vqa === undefined) throw new MblmError("config_invalid", `--model: ${id} does not answer questions about images`);
  const answerer = new VisualAnswerer(vqa, vocabularySize, (request, signal) => engine.submit(request, signal));
  const asked = questions.map((text) => ({ bytes: answerer.template.encodeQuestion(text, "question") }));
  const decoder = await ImageDecoder.open({ maxPixels, maxConcurrent: 1, maxWaiting: 0 });
  const controller = new AbortController();
  const image = await decoder.decode(file, controller.signal, ({ pixels }) => preprocess(pixels, vqa.image));
  const options = { id: "vqa", priority: 0, cacheSalt: null };
  return (await answerer.answer(image, asked, options, controller)).answers;
}

function toText(question: string, { rated }: QuestionAnswer, top: number): string {
  const shown = rated.slice(0, top).map(({ text, probability }) => `${text} ${(100 * probability).toFixed(1)} %`);
  return `${question}\n  ${shown.join("   ")}\n`;
}

function toJson(question: string, { answer, rated }: QuestionAnswer, top: number): string {
  const rating = ({ text, probability, logprob }: typeof answer) => ({ answer: text, probability, logprob });
  return `${JSON.stringify({ question, ...rating(answer), top_answers: rated.slice(0, top).map(rating) })}\n`;
}
