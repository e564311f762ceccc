import type { Ir } from "../ir.js";

/** The language of a schema inside another, found at `path`. */
export type CompileSubschema = (schema: unknown, path: string) => Ir;
