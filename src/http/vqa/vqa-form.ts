import type { MultipartFile, MultipartValue } from "@fastify/multipart";
import type { FastifyRequest } from "fastify";
import { MblmError } from "../../errors.js";
import { invalid } from "../generation-options.js";
import { validated } from "../validated.js";
import { requireFileSize } from "./image-text.js";
import { VqaFormFields } from "./vqa-schema.js";

export interface VqaForm {
  readonly fields: VqaFormFields;
  readonly image: Uint8Array;
}

export interface FormLimits {
  readonly maxImageBytes: number;
  readonly maxQuestions: number;
}

/** Text fields beside the questions, and some to spare: unknown ones are refused by name. */
const MAX_OTHER_FIELDS = 16;
const MAX_FIELD_BYTES = 65_536;
const MAX_NAME_BYTES = 100;

/**
 * Reads a multipart/form-data body: the file `image`, `question` once or more, and the options as text.
 *
 * @throws MblmError `invalid_request` or `body_too_large`; Fastify's validation error for the text fields
 */
export async function readForm(request: FastifyRequest, limits: FormLimits): Promise<VqaForm> {
  const texts: Record<string, string | string[]> = {};
  const questions: string[] = [];
  let image: Uint8Array | undefined;
  for await (const part of partsOf(request, limits)) {
    if (part.type === "file") {
      if (part.fieldname !== "image") throw invalid(part.fieldname, "must be text, not a file; the file is image");
      if (image !== undefined) throw invalid("image", "must be given once");
      image = await fileOf(part, limits.maxImageBytes);
    } else if (part.fieldname === "question") questions.push(textOf(part));
    else if (part.fieldname === "image") throw invalid("image", "must be a file: a part with a file name");
    else if (part.fieldname in texts) throw invalid(part.fieldname, "must be given once");
    else texts[part.fieldname] = textOf(part);
  }
  if (image === undefined) throw invalid("image", "is required");
  if (questions.length > 0) texts.question = questions;
  // Numbers come as text in a form: they are read as such, as those of a query are.
  return { fields: validated(request, VqaFormFields, "querystring", texts), image };
}

async function* partsOf(request: FastifyRequest, { maxImageBytes, maxQuestions }: FormLimits) {
  const fields = maxQuestions + MAX_OTHER_FIELDS;
  const limits = {
    fileSize: maxImageBytes,
    files: 2, // a second one is refused by name
    fields,
    parts: fields + 2,
    fieldSize: MAX_FIELD_BYTES,
    fieldNameSize: MAX_NAME_BYTES,
  };
  try {
    yield* request.parts({ limits });
  } catch (thrown) {
    throw asError(thrown, fields);
  }
}

function asError(thrown: unknown, maxFields: number): unknown {
  if (thrown instanceof MblmError) return thrown;
  const { code = "", statusCode } = thrown as { code?: string; statusCode?: number };
  if (["FST_PARTS_LIMIT", "FST_FIELDS_LIMIT", "FST_FILES_LIMIT"].includes(code)) {
    return new MblmError("body_too_large", `body: the form has more than one file or more than ${maxFields} fields`);
  }
  if (statusCode !== undefined && statusCode >= 500) return thrown;
  return new MblmError("invalid_request", `body: is no complete multipart/form-data (${(thrown as Error).message})`);
}

async function fileOf(part: MultipartFile, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of part.file) chunks.push(chunk as Uint8Array);
  if (part.file.truncated) requireFileSize(maxBytes + 1, part.fieldname, maxBytes);
  return Buffer.concat(chunks);
}

function textOf({ fieldname, value, valueTruncated, fieldnameTruncated }: MultipartValue): string {
  if (fieldnameTruncated) throw invalid(fieldname, `a field's name has more than ${MAX_NAME_BYTES} bytes`);
  if (valueTruncated) throw invalid(fieldname, `has more than ${MAX_FIELD_BYTES} bytes`);
  if (typeof value !== "string") throw invalid(fieldname, "must be plain text");
  return value;
}
