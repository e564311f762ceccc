import { readFileSync } from "node:fs";
import type { Config } from "../config/schema.js";
import { MblmError } from "../errors.js";

/** Certificate and key as the files have them now; undefined without TLS. @throws MblmError `config_invalid` */
export function readTls({ tlsCert, tlsKey }: Config): { cert: Buffer; key: Buffer } | undefined {
  if (tlsCert === "" && tlsKey === "") return undefined;
  if (tlsCert === "") throw new MblmError("config_invalid", "tls_cert: is needed with tls_key");
  if (tlsKey === "") throw new MblmError("config_invalid", "tls_key: is needed with tls_cert");
  return { cert: read("tls_cert", tlsCert), key: read("tls_key", tlsKey) };
}

function read(setting: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new MblmError("config_invalid", `${setting}: cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}
