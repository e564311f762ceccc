import { redactUrl } from "../config/redact-url.js";
import { MblmError } from "../errors.js";
import { LocalSessionStore } from "./local-session-store.js";
import { SessionFiles } from "./session-files.js";
import type { SavePolicy, SessionLimits, SessionStore } from "./session-store.js";
import { ValkeySessionStore } from "./valkey-session-store.js";

export interface SessionStoreOptions extends SessionLimits {
  /** Folder; "" for none. */
  readonly dir: string;
  readonly maxDiskBytes: number;
  /** Valkey or Redis server; "" for none. */
  readonly url: string;
  readonly prefix: string;
  readonly save: SavePolicy;
  /** Unix seconds. */
  readonly now: () => number;
  /** Told of failures that nobody waits for. */
  readonly report: (error: Error) => void;
}

/** Whether the options fit together; nothing is opened. @throws MblmError `config_invalid` naming the option */
export function checkSessionOptions({ dir, url, save }: Pick<SessionStoreOptions, "dir" | "url" | "save">): void {
  if (url === "") return;
  if (dir !== "") throw new MblmError("config_invalid", "session_url: cannot be used together with session_dir");
  if (save === "shutdown") {
    throw new MblmError(
      "config_invalid",
      "session_save: shutdown is for session_dir: other replicas would see nothing",
    );
  }
}

/** The store that the options ask for. @throws MblmError `config_invalid` naming the option */
export async function openSessionStore(options: SessionStoreOptions): Promise<SessionStore> {
  checkSessionOptions(options);
  const { dir, url, save, now, report, prefix, ttlSeconds, maxDiskBytes } = options;
  const limits = { maxSessions: options.maxSessions, maxBytes: options.maxBytes, ttlSeconds };
  if (url === "") {
    const files = dir === "" ? undefined : new SessionFiles(dir);
    const local = { ...limits, files, save, maxStoredBytes: maxDiskBytes, now, report };
    return LocalSessionStore.open(local).catch((cause: Error) => {
      throw new MblmError("config_invalid", `session_dir: cannot be used: ${cause.message}`, { cause });
    });
  }
  // Loaded where it is used: the client of Valkey is large.
  const { ValkeySessions } = await import("./valkey-sessions.js");
  const valkey = await ValkeySessions.connect(url, prefix, ttlSeconds, report).catch((cause: Error) => {
    throw new MblmError("config_invalid", `session_url: ${redactUrl(url)} cannot be reached: ${cause.message}`, {
      cause,
    });
  });
  const checked = save as Exclude<SavePolicy, "shutdown">;
  return new ValkeySessionStore(valkey, { ...limits, save: checked, now, report });
}
