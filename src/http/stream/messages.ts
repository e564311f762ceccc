import { Ajv, type ErrorObject } from "ajv";
import { type Static, Type } from "typebox";
import { MblmError } from "../../errors.js";
import { generationFields } from "../schemas/generation-fields.js";
import { field, withDefaults } from "../schemas/nullable.js";
import { requestBody } from "../schemas/shared.js";
import { MAX_STREAM_NUMBER } from "./frames.js";

const stream = Type.Integer({ minimum: 0, maximum: MAX_STREAM_NUMBER });
const sampling = (() => {
  const { model, n, stream: _, stream_options, stream_interval, return_token_ids, ...rest } = generationFields;
  const { truncate_prompt_tokens, request_id, user, ...fields } = rest;
  return fields;
})();

/** What clients say in text frames, by `type`. */
export const MESSAGES = {
  /** Opens a stream; with `session_id` it is that session until it is closed. */
  open: requestBody("Open", { type: Type.Literal("open"), stream, session_id: Type.Optional(Type.String()) }, []),
  generate: requestBody(
    "Generate",
    {
      type: Type.Literal("generate"),
      stream,
      max_tokens: field(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }), 256),
      ...sampling,
    },
    [],
  ),
  /** Ends the generation that runs; what was sent is part of the context. */
  cancel: requestBody("Cancel", { type: Type.Literal("cancel"), stream }, []),
  /** Opens `into` as a copy of `stream`. */
  fork: requestBody("Fork", { type: Type.Literal("fork"), stream, into: stream }, []),
  close: requestBody("Close", { type: Type.Literal("close"), stream }, []),
};

export type ClientMessage = { [K in keyof typeof MESSAGES]: Static<(typeof MESSAGES)[K]> }[keyof typeof MESSAGES];
export type GenerateMessage = Static<typeof MESSAGES.generate>;

const ajv = new Ajv({ useDefaults: true, coerceTypes: false, allowUnionTypes: true });
const validators = new Map(
  Object.entries(MESSAGES).map(([type, schema]) => [type, { schema, check: ajv.compile(schema as object) }]),
);

/** @throws MblmError `invalid_request` naming the field */
export function parseMessage(text: string): ClientMessage {
  const message = parseJson(text);
  const type = (message as { type?: unknown } | null)?.type;
  const validator = typeof type === "string" ? validators.get(type) : undefined;
  if (validator === undefined) throw invalid("type", `must be one of ${[...validators.keys()].join(", ")}`);
  if (!validator.check(message)) throw describe(validator.check.errors?.[0]);
  return withDefaults(validator.schema as { properties: Record<string, unknown> }, message as object) as ClientMessage;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new MblmError("invalid_request", "A text frame must hold one JSON object.");
  }
}

function describe(error: ErrorObject | undefined): MblmError {
  const extra = error?.params as { additionalProperty?: string; missingProperty?: string } | undefined;
  if (extra?.additionalProperty !== undefined) return invalid(extra.additionalProperty, "no such field");
  if (extra?.missingProperty !== undefined) return invalid(extra.missingProperty, "is required");
  return invalid(error?.instancePath.split("/")[1] ?? "message", error?.message ?? "is not valid");
}

function invalid(name: string, problem: string): MblmError {
  return new MblmError("invalid_request", `${name}: ${problem}`, { field: name });
}
