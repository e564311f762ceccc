// Public library surface: run an engine in-process or behind HTTP.
export { type Bundle, loadBundle } from "./bundle/bundle.js";
export { loadConfig } from "./config/load-config.js";
export type { Config } from "./config/schema.js";
export type { ByteLogprobs, FinishReason, GenerationEvent, Timings, Usage } from "./core/generation-event.js";
export type { GenerationRequest, StopConditions } from "./core/generation-request.js";
export type { ModelInfo } from "./core/model-info.js";
export { GREEDY, type SamplingParams } from "./core/sampling-params.js";
export { type ErrorCode, MblmError } from "./errors.js";
export { buildApp } from "./http/build-app.js";
export { startEngine } from "./worker/engine-client.js";
export type { EngineClient, EngineOptions, StartEngineOptions } from "./worker/engine-client-interface.js";
export { startInlineEngine } from "./worker/inline-engine.js";
