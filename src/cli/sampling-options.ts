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

/** A parser of numbers from `low`, or above it where that `isAbove`, to `high`. */
export const number =
  (low: number, high: number, { isInteger = false, isAbove = false } = {}) =>
  (text: string): number => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (value >= low && value <= high && !(isAbove && value === low) && !(isInteger && !Number.isInteger(value))) {
      return value;
    }
    const range = isAbove ? `above ${low}, up to ${high}` : `from ${low} to ${high}`;
    throw new InvalidArgumentError(`must be ${isInteger ? "an integer" : "a number"} ${range}`);
  };

/** @param defaultSeed what is meant by no `--seed`, in words */
export function addSamplingOptions(command: Command, defaultSeed: string): Command {
  return command
    .option("--max-bytes <n>", "most bytes to generate", number(0, 1e9, { isInteger: true }), 256)
    .option("--temperature <t>", "0 is greedy", number(0, 2), 0.8)
    .option("--top-k <k>", "keep the k likeliest; 0 keeps all", number(0, 65536, { isInteger: true }), 0)
    .option("--top-p <p>", "keep the likeliest that reach this probability", number(0, 1, { isAbove: true }), 1)
    .option("--min-p <p>", "keep those at least this fraction as likely as the likeliest", number(0, 1), 0)
    .option("--repetition-penalty <r>", "1 is off", number(0.01, 10), 1)
    .option("--presence-penalty <p>", "0 is off", number(-2, 2), 0)
    .option("--frequency-penalty <p>", "0 is off", number(-2, 2), 0)
    .option(
      "--seed <n>",
      `the same seed gives the same bytes (default: ${defaultSeed})`,
      number(0, Number.MAX_SAFE_INTEGER, { isInteger: true }),
    )
    .option(
      "--stop <text>",
      "end before this text; may be repeated",
      (text: string, list: string[]) => [...list, text],
      [],
    )
    .option("--ignore-eos", "go on after the model's end id");
}
