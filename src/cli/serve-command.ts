import { watchFile } from "node:fs";
import type { Server as TlsServer } from "node:tls";
import { Command } from "commander";
import type { Config } from "../config/schema.js";
import { systemClock } from "../core/clock.js";
import { MblmError } from "../errors.js";
import { type App, buildApp } from "../http/build-app.js";
import type { ModelRegistry } from "../http/models/model-registry.js";
import { readTls } from "../http/tls.js";
import { VERSION } from "../version.js";
import { startEngine } from "../worker/engine-client.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import { SupervisedEngine } from "../worker/supervised-engine.js";
import { ALL_KEYS, addConfigOptions, readConfig } from "./config-options.js";
import { engineOptions } from "./engine-options.js";

/** `mblm-server serve`: the HTTP server. */
export function serveCommand(): Command {
  const command = new Command("serve")
    .description("serve a model over HTTP")
    .addHelpText("after", "\nExample:\n  $ mblm-server serve --model models/books --port 8000 --host 0.0.0.0\n");
  return addConfigOptions(command, ALL_KEYS).action(async (options: Record<string, unknown>) => {
    await serve(readConfig(options));
  });
}

async function serve(config: Config): Promise<void> {
  const startedAt = systemClock.now();
  const start = async (dir: string): Promise<EngineClient> => {
    const engine = await SupervisedEngine.start(() => startEngine(engineOptions(config, dir)));
    const { id: model } = engine.info;
    engine.onFailure((err) => app.server.log.error({ err, model }, "the engine failed; it is being started again"));
    engine.onRestart((seconds) => app.server.log.info({ seconds, model }, "the engine is back"));
    return engine;
  };
  const app = await buildApp(config, start, VERSION);
  await app.server.ready();
  const address = await app.server.listen({ host: config.host, port: config.port }).catch((cause: Error) => {
    throw new MblmError("config_invalid", `cannot listen on ${config.host}:${config.port}: ${cause.message}`, {
      cause,
    });
  });
  stopOnSignals(app, config);
  rereadSecrets(app, config);
  // It listens already, so that probes hear that it is starting.
  await app.models.load().catch(async (thrown: unknown) => {
    await app.models.close();
    await app.server.close();
    throw thrown;
  });
  warnIfOpen(config, app.keys.isUsed);
  announce(app.models, address, systemClock.now() - startedAt);
}

const KEY_FILE_MILLISECONDS = 1000;

/** Keys and certificates come and go without a restart; a file that is wrong changes nothing. */
function rereadSecrets({ keys, server }: App, config: Config): void {
  const { apiKeyFile } = config;
  const renew = async (): Promise<void> => {
    reread();
    try {
      const tls = await readTls(config);
      if (tls === undefined) return;
      (server.server as unknown as TlsServer).setSecureContext(tls);
      server.log.info("read the certificate again");
    } catch (err) {
      server.log.error({ err }, "the certificate stays as it was");
    }
  };
  const reread = (): void => {
    try {
      keys.reload();
      server.log.info("read the API keys again");
    } catch (err) {
      server.log.error({ err }, "the API keys stay as they were");
    }
  };
  process.on("SIGHUP", renew);
  // Looked at by time: a mounted file is replaced in ways that no watcher sees.
  if (apiKeyFile !== "") watchFile(apiKeyFile, { interval: KEY_FILE_MILLISECONDS, persistent: false }, reread);
}

/** Whoever is on the network may use a server without keys: better said than found out. */
function warnIfOpen({ host }: Config, hasKeys: boolean): void {
  if (hasKeys || ["127.0.0.1", "::1", "localhost"].includes(host)) return;
  process.stderr.write(
    `mblm-server: ${host} can be reached by others and no API key is asked for (see --api-key-file)\n`,
  );
}

function announce(models: ModelRegistry, address: string, seconds: number): void {
  const [first] = models.loaded();
  const { info, runtime } = first!.engine;
  if (runtime?.fallbackReason)
    process.stderr.write(`mblm-server: slower than it could be: ${runtime.fallbackReason}\n`);
  if (runtime?.kernels) process.stderr.write(`mblm-server: kernels on ${runtime.deviceName}: ${runtime.kernels}\n`);
  const lines = models.list().map((status) => {
    const { id, numParameters, numStages, precision } = status.info;
    const loaded = status.state === "ready" ? "" : ` (${status.state})`;
    return `  ${id}: ${(numParameters / 1e6).toFixed(1)} M parameters, ${numStages} stages, ${precision}${loaded}\n`;
  });
  const url = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
  process.stdout.write(
    `\n${lines.join("")}  loaded in ${seconds.toFixed(1)} s, listening on ${address}\n\n` +
      `  Try it:\n\n${info.vqa === undefined ? textExample(url) : imageExample(url)}\n\n`,
  );
}

function textExample(url: string): string {
  return (
    `    curl -N ${url}/v1/completions -H 'content-type: application/json' \\\n` +
    `      -d '{"prompt": "It was a dark and stormy night", "max_tokens": 200, "temperature": 0.7, "stream": true}'`
  );
}

function imageExample(url: string): string {
  return `    curl ${url}/v1/vqa -F image=@scene.png -F 'question=How many cubes are there?'`;
}

/** One Ctrl-C under `npm start` arrives several times: from the terminal, from npm and from the start script. */
const SAME_SIGNAL_SECONDS = 1;

/** First signal: drain, then close. A later one: stop at once. */
function stopOnSignals(app: App, config: Config): void {
  let stoppingSince: number | undefined;
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (stoppingSince !== undefined) {
      if (systemClock.now() - stoppingSince < SAME_SIGNAL_SECONDS) return;
      process.exit(130);
    }
    stoppingSince = systemClock.now();
    app.server.log.info({ signal }, "draining; a second signal stops at once");
    const left = await app.lifecycle.drain(config.shutdownSeconds);
    if (left > 0) app.server.log.warn({ left }, "requests were cut off");
    // Closing the engines ends what is left with an error event, so that no stream just stops.
    await app.models.close();
    await app.server.close();
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}
