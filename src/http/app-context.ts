import type { Caller } from "../access/key-ring.js";
import type { Config } from "../config/schema.js";
import type { ConstraintCompiler } from "../constraints/constraint-compiler.js";
import type { Clock } from "../core/clock.js";
import type { Gate } from "../core/gate.js";
import type { ServerMetrics } from "../metrics/server-metrics.js";
import type { SessionStore } from "../session/session-store.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import type { ChatTemplate } from "./chat/chat-template.js";
import type { Lifecycle } from "./lifecycle.js";
import type { Vision } from "./vqa/vision.js";

/** What routes share. */
export interface AppContext {
  readonly config: Config;
  readonly engine: EngineClient;
  readonly lifecycle: Lifecycle;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly version: string;
  /** Names what determines the bytes of a seeded request: server version, model and precision. */
  readonly fingerprint: string;
  readonly constraints: ConstraintCompiler;
  readonly chatTemplate: ChatTemplate;
  readonly sessions: SessionStore;
  /** Whose request it is, where keys are asked for. */
  readonly caller?: Caller;
  /** What streams ask of the engine passes through here, so that not all their states are there at a time. */
  readonly streamGate: Gate;
  /** Where the model answers questions about images. */
  readonly vision: Vision | undefined;
}
