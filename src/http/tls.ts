import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import type { Config } from "../config/schema.js";
import { allOrProblems } from "../core/all-or-problems.js";
import { MblmError } from "../errors.js";

/** Certificate and key as the files have them now; undefined without TLS. @throws MblmError `config_invalid` */
export async function readTls({ tlsCert, tlsKey }: Config): Promise<{ cert: Buffer; key: Buffer } | undefined> {
  if (tlsCert === "" && tlsKey === "") return undefined;
  if (tlsCert === "") throw new MblmError("config_invalid", "tls_cert: is needed with tls_key");
  if (tlsKey === "") throw new MblmError("config_invalid", "tls_key: is needed with tls_cert");
  const [cert, key] = await allOrProblems(
    () => read("tls_cert", tlsCert),
    () => read("tls_key", tlsKey),
  );
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    const problem = `${tlsCert} and ${tlsKey} are no certificate and its key: ${(cause as Error).message}`;
    throw new MblmError("config_invalid", `tls_cert, tls_key: ${problem}`, { cause });
  }
  return { cert, key };
}

async function read(setting: string, path: string): Promise<Buffer> {
  return readFile(path).catch((cause: Error) => {
    throw new MblmError("config_invalid", `${setting}: cannot read ${path}: ${cause.message}`, { cause });
  });
}
