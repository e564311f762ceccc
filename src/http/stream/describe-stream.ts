import { Type } from "typebox";
import { ErrorAnswer } from "../schemas/errors.js";
import { UsageBody } from "../schemas/usage.js";
import { FRAME_HEADER_BYTES, MAX_STREAM_NUMBER } from "./frames.js";
import { MAX_WAITING_BYTES, MESSAGE_OVERHEAD, PUSH_WINDOW } from "./intake.js";
import { MESSAGES } from "./messages.js";
import { MAX_FRAME_BYTES, SUBPROTOCOL } from "./stream-route.js";

const stream = Type.Integer({ minimum: 0, maximum: MAX_STREAM_NUMBER });
const closed = { additionalProperties: false };

const bytes = Type.Integer({ minimum: 0, description: "Length of the context." });
const frame = Type.Optional(
  Type.Integer({ description: "Frames of the client that are carried out with the one that this is about." }),
);
const sessionId = Type.Union([Type.String(), Type.Null()]);

/** What the server says in text frames, by `type`. */
export const SERVER_MESSAGES = {
  opened: Type.Object(
    {
      type: Type.Literal("opened"),
      stream,
      session_id: sessionId,
      bytes,
      frames: Type.Integer({ description: "Frames of the session's stream that were ever carried out." }),
      said_bytes: Type.Integer({ description: "Bytes that the session's stream ever said." }),
      said_messages: Type.Integer({ description: "Messages that it ever said: those that can be said again." }),
      window: Type.Integer({ description: "Bytes that may be pushed before they are acknowledged." }),
    },
    closed,
  ),
  ack: Type.Object({ type: Type.Literal("ack"), stream, frames: Type.Integer(), bytes }, closed),
  finished: Type.Object(
    {
      type: Type.Literal("finished"),
      stream,
      finish_reason: Type.Enum(["stop", "length", "cancelled"]),
      stop_reason: Type.Union([Type.String(), Type.Integer(), Type.Array(Type.Integer()), Type.Null()]),
      usage: UsageBody,
      bytes,
      frame,
    },
    closed,
  ),
  scores: Type.Object(
    {
      type: Type.Literal("scores"),
      stream,
      offset: Type.Integer({ description: "Place in the context of the first byte that is scored here." }),
      logprobs: Type.Array(Type.Number(), { description: "Natural logarithms, one per byte." }),
      top_logprobs: Type.Optional(
        Type.Array(Type.Array(Type.Object({ id: Type.Integer(), logprob: Type.Number() }, closed))),
      ),
    },
    closed,
  ),
  progress: Type.Object(
    {
      type: Type.Literal("progress"),
      stream,
      received_bytes: Type.Integer({ description: "Bytes pushed since the stream was opened here." }),
      prefilled_bytes: Type.Integer({ description: "Bytes of them that the model has been fed." }),
      bytes_per_second: Type.Number({ description: "Fed since the report before." }),
    },
    closed,
  ),
  saved: Type.Object({ type: Type.Literal("saved"), stream, session_id: Type.String(), bytes, frame }, closed),
  forked: Type.Object(
    { type: Type.Literal("forked"), stream, into: stream, session_id: sessionId, bytes, frame },
    closed,
  ),
  closed: Type.Object({ type: Type.Literal("closed"), stream }, closed),
  error: Type.Object(
    {
      type: Type.Literal("error"),
      stream: Type.Union([Type.Integer(), Type.Null()]),
      error: ErrorAnswer.properties.error,
      frame,
    },
    closed,
  ),
};

const CLIENT_SUMMARIES: Readonly<Record<keyof typeof MESSAGES, string>> = {
  open: "Opens a stream, empty or as a session, which is its own until the stream is closed.",
  generate:
    "Generates after everything that was pushed; bytes come as frames, then `finished` or `error`, one of them.",
  cancel: "Ends the generations asked for so far; what was said is part of the context.",
  fork: "Opens `into` with the context of `stream`.",
  snapshot: "Keeps the context as a new session.",
  ack: "All bytes and messages that the stream said so far have arrived, or those up to these numbers.",
  close: "Closes a stream; its session is free again.",
};
const SERVER_SUMMARIES: Readonly<Record<keyof typeof SERVER_MESSAGES, string>> = {
  opened: "The stream is open; what was not received follows.",
  ack: "So many frames of the client are carried out, and kept if it is a session.",
  finished: "A generation has ended; with a session, its new state is kept.",
  scores: "Log-probs of bytes that were pushed.",
  progress: "How far the model is with what was pushed; left out when the client reads slowly, and never said again.",
  saved: "The context is a session now.",
  forked: "The context is another stream's, too.",
  closed: "The stream is closed.",
  error:
    "Something asked of a stream (or, with null, of the connection) was refused or failed; the connection goes on.",
};

/** The contract of GET /v1/stream; `asyncapi.yaml` is what it says. */
export function describeStream(version: string): object {
  const bytes = {
    title: "bytes",
    summary: "A binary frame.",
    contentType: "application/octet-stream",
    payload: {
      type: "string",
      format: "binary",
      description: `The stream's number, ${FRAME_HEADER_BYTES} bytes, little-endian, then bytes of its context, at most ${MAX_FRAME_BYTES} bytes in all.`,
    },
  };
  return {
    asyncapi: "3.0.0",
    info: {
      title: "mblm-server byte streams",
      version,
      description:
        `GET /v1/stream, a WebSocket of the subprotocol ${SUBPROTOCOL}. Binary frames carry bytes both ways, text frames JSON. ` +
        "Where the server asks for an API key, a client that cannot send headers offers `mblm.key.SECRET` as one more subprotocol.\n\n" +
        "Any number of streams share a connection; what is asked of one is done in order, streams do not wait for each other. " +
        "Bytes may be pushed at any time and follow what is there, a generation that runs included.\n\n" +
        "Flow control: a reader that does not read holds generation back (only a stream's own, if it has a `window` and " +
        "acknowledges). Never more bytes of a stream than its `window` are on the wire unacknowledged; messages come behind the bytes " +
        "before them, so `finished` waits for acknowledgements, too, if the model had made more, be the generation cancelled or not. A writer that has no more than " +
        "the server's `window` of each stream's pushes unacknowledged is always heard. Where more than " +
        `${MAX_WAITING_BYTES} bytes wait for a stream (a message counts as its length and ${MESSAGE_OVERHEAD}), the connection is held back ` +
        `until ${PUSH_WINDOW} are left, cancels included; behind a generation that waits for acknowledgements the stream ends with an \`error\`. The connection is held back likewise while more than ` +
        `${MAX_WAITING_BYTES} bytes of messages wait for a client that does not read them.\n\n` +
        "Resuming: of a session's stream, the server counts the frames it has carried out (bytes, `generate`, `fork`, `snapshot`) " +
        "and the bytes and messages it has said (`finished`, `scores`, `saved`, `forked`, and `error` about such a frame). Who " +
        "lost a connection opens the session again with `take_over`, `received_bytes` and `received_messages`; `opened` answers " +
        "with the server's counts, what was missed follows, and the client sends its frames again from `frames` on. A generation that " +
        "was interrupted goes on where it was when it is asked for again in the same words. If the server had died, it may have said " +
        "less than was received (`said_bytes`): what it then says again is to be skipped, and is the same if the generation has a " +
        "`seed`.\n\n" +
        "Close codes: 1001 the server shuts down, 1002 and 1007 the frames break RFC 6455, 1009 a frame is too large; a client " +
        "of which nothing has come between two pings is dropped.",
      license: { name: "MIT" },
    },
    servers: { local: { host: "127.0.0.1:8000", protocol: "ws" } },
    channels: {
      stream: {
        address: "/v1/stream",
        messages: { bytes, ...describe(MESSAGES, CLIENT_SUMMARIES), ...describe(SERVER_MESSAGES, SERVER_SUMMARIES) },
      },
    },
    operations: {
      fromClient: operation("receive", ["bytes", ...Object.keys(MESSAGES)]),
      toClient: operation("send", ["bytes", ...Object.keys(SERVER_MESSAGES)]),
    },
  };
}

function describe(schemas: Readonly<Record<string, object>>, summaries: Readonly<Record<string, string>>): object {
  return Object.fromEntries(
    Object.entries(schemas).map(
      ([type, { $id, examples, ...payload }]: [string, { $id?: string; examples?: unknown }]) => [
        type,
        { title: type, summary: summaries[type], contentType: "application/json", payload },
      ],
    ),
  );
}

function operation(action: "send" | "receive", messages: readonly string[]): object {
  return {
    action,
    channel: { $ref: "#/channels/stream" },
    messages: messages.map((name) => ({ $ref: `#/channels/stream/messages/${name}` })),
  };
}
