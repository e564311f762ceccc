import type { EngineStats } from "../core/engine-stats.js";
import type { GenerationRequest } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import type { ErrorCode } from "../errors.js";
import type { RuntimeInfo } from "./engine-client-interface.js";
import type { EventMessages } from "./event-codec.js";

/** An MblmError on its way between threads. */
export interface ErrorMessage {
  readonly code: ErrorCode;
  readonly message: string;
  readonly field: string | undefined;
}

/** What a client says to an engine. Keys and ids are the client's: each is used once. */
export type ClientMessage =
  | { readonly type: "submit"; readonly key: number; readonly request: GenerationRequest }
  | { readonly type: "abort"; readonly key: number }
  | { readonly type: "stats"; readonly id: number }
  | { readonly type: "close" };

/** What an engine says to its client. `ready` or `failed` comes first. */
export type EngineMessage =
  | {
      readonly type: "ready";
      readonly info: ModelInfo;
      readonly runtime: RuntimeInfo;
      /** Sequences that run at the same time. */
      readonly numSlots: number;
    }
  /** Events of any number of sequences, in order: at most a few messages per turn, however many run. */
  | { readonly type: "events"; readonly events: EventMessages }
  /** The answer to a `submit` that was not admitted. */
  | { readonly type: "refused"; readonly key: number; readonly error: ErrorMessage }
  | { readonly type: "stats"; readonly id: number; readonly stats: EngineStats }
  /** The engine could not start, or broke down as a whole. */
  | { readonly type: "failed"; readonly error: ErrorMessage }
  | { readonly type: "closed" };
