import { type Static, Type } from "typebox";
import { MblmError } from "../../errors.js";
import { SESSION_ID } from "../../session/session.js";
import { generationFields } from "../schemas/generation-fields.js";
import { field, optional, withDefaults } from "../schemas/nullable.js";
import { requestBody } from "../schemas/shared.js";
import { validatorCompiler } from "../validators.js";
import { MAX_STREAM_NUMBER } from "./frames.js";

/** Most bytes that a client may ask to be sent unacknowledged. */
export const MAX_WINDOW = 16 << 20;

const count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const sessionId = Type.String({ pattern: SESSION_ID.source });
const stream = Type.Integer({ minimum: 0, maximum: MAX_STREAM_NUMBER });
const sampling = (() => {
  const { model, n, stream: _, stream_options, stream_interval, return_token_ids, ...rest } = generationFields;
  const { truncate_prompt_tokens, request_id, user, ...fields } = rest;
  return fields;
})();

/** What clients say in text frames, by `type`. */
export const MESSAGES = {
  open: requestBody(
    "Open",
    {
      type: Type.Literal("open"),
      stream,
      session_id: optional(sessionId, "The stream is this session until it is closed."),
      create: field(Type.Boolean(), false, "Makes the session if there is none."),
      take_over: field(Type.Boolean(), false, "Ends a stream that holds the session, and waits up to 5 s for it."),
      received_bytes: optional(
        count,
        "What arrived of all that the session's stream ever said: the rest is said again.",
      ),
      received_messages: optional(
        count,
        "As received_bytes: `finished`, `scores`, `saved`, `forked` and `error` messages.",
      ),
      window: optional(
        Type.Integer({ minimum: 1, maximum: MAX_WINDOW }),
        "Most bytes that may be on the wire unacknowledged: then generation waits; without one it waits for the connection only.",
      ),
      model: optional(Type.String(), "The session's model, or the server's default, when left out."),
      score: field(Type.Boolean(), false, "Answers what is pushed with its log-probs."),
      top_logprobs: field(Type.Integer({ minimum: 0, maximum: 20 }), 0, "With score: most likely bytes at each place."),
      progress: optional(
        Type.Number({ minimum: 0.1, maximum: 3600 }),
        "Seconds between `progress` messages while the model is behind with what is pushed; it is fed at once then.",
      ),
    },
    [],
  ),
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
  cancel: requestBody("Cancel", { type: Type.Literal("cancel"), stream }, []),
  fork: requestBody(
    "Fork",
    {
      type: Type.Literal("fork"),
      stream,
      into: stream,
      session_id: optional(sessionId, "The copy is this new session."),
    },
    [],
  ),
  snapshot: requestBody(
    "Snapshot",
    {
      type: Type.Literal("snapshot"),
      stream,
      session_id: optional(sessionId, "Name of the new session; a random one when left out."),
    },
    [],
  ),
  ack: requestBody("Ack", { type: Type.Literal("ack"), stream, bytes: count, messages: count }, []),
  close: requestBody("Close", { type: Type.Literal("close"), stream }, []),
};

export type ClientMessage = { [K in keyof typeof MESSAGES]: Static<(typeof MESSAGES)[K]> }[keyof typeof MESSAGES];
export type OpenMessage = Static<typeof MESSAGES.open>;
export type GenerateMessage = Static<typeof MESSAGES.generate>;

const compile = validatorCompiler([]);
const validators = new Map(
  Object.entries(MESSAGES).map(([type, schema]) => [type, { schema, check: compile({ schema, httpPart: "body" }) }]),
);

/** @throws MblmError `invalid_request` naming the field */
export function parseMessage(text: string): ClientMessage {
  const message = parseJson(text);
  const type = (message as { type?: unknown } | null)?.type;
  const validator = typeof type === "string" ? validators.get(type) : undefined;
  if (validator === undefined) throw invalid("type", `must be one of ${[...validators.keys()].join(", ")}`);
  const result = validator.check(message);
  if (result !== true) throw result.error;
  return withDefaults(validator.schema as { properties: Record<string, unknown> }, message as object) as ClientMessage;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new MblmError("invalid_request", "A text frame must hold one JSON object.");
  }
}

function invalid(name: string, problem: string): MblmError {
  return new MblmError("invalid_request", `${name}: ${problem}`, { field: name });
}
