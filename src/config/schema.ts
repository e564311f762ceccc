import { type Static, Type } from "typebox";

/**
 * Every setting of the server: type, default, range and meaning, once. A setting `maxWaiting` is `--max-waiting` on the
 * command line, `MBLM_MAX_WAITING` in the environment and `max_waiting` in a configuration file.
 *
 * What a pattern asks for, `rule` says in words. A setting that is `secret`, or has a secret in it, is never shown.
 */
export const ConfigSchema = Type.Object(
  {
    model: Type.String({
      default: "",
      description:
        "bundle folder to serve, or several separated by commas, the default first (default: the model that comes with the package)",
    }),
    modelBytes: Type.Integer({
      default: 0,
      minimum: 0,
      description:
        "memory for models; one that is asked for takes the place of those used longest ago; 0 loads all at once",
    }),
    swapSeconds: Type.Number({
      default: 300,
      minimum: 0,
      maximum: 86_400,
      description: "time that open requests get to finish on a model that is replaced or unloaded",
    }),
    allowModelChanges: Type.Boolean({
      default: false,
      description: "let clients load and unload models (/v2/repository); with API keys: those of the scope admin",
    }),
    host: Type.String({ default: "127.0.0.1", description: "address to listen on; 0.0.0.0 for every interface" }),
    port: Type.Integer({
      default: 8000,
      minimum: 0,
      maximum: 65535,
      description: "TCP port; 0 picks a free one (PORT is read too)",
    }),
    device: Type.String({
      default: "auto",
      pattern: "^(auto|cpu|cuda(:\\d{1,2})?)$",
      rule: "must be auto, cpu, cuda or cuda:N",
      description:
        "what runs the model: cpu; cuda or cuda:N for an NVIDIA GPU; auto takes a GPU where all that it needs is there",
    }),
    cudaDir: Type.String({
      default: "",
      description: "folder of ONNX Runtime's libraries for CUDA (default: where mblm-server install-cuda puts them)",
    }),
    kernels: Type.Enum(["auto", "fused", "onnx"], {
      default: "auto",
      description:
        "what runs a stage on a GPU for up to 8 sequences: fused, one kernel for all its layers; onnx, one for each operator; auto measures at the start",
    }),
    slots: Type.Integer({
      default: 0,
      minimum: 0,
      maximum: 1024,
      description:
        "sequences that run at the same time; 0: 16 on a CPU, on a GPU as many as its memory allows, at most 256",
    }),
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
    sessionUrl: Type.String({
      default: "",
      // One @ at most, and none behind a path: otherwise a part of the password would be taken for the host.
      pattern: "^((redis|rediss|valkey|valkeys)://([^@/?#\\s]*@)?[^@\\s]+)?$",
      rule: "must be redis://, rediss://, valkey:// or valkeys:// and a host; @ / ? # in a password are %40 %2F %3F %23",
      secret: true,
      description: "Valkey or Redis server that keeps sessions, so that every replica can go on with them (redis://…)",
    }),
    sessionPrefix: Type.String({
      default: "mblm",
      pattern: "^[^{}\\s]+$",
      rule: "must be one or more characters, but no blanks and no { or }",
      description: "what the keys of sessions begin with on that server; one for all replicas that share them",
    }),
    sessionSave: Type.Enum(["change", "park", "shutdown"], {
      default: "change",
      description:
        "when sessions are written: before a change is acknowledged, when a stream or request lets go, or at the end",
    }),
    sessionCheckpointBytes: Type.Integer({
      default: 0,
      minimum: 0,
      description: "generated bytes after which a session is written while a stream goes on; 0 waits for its end",
    }),
    sessionDiskBytes: Type.Integer({
      default: 68_719_476_736,
      minimum: 0,
      description: "most bytes in the session folder",
    }),
    maxBodyBytes: Type.Integer({
      default: 33_554_432,
      minimum: 1024,
      description: "largest body that is read as a whole",
    }),
    maxUploadBytes: Type.Integer({
      default: 1_099_511_627_776,
      minimum: 1024,
      description: "largest body that is read as a stream: an uploaded prompt, what is appended to a session or scored",
    }),
    uploadIdleSeconds: Type.Number({
      default: 60,
      minimum: 0,
      maximum: 86_400,
      description: "time without a byte after which the sender of any body is given up; 0: any",
    }),
    readerIdleSeconds: Type.Number({
      default: 60,
      minimum: 0,
      maximum: 86_400,
      description: "time after which a client that takes nothing of a streamed answer is cut off; 0: never",
    }),
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
    maxImageBytes: Type.Integer({ default: 10_485_760, minimum: 1, description: "largest image file" }),
    maxImagePixels: Type.Integer({
      default: 25_000_000,
      minimum: 1,
      maximum: 268_435_456,
      description: "most pixels (width × height) of an image",
    }),
    allowedImageHosts: Type.String({
      default: "",
      description: "hosts, separated by commas, whose https images image_url may name (default: none, data: URLs only)",
    }),
    maxQuestions: Type.Integer({
      default: 64,
      minimum: 1,
      description: "most questions about the image of one request",
    }),
    headerSeconds: Type.Number({
      default: 15,
      minimum: 0.1,
      maximum: 3600,
      description: "time that a client gets to send the head of a request",
    }),
    maxRequestSeconds: Type.Number({
      default: 0,
      minimum: 0,
      maximum: 86_400,
      description: "time that a request may take in all, waiting included; x-request-timeout-ms asks for less; 0: any",
    }),
    maxEventLoopDelaySeconds: Type.Number({
      default: 1,
      minimum: 0,
      maximum: 60,
      description: "lateness of the event loop from which on work is refused with 429; 0: none is",
    }),
    corsOrigins: Type.String({
      default: "",
      pattern: "^(\\*|[^*]*)$",
      rule: "must be * alone, or origins separated by commas",
      description:
        "origins, separated by commas, whose web pages may use the server; * for all (default: its own only)",
    }),
    tlsCert: Type.String({
      default: "",
      description: "PEM file of the certificate chain: serves https; read again on SIGHUP",
    }),
    tlsKey: Type.String({ default: "", description: "PEM file of the certificate's key" }),
    apiKey: Type.String({
      default: "",
      // What a header and a WebSocket's subprotocol can both carry.
      pattern: "^([A-Za-z0-9._~+-]{8,})?$",
      rule: "must be 8 or more letters, digits and . _ ~ + - (as of openssl rand -hex 32; base64 has others)",
      secret: true,
      description: "key that clients must show; better in the environment, where other users do not see it",
    }),
    apiKeyFile: Type.String({
      default: "",
      description: "YAML or JSON list of keys (see mblm-server key); read again on change and on SIGHUP",
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
    vllmMetrics: Type.Boolean({
      default: false,
      description: "give the metrics under vLLM's names, too, for dashboards and gateways that know those",
    }),
    logLevel: Type.Enum(["fatal", "error", "warn", "info", "debug", "silent"], {
      default: "info",
      description: "least severe log line written",
    }),
    logPrompts: Type.Boolean({
      default: false,
      description: "write prompts and outputs into the log, too; without it no line has anything of them",
    }),
    otlpEndpoint: Type.String({
      default: "",
      pattern: "^(https?://.+)?$",
      rule: "must begin with http:// or https://",
      secret: true, // it may have a password in it
      description:
        "where to send traces: base URL of OTLP over HTTP (OTEL_EXPORTER_OTLP_ENDPOINT is read too; default: no traces)",
    }),
  },
  { additionalProperties: false },
);

export type Config = Readonly<Static<typeof ConfigSchema>>;
export type ConfigKey = keyof Config;
