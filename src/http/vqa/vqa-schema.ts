import { type Static, Type } from "typebox";
import { field, optional } from "../schemas/nullable.js";
import { fields, requestBody } from "../schemas/shared.js";
import { UsageBody } from "../schemas/usage.js";

/** What a request in JSON and one as a form have in common. */
const optionFields = {
  model: optional(Type.String(), "Model id; the served model when left out."),
  top_answers: field(
    Type.Integer({ minimum: 1, maximum: 1024 }),
    5,
    "Answers that are listed with their probabilities; all when the model has fewer.",
  ),
  cache_salt: optional(
    Type.String({ minLength: 1, maxLength: 256 }),
    "Only requests with the same salt share the states of images.",
  ),
  priority: field(
    Type.Integer({ minimum: -1_000_000, maximum: 1_000_000 }),
    0,
    "Waiting requests with a lower value start first.",
  ),
  request_id: optional(
    Type.String({ pattern: "^[\\w.-]{1,128}$" }),
    "Part of the answer's id; x-request-id when left out.",
  ),
  user: optional(Type.String(), "Accepted for compatibility; written to no log."),
};

/** The smallest PNG: one grey pixel. */
const EXAMPLE_IMAGE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg==";

/** POST /v1/vqa as JSON. */
export const VqaBody = requestBody(
  "VqaRequest",
  {
    image: Type.String({ description: "The file (JPEG, PNG or WebP) in base64, or as a data: URL of it." }),
    question: optional(Type.String(), "One question."),
    questions: optional(Type.Array(Type.String(), { minItems: 1 }), "Several questions, in place of `question`."),
    ...optionFields,
  },
  [
    { image: EXAMPLE_IMAGE, question: "Is there a big thing?" },
    { image: EXAMPLE_IMAGE, questions: ["What color is it?", "How many things are there?"], top_answers: 3 },
  ],
);
export type VqaBody = Static<typeof VqaBody>;

/** The text fields of POST /v1/vqa as a form, put together. */
export const VqaFormFields = requestBody(
  "VqaFormFields",
  {
    question: Type.Array(Type.String(), { minItems: 1 }),
    ...optionFields,
  },
  [],
);
export type VqaFormFields = Static<typeof VqaFormFields>;

/** The form as the contract has it. */
export const VqaForm = fields(
  {
    ...optionFields,
    image: Type.Unsafe<never>({ type: "string", format: "binary", description: "The file: JPEG, PNG or WebP." }),
    question: Type.Array(Type.String(), { minItems: 1, description: "May be repeated, for several questions." }),
  },
  { $id: "VqaForm" },
);

const Rating = {
  answer: Type.String(),
  probability: Type.Number({ description: "Among the model's answers: they sum to 1." }),
  logprob: Type.Number({ description: "Natural logarithm of the probability among all ids." }),
};
const Milliseconds = Type.Number({ minimum: 0 });

export const VqaAnswer = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal("vqa"),
    created: Type.Integer({ description: "Unix seconds." }),
    model: Type.String(),
    system_fingerprint: Type.String(),
    image: Type.Object(
      {
        format: Type.Enum(["jpeg", "png", "webp"]),
        width: Type.Integer({ description: "Pixels, upright." }),
        height: Type.Integer(),
        bytes: Type.Integer(),
        sha256: Type.String({ description: "Of the file." }),
      },
      { additionalProperties: false },
    ),
    answers: Type.Array(
      Type.Object(
        {
          index: Type.Integer(),
          question: Type.String(),
          ...Rating,
          top_answers: Type.Array(Type.Object(Rating, { additionalProperties: false })),
          timings: Type.Object(
            { queue_ms: Milliseconds, prefill_ms: Milliseconds, decode_ms: Milliseconds },
            { additionalProperties: false, description: "In the engine: waiting, reading the question, answering." },
          ),
        },
        { additionalProperties: false },
      ),
      { description: "One per question, in order." },
    ),
    usage: UsageBody,
    timings: Type.Object(
      {
        image_decode_ms: { ...Milliseconds, description: "The file to the bytes that the model reads." },
        image_prefill_ms: Type.Union([Milliseconds, Type.Null()], {
          description: "Reading the image, once for all questions; null where every question needs its own pass.",
        }),
        total_ms: { ...Milliseconds, description: "From the request's arrival." },
      },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false, $id: "VqaAnswers" },
);
export type VqaAnswer = Static<typeof VqaAnswer>;
