import { MblmError } from "../errors.js";
import type { ErrorMessage } from "./protocol.js";

export function encodeError(error: MblmError): ErrorMessage {
  return { code: error.code, message: error.message, field: error.field };
}

export function decodeError(message: ErrorMessage): MblmError {
  return new MblmError(message.code, message.message, message.field === undefined ? {} : { field: message.field });
}
