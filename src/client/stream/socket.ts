/** What is used of a WebSocket: browsers, Node 22, `ws` and undici all have it. */
export interface SocketLike {
  binaryType: string;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
}

/** A class of WebSockets. */
export type SocketClass = new (url: string, protocols: string[]) => SocketLike;

export const SUBPROTOCOL = "mblm.stream.v1";
/** An API key follows: a browser's WebSocket has no headers of its own. */
export const KEY_SUBPROTOCOL = "mblm.key.";
export const HEADER_BYTES = 4;

/** A binary frame: the stream's number, little-endian, and bytes. */
export function toFrame(stream: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(HEADER_BYTES + bytes.length);
  new DataView(frame.buffer).setUint32(0, stream, true);
  frame.set(bytes, HEADER_BYTES);
  return frame;
}

export function fromFrame(frame: ArrayBuffer): { readonly stream: number; readonly bytes: Uint8Array<ArrayBuffer> } {
  return { stream: new DataView(frame).getUint32(0, true), bytes: new Uint8Array(frame, HEADER_BYTES) };
}
