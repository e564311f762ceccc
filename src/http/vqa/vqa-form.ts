import type { Readable } from "node:stream";
import { Busboy, type BusboyFileStream, type BusboyHeaders, type BusboyInstance } from "@fastify/busboy";
import type { FastifyRequest } from "fastify";
import { MblmError } from "../../errors.js";
import { invalid } from "../generation-options.js";
import { withDefaults } from "../schemas/nullable.js";
import { validated } from "../validated.js";
import { FormParts } from "./form-parts.js";
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
const MAX_FILES = 2; // a second one is refused by name

/**
 * Reads a multipart/form-data body: the file `image`, `question` once or more, and the options as text.
 *
 * @param body is left as it is when the form is refused: what is left of it is somebody else's to read
 * @throws MblmError `invalid_request` or `body_too_large`, or what the body breaks off with
 */
export async function readForm(request: FastifyRequest, body: Readable, limits: FormLimits): Promise<VqaForm> {
  const parts = new FormParts(limits.maxImageBytes);
  try {
    await parse(body, openParser(request, limits), parts);
  } catch (thrown) {
    throw thrown instanceof MblmError ? thrown : incomplete(thrown as Error);
  }
  const { image, fields } = parts;
  // Numbers come as text in a form: they are read as such, as those of a query are.
  return { fields: withDefaults(VqaFormFields, validated(request, VqaFormFields, "querystring", fields)), image };
}

function openParser({ headers }: FastifyRequest, { maxImageBytes, maxQuestions }: FormLimits): BusboyInstance {
  const fields = maxQuestions + MAX_OTHER_FIELDS;
  const fileSize = maxImageBytes + 1; // one byte more is too large
  const limits = { fields, fileSize, files: MAX_FILES, parts: fields + MAX_FILES, fieldSize: MAX_FIELD_BYTES };
  let parser: BusboyInstance;
  try {
    parser = new Busboy({ headers: headers as BusboyHeaders, limits });
  } catch (thrown) {
    throw incomplete(thrown as Error);
  }
  const tooMany = `body: the form has more than one file or more than ${fields} fields`;
  for (const limit of ["partsLimit", "filesLimit", "fieldsLimit"] as const) {
    parser.on(limit, () => parser.emit("error", new MblmError("body_too_large", tooMany)));
  }
  return parser;
}

/** Resolves when all parts are taken; rejects at the first that is not, with what was thrown. */
function parse(body: Readable, parser: BusboyInstance, parts: FormParts): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    const attempt = <T>(take: () => T): T | undefined => {
      try {
        return take();
      } catch (thrown) {
        reject(thrown);
        return undefined;
      }
    };
    parser.on("field", (name: string | undefined, value: string, _: boolean, isCut: boolean) =>
      attempt(() => {
        if (isCut) throw invalid(named(name), `has more than ${MAX_FIELD_BYTES} bytes`);
        parts.text(named(name), value);
      }),
    );
    parser.on("file", (name: string | undefined, file: BusboyFileStream) => {
      const take = attempt(() => parts.file(named(name)));
      file.on("data", (chunk: Uint8Array) => attempt(() => take?.(chunk)));
      file.on("error", reject);
    });
    parser.on("finish", resolve);
    parser.on("error", reject);
    body.on("error", reject);
    body.pipe(parser);
  }).finally(() => body.unpipe(parser));
}

function named(name: string | undefined): string {
  if (name === undefined) throw invalid("body", "has a part without a name");
  return name;
}

function incomplete(cause: Error): MblmError {
  const message = `body: is no complete multipart/form-data (${cause.message})`;
  return new MblmError("invalid_request", message, { cause });
}
