import { maxHeaderSize } from "node:http";
import type { Socket } from "node:net";
import { errorBody } from "./error-response.js";

/** What came is no request that a route could be found for; by Node's code of the problem. */
const ANSWERS: Readonly<Record<string, readonly [status: string, body: object]>> = {
  HPE_HEADER_OVERFLOW: [
    "431 Request Header Fields Too Large",
    errorBody("invalid_request", `The request line and the headers must not be larger than ${maxHeaderSize} bytes.`),
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ["408 Request Timeout", errorBody("idle_timeout", "The request's headers did not come.")],
};
const OTHER = ["400 Bad Request", errorBody("invalid_request", "This is not a request of HTTP/1.1.")] as const;

/** Answers on a connection whose request cannot be read, in the shape of every failure, and closes it. */
export function refuseUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || socket.destroyed) return;
  const [status, content] = ANSWERS[error.code ?? ""] ?? OTHER;
  const body = JSON.stringify(content);
  const head = `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}`;
  if (socket.writable) socket.write(`${head}\r\n\r\n${body}`);
  socket.destroy(error);
}
