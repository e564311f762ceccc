import { Type } from "typebox";
import { ErrorAnswer } from "../schemas/errors.js";
import { UsageBody } from "../schemas/usage.js";
import { FRAME_HEADER_BYTES, MAX_STREAM_NUMBER } from "./frames.js";
import { MESSAGES } from "./messages.js";
import { MAX_FRAME_BYTES, SUBPROTOCOL } from "./stream-route.js";

const stream = Type.Integer({ minimum: 0, maximum: MAX_STREAM_NUMBER });
const closed = { additionalProperties: false };

/** What the server says in text frames, by `type`. */
export const SERVER_MESSAGES = {
  opened: Type.Object(
    {
      type: Type.Literal("opened"),
      stream,
      session_id: Type.Union([Type.String(), Type.Null()]),
      bytes: Type.Integer({ description: "Length of the context." }),
    },
    closed,
  ),
  finished: Type.Object(
    {
      type: Type.Literal("finished"),
      stream,
      finish_reason: Type.Enum(["stop", "length", "cancelled"]),
      stop_reason: Type.Union([Type.String(), Type.Integer(), Type.Array(Type.Integer()), Type.Null()]),
      usage: UsageBody,
      bytes: Type.Integer({ description: "Length of the context." }),
    },
    closed,
  ),
  closed: Type.Object({ type: Type.Literal("closed"), stream }, closed),
  error: Type.Object(
    {
      type: Type.Literal("error"),
      stream: Type.Union([Type.Integer(), Type.Null()]),
      error: ErrorAnswer.properties.error,
    },
    closed,
  ),
};

const CLIENT_SUMMARIES: Readonly<Record<keyof typeof MESSAGES, string>> = {
  open: "Opens a stream, empty or as a session, which is its own until the stream is closed.",
  generate:
    "Generates after everything that was pushed; bytes come as frames, then `finished` or `error`, one of them.",
  cancel: "Ends the generation that runs; what was sent is part of the context.",
  fork: "Opens `into` with the context of `stream`.",
  close: "Closes a stream; its session is free again.",
};
const SERVER_SUMMARIES: Readonly<Record<keyof typeof SERVER_MESSAGES, string>> = {
  opened: "The stream is open.",
  finished: "A generation has ended; with a session, its new state is kept.",
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
        "Any number of streams share a connection; what is asked of one is done in order, streams do not wait for each other. " +
        "Bytes may be pushed at any time and follow what is there, a generation that runs included. A reader that does not read " +
        "holds generation back, a writer that is too fast is held back. Close codes: 1001 the server shuts down, 1009 a frame is " +
        "too large; a client that does not answer pings is dropped. A session goes on from its last `finished` or acknowledged " +
        "bytes, whatever happens to the connection.",
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
