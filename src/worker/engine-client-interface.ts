import type { EngineStats } from "../core/engine-stats.js";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import type { Kernels } from "../core/kernels.js";
import type { ModelInfo } from "../core/model-info.js";
import type { MblmError } from "../errors.js";
import type { DeviceSetting } from "../runtime/cuda/cuda-libraries.js";

/** `failed`: the engine thread is gone; `restarting`: and another one is being started; `closed`: `close()` was called. */
export type EngineState = "ready" | "failed" | "restarting" | "closed";

/** What runs the model. */
export interface RuntimeInfo {
  readonly backend: "c-api" | "node" | "cuda";
  /** Version of ONNX Runtime. */
  readonly version: string;
  /** The device's name, where the model runs on one. */
  readonly deviceName?: string;
  /** On a device: what runs small batches of the stages. */
  readonly kernels?: string;
  /** Why `auto` had to fall back to something slower, if it did. */
  readonly fallbackReason: string | undefined;
}

/** The engine as the rest of the server sees it, whether it runs in a worker thread or in this one. */
export interface EngineClient {
  readonly info: ModelInfo;
  /** Absent where no ONNX Runtime is behind the client. */
  readonly runtime?: RuntimeInfo | undefined;
  /** Sequences that run at the same time; absent where no engine is behind the client. */
  readonly numSlots?: number | undefined;
  readonly state: EngineState;
  /** Whether `submit` would refuse a request now for want of a place, unless it waits for room; absent where no engine is behind. */
  readonly isFull?: boolean | undefined;
  /**
   * Starts one generation when the first event is asked for.
   *
   * - Refusals (`overloaded`, `context_length_exceeded`, `invalid_request`, `shutting_down`) are **thrown by the first
   *   `next()`**, so a caller that awaits it can still answer with an error status. Otherwise the first event is
   *   `started`: the request is admitted, though it may still have to wait for a slot.
   * - The last event is `finished` or `failed`; nothing else ends the iteration.
   * - Aborting `signal` ends it with `finished` (`abort`); leaving the iteration early frees the slot too.
   * - `request.prompt` is copied, never detached. `request.id` is the caller's; the engine does not look at it.
   */
  submit(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
  /** A fresh snapshot of the engine; rejects when the engine is not `ready`. */
  stats(): Promise<EngineStats>;
  /** Calls back once if the engine fails (at once when it already has). */
  onFailure(callback: (error: MblmError) => void): void;
  /** Calls back every time that the engine is back after a failure, with the seconds that it was gone; absent if it never is. */
  onRestart?(callback: (seconds: number) => void): void;
  /** Ends open requests with `failed` (`shutting_down`) and frees everything. May be called more than once. */
  close(): Promise<void>;
}

export interface EngineOptions {
  /** Directory with the bundle's manifest. */
  readonly bundleDir: string;
  /** Sequences that run at the same time; 0: what is sensible for where the model runs. */
  readonly numSlots: number;
  /** What runs the model; `auto` when left out. */
  readonly device?: DeviceSetting;
  /** What runs small batches of a stage on a device; `auto` when left out. */
  readonly kernels?: Kernels | undefined;
  readonly backend: "auto" | "c-api" | "node";
  /** ONNX Runtime threads inside one operator, ≥ 1. */
  readonly numThreads: number;
  /** Requests that may wait for a slot before new ones are refused, ≥ 0. */
  readonly maxWaiting: number;
  /** Prompt bytes that may wait in all before new requests are refused. One request alone in the queue is always taken. */
  readonly maxQueuedPromptBytes: number;
  /** Memory for cached prefix states; 0 switches the cache off. */
  readonly prefixCacheBytes: number;
  /** Whether the bundle's checksums are verified before it is loaded. */
  readonly verifyChecksums: boolean;
}

/** Options of `startEngine`, which runs the engine in a worker thread; `startInlineEngine` runs it in this one. */
export interface StartEngineOptions extends EngineOptions {
  /** The compiled thread entry; found beside the compiled client when left out. */
  readonly threadUrl?: URL;
}
