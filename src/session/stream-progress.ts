/** A message of the server on a stream. */
export interface SaidMessage {
  /** Bytes that the stream had said before it. */
  readonly at: number;
  /** JSON. */
  readonly text: string;
}

/** A generation that was interrupted before its end. */
export interface PartialGeneration {
  /** The client's message that asked for it, as it came. */
  readonly request: string;
  /** The seed in use, drawn when the message named none. Unsigned, 64 bits. */
  readonly seed: bigint;
  /** Everything generated so far; the session's state ends with it. */
  readonly ids: Uint16Array;
  /** Length of the prompt: what was pushed and not fed before. Bytes */
  readonly promptBytes: number;
}

/**
 * How far the byte stream of a session has come, so that a client whose connection broke goes on without a byte lost or
 * repeated: it sends again the frames that were not carried out, and is sent again what did not arrive.
 */
export interface StreamProgress {
  /** Frames of clients that were carried out. */
  readonly frames: number;
  /** Bytes and messages ever said. */
  readonly bytesSaid: number;
  readonly messagesSaid: number;
  /** The latest of them, not known to have arrived. */
  readonly bytes: Uint8Array;
  readonly messages: readonly SaidMessage[];
  /** What the next frame asks for, as far as it was carried out. */
  readonly partial?: PartialGeneration;
}

export const NO_PROGRESS: StreamProgress = {
  frames: 0,
  bytesSaid: 0,
  messagesSaid: 0,
  bytes: new Uint8Array(),
  messages: [],
};

/** Memory that the progress takes, about. */
export function progressBytes({ bytes, messages, partial }: StreamProgress): number {
  const texts = messages.reduce((sum, { text }) => sum + 2 * text.length, 0);
  return bytes.length + texts + (partial === undefined ? 0 : 2 * partial.request.length + partial.ids.byteLength);
}
