import { type Command, InvalidArgumentError } from "commander";

/** How bytes are chosen, as the command line says it. */
export interface SamplingOptions {
  readonly maxBytes: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly seed?: number;
  readonly stop: readonly string[];
  readonly ignoreEos?: boolean;
}

/** A parser of numbers within bounds. */
export const number =
  (low: number, high: number, isInteger = false) =>
  (text: string): number => {
    const value = Number(text);
    if (
      text.trim() === "" ||
      Number.isNaN(value) ||
      value < low ||
      value > high ||
      (isInteger && !Number.isInteger(value))
    ) {
      throw new InvalidArgumentError(`must be ${isInteger ? "an integer" : "a number"} from ${low} to ${high}`);
    }
    return value;
  };

export function addSamplingOptions(command: Command): Command {
  return command
    .option("--max-bytes <n>", "most bytes to generate", number(0, 1e9, true), 256)
    .option("--temperature <t>", "0 is greedy", number(0, 2), 0.8)
    .option("--top-k <k>", "keep the k likeliest; 0 keeps all", number(0, 65536, true), 0)
    .option("--top-p <p>", "keep the likeliest that reach this probability", number(Number.MIN_VALUE, 1), 1)
    .option("--min-p <p>", "keep those at least this fraction as likely as the likeliest", number(0, 1), 0)
    .option("--repetition-penalty <r>", "1 is off", number(0.01, 10), 1)
    .option("--presence-penalty <p>", "0 is off", number(-2, 2), 0)
    .option("--frequency-penalty <p>", "0 is off", number(-2, 2), 0)
    .option("--seed <n>", "the same seed gives the same bytes", number(0, Number.MAX_SAFE_INTEGER, true))
    .option(
      "--stop <text>",
      "end before this text; may be repeated",
      (text: string, list: string[]) => [...list, text],
      [],
    )
    .option("--ignore-eos", "go on after the model's end id");
}
