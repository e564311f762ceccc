import { type Static, Type } from "typebox";

/**
 * Every setting of the server: type, default, range and meaning, once. A setting `maxWaiting` is `--max-waiting` on the
 * command line, `MBLM_MAX_WAITING` in the environment and `max_waiting` in a configuration file.
 */
export const ConfigSchema = Type.Object(
  {
    model: Type.String({
      default: "",
      description: "bundle folder to serve (default: the model that comes with the package)",
    }),
    host: Type.String({ default: "127.0.0.1", description: "address to listen on; 0.0.0.0 for every interface" }),
    port: Type.Integer({
      default: 8000,
      minimum: 0,
      maximum: 65535,
      description: "TCP port; 0 picks a free one (PORT is read too)",
    }),
    slots: Type.Integer({ default: 16, minimum: 1, maximum: 1024, description: "sequences that run at the same time" }),
    threads: Type.Integer({
      default: 1,
      minimum: 1,
      maximum: 256,
      description: "ONNX Runtime threads inside one operator",
    }),
    backend: Type.Enum(["auto", "c-api", "node"], {
      default: "auto",
      description: "how ONNX Runtime is driven; auto falls back to node where the C API cannot be bound",
    }),
    verifyChecksums: Type.Boolean({ default: true, description: "verify the bundle's checksums before loading it" }),
    maxWaiting: Type.Integer({
      default: 256,
      minimum: 0,
      description: "requests that may wait for a slot; more are refused with 429",
    }),
    maxQueuedPromptBytes: Type.Integer({
      default: 67_108_864,
      minimum: 1,
      description: "prompt bytes that may wait in all",
    }),
    prefixCacheBytes: Type.Integer({
      default: 268_435_456,
      minimum: 0,
      description: "memory for the states of prompts and outputs that later prompts may begin with; 0 keeps none",
    }),
    maxSessions: Type.Integer({ default: 10_000, minimum: 0, description: "sessions that may exist at a time" }),
    sessionBytes: Type.Integer({
      default: 1_073_741_824,
      minimum: 0,
      description: "memory for the states of sessions",
    }),
    sessionTtlSeconds: Type.Number({
      default: 86_400,
      minimum: 1,
      description: "seconds after which an unused session is forgotten",
    }),
    sessionDir: Type.String({
      default: "",
      description: "folder that keeps sessions, so that they outlive the server (default: memory only)",
    }),
    maxBodyBytes: Type.Integer({ default: 33_554_432, minimum: 1024, description: "largest request body" }),
    maxBatchPrompts: Type.Integer({
      default: 128,
      minimum: 1,
      description: "most sequences (prompts × n) of one request",
    }),
    maxNewBytes: Type.Integer({
      default: 1_048_576,
      minimum: 1,
      description: "most bytes that one sequence may generate",
    }),
    pingSeconds: Type.Number({
      default: 10,
      minimum: 0.1,
      maximum: 3600,
      description: "seconds between comments that keep a stream open",
    }),
    shutdownSeconds: Type.Number({
      default: 30,
      minimum: 0,
      maximum: 3600,
      description: "time that running requests get to finish",
    }),
    logLevel: Type.Enum(["fatal", "error", "warn", "info", "debug", "silent"], {
      default: "info",
      description: "least severe log line written",
    }),
  },
  { additionalProperties: false },
);

export type Config = Readonly<Static<typeof ConfigSchema>>;
export type ConfigKey = keyof Config;
