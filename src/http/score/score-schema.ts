import { Type } from "typebox";
import { fields } from "../schemas/shared.js";

/** Query parameters of POST /v1/score. */
export const ScoreQuery = fields({
  return: Type.Enum(["summary", "logprobs", "entropy"], {
    default: "summary",
    description:
      "summary: one JSON object. logprobs, entropy: lines of JSON with one number per byte, as they are computed, and " +
      "the summary as the last line.",
  }),
  model: Type.Optional(Type.String()),
  priority: Type.Integer({ default: 0, minimum: -1_000_000, maximum: 1_000_000 }),
});

export const ScoreAnswer = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal("score"),
    created: Type.Integer({ description: "Unix seconds." }),
    model: Type.String(),
    system_fingerprint: Type.String(),
    bytes: Type.Integer(),
    bits_per_byte: Type.Number({ description: "Mean negative log2-probability of a byte given all bytes before it." }),
    total_logprob: Type.Number({ description: "Natural logarithm of the probability of the whole." }),
    mean_entropy: Type.Optional(
      Type.Number({ description: "Bits; of the distributions that the bytes were predicted by. With return=entropy." }),
    ),
  },
  { additionalProperties: false, $id: "Score" },
);
