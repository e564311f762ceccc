import { MblmError } from "../../errors.js";
import { type HttpClient, withoutLogin } from "./http-client.js";
import { isWanted, normalizeProject } from "./wheel-name.js";

export const PYPI = "https://pypi.org/simple";

/** A file of a package index. */
export interface IndexFile {
  readonly name: string;
  readonly url: string;
  /** Hexadecimal. */
  readonly sha256: string;
  readonly size: number | undefined;
}

const JSON_TYPE = "application/vnd.pypi.simple.v1+json";
const ACCEPT = `${JSON_TYPE}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1`;

/**
 * The wheel of exactly this version for Linux on x86-64, as an index after PEP 503 or PEP 691 has it.
 *
 * @throws MblmError `runtime_unavailable` when the index cannot be read, or has no such wheel with its SHA-256
 */
export async function findWheel(
  http: HttpClient,
  indexUrl: string,
  project: string,
  version: string,
): Promise<IndexFile> {
  const address = `${indexUrl.replace(/\/+$/, "")}/${normalizeProject(project)}/`;
  const shown = withoutLogin(address);
  const response = await http.get(address, { accept: ACCEPT }).catch((cause: Error) => {
    throw unavailable(`cannot reach ${shown}: ${reasonOf(cause)}`, cause);
  });
  if (!response.ok) throw unavailable(`${shown} answers ${response.status}`);
  const isJson = response.headers.get("content-type")?.startsWith(JSON_TYPE) ?? false;
  const text = await response.text();
  // Relative addresses are meant from where the page was found, with the login that was used for it.
  const files = isJson ? readJson(text, response.url || address) : readHtml(text, response.url || address);
  const wheels = files
    .filter(({ name }) => isWanted(name, project, version))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const [wheel] = wheels;
  if (wheel === undefined) throw unavailable(`${shown} has no wheel of ${project} ${version} for Linux on x86-64`);
  if (!/^[0-9a-f]{64}$/.test(wheel.sha256)) throw unavailable(`${shown} gives no SHA-256 of ${wheel.name}`);
  return { ...wheel, url: withLoginOf(wheel.url, address) };
}

function readJson(text: string, base: string): IndexFile[] {
  interface JsonFile {
    readonly filename: string;
    readonly url: string;
    readonly hashes?: Readonly<Record<string, string>>;
    readonly size?: number;
    readonly yanked?: boolean | string;
  }
  const { files = [] } = JSON.parse(text) as { files?: JsonFile[] };
  return files
    .filter(({ yanked = false }) => yanked === false)
    .map(({ filename, url, hashes, size }) => ({
      name: filename,
      url: new URL(url, base).href,
      sha256: hashes?.sha256 ?? "",
      size,
    }));
}

/** The page of links that every index has: `<a href="ADDRESS#sha256=…">NAME</a>`. */
function readHtml(text: string, base: string): IndexFile[] {
  return [...text.matchAll(/<a\s([^>]*)>([^<]*)<\/a>/gi)].flatMap(([, attributes, name]) => {
    const href = /href\s*=\s*["']([^"']*)["']/i.exec(attributes!)?.[1];
    if (href === undefined || /data-yanked/i.test(attributes!)) return [];
    const url = new URL(href.replaceAll("&amp;", "&"), base);
    const sha256 = /sha256=([0-9a-f]+)/.exec(url.hash)?.[1] ?? "";
    url.hash = "";
    return [{ name: name!.trim(), url: url.href, sha256, size: undefined }];
  });
}

/** Files of the same server need the same login as its index. */
function withLoginOf(url: string, address: string): string {
  const [file, index] = [new URL(url), new URL(address)];
  if (file.host !== index.host) return url;
  file.username = index.username;
  file.password = index.password;
  return file.href;
}

/** undici says “fetch failed”; what failed is the cause. */
export function reasonOf(error: Error): string {
  const { cause } = error as { cause?: NodeJS.ErrnoException };
  return cause?.message || cause?.code || error.message;
}

function unavailable(message: string, cause?: unknown): MblmError {
  return new MblmError("runtime_unavailable", message, cause === undefined ? {} : { cause });
}
