/** Bytes before the payload of a binary frame: the number of the stream, uint32, little-endian. */
export const FRAME_HEADER_BYTES = 4;
export const MAX_STREAM_NUMBER = 0xffff_ffff;

export function encodeFrame(stream: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame.writeUInt32LE(stream);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** Undefined for a frame without a whole header. */
export function decodeFrame(frame: Buffer): { readonly stream: number; readonly payload: Buffer } | undefined {
  if (frame.length < FRAME_HEADER_BYTES) return undefined;
  return { stream: frame.readUInt32LE(), payload: frame.subarray(FRAME_HEADER_BYTES) };
}
