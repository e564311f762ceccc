import type { Caller } from "../access/key-ring.js";
import type { Config } from "../config/schema.js";
import type { ConstraintCompiler } from "../constraints/constraint-compiler.js";
import type { Clock } from "../core/clock.js";
import type { Gate } from "../core/gate.js";
import type { ModelMetrics } from "../metrics/model-metrics.js";
import type { ServerMetrics } from "../metrics/server-metrics.js";
import type { SessionStore } from "../session/session-store.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import type { ChatTemplate } from "./chat/chat-template.js";
import type { Lifecycle } from "./lifecycle.js";
import type { ModelRegistry } from "./models/model-registry.js";
import type { Vision } from "./vqa/vision.js";

/** What routes share. */
export interface ServerContext {
  readonly config: Config;
  readonly lifecycle: Lifecycle;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly version: string;
  readonly constraints: ConstraintCompiler;
  /** Of all models and keys. */
  readonly sessions: SessionStore;
  readonly models: ModelRegistry;
}

/** What one request sees: its model, and what its key allows. */
export interface AppContext extends Omit<ServerContext, "models" | "metrics"> {
  readonly metrics: ModelMetrics;
  readonly engine: EngineClient;
  /** Keeps the model loaded for longer than the request; returns what ends that. */
  readonly lease: () => () => void;
  readonly fingerprint: string;
  readonly chatTemplate: ChatTemplate;
  readonly streamGate: Gate;
  /** Where the model answers questions about images. */
  readonly vision: Vision | undefined;
  /** Whose request it is, where keys are asked for. */
  readonly caller?: Caller | undefined;
}
