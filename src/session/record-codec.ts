import { type Static, Type } from "typebox";
import Compile from "typebox/compile";
import { MblmError } from "../errors.js";
import { type BlockKind, decodeBlock, encodeBlock } from "./block.js";
import type { SessionRecord } from "./session.js";
import { decodeState, encodeState } from "./state-codec.js";

/*
 * A session as a block (see block.ts) and, unless nothing was said yet, its state behind it (see state-codec.ts). The
 * block's arrays: the bytes said, the ids of the interrupted generation (uint16).
 */

const FORMAT_VERSION = 1;

const Count = Type.Integer({ minimum: 0 });
const Header = Type.Object({
  format_version: Type.Literal(FORMAT_VERSION),
  created: Type.Integer(),
  frames: Count,
  bytes_said: Count,
  messages_said: Count,
  bytes: Count,
  messages: Type.Array(Type.Object({ at: Count, text: Type.String() })),
  partial: Type.Optional(Type.Object({ request: Type.String(), seed: Type.String(), ids: Count, prompt_bytes: Count })),
});
type Header = Static<typeof Header>;
const header = Compile(Header);

const SESSION: BlockKind<Header> = {
  magic: "MBLMSESS",
  name: "a session of mblm-server",
  version: FORMAT_VERSION,
  isHeader: (value): value is Header => header.Check(value),
  dataBytes: ({ bytes, partial }) => bytes + 2 * (partial?.ids ?? 0),
  refuse: (problem) =>
    new MblmError("invalid_request", `session_id: what is stored ${problem}`, { field: "session_id" }),
};

/** The record as one block of bytes. */
export function encodeRecord({ state, progress, createdSeconds }: SessionRecord): Buffer {
  const { partial } = progress;
  const description: Header = {
    format_version: FORMAT_VERSION,
    created: createdSeconds,
    frames: progress.frames,
    bytes_said: progress.bytesSaid,
    messages_said: progress.messagesSaid,
    bytes: progress.bytes.length,
    messages: [...progress.messages],
    ...(partial && {
      partial: {
        request: partial.request,
        seed: partial.seed.toString(),
        ids: partial.ids.length,
        prompt_bytes: partial.promptBytes,
      },
    }),
  };
  const block = encodeBlock(SESSION.magic, description, [progress.bytes, partial?.ids ?? new Uint16Array()]);
  return state === undefined ? block : Buffer.concat([block, encodeState(state)]);
}

/**
 * The record that the bytes describe.
 *
 * @throws MblmError `invalid_request` when they are no session, damaged, or of another format
 */
export function decodeRecord(content: Buffer): SessionRecord {
  const { header: description, data, rest } = decodeBlock(content, SESSION);
  const { partial } = description;
  return {
    createdSeconds: description.created,
    state: rest.length === 0 ? undefined : decodeState(rest),
    progress: {
      frames: description.frames,
      bytesSaid: description.bytes_said,
      messagesSaid: description.messages_said,
      bytes: Uint8Array.from(data.subarray(0, description.bytes)),
      messages: description.messages,
      ...(partial && {
        partial: {
          request: partial.request,
          seed: BigInt(partial.seed),
          ids: new Uint16Array(Uint8Array.from(data.subarray(description.bytes)).buffer),
          promptBytes: partial.prompt_bytes,
        },
      }),
    },
  };
}
