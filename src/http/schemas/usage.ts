import { Type } from "typebox";

export const UsageBody = Type.Object(
  {
    prompt_tokens: Type.Integer(),
    completion_tokens: Type.Integer(),
    total_tokens: Type.Integer(),
    prompt_tokens_details: Type.Object(
      { cached_tokens: Type.Integer({ description: "Prompt bytes whose state came from the prefix cache." }) },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false, description: "Tokens are bytes." },
);
