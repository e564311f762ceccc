import { watchFile } from "node:fs";
import { Command } from "commander";
import type { Config } from "../config/schema.js";
import { systemClock } from "../core/clock.js";
import { MblmError } from "../errors.js";
import { type App, buildApp } from "../http/build-app.js";
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
  const engine = await SupervisedEngine.start(() => startEngine(engineOptions(config)));
  const app = await buildApp(config, engine, VERSION);
  await app.server.ready();
  const address = await app.server.listen({ host: config.host, port: config.port }).catch((cause: Error) => {
    throw new MblmError("config_invalid", `cannot listen on ${config.host}:${config.port}: ${cause.message}`, {
      cause,
    });
  });
  announce(engine, address, systemClock.now() - startedAt);
  engine.onFailure((err) => app.server.log.error({ err }, "the engine failed; it is being started again"));
  engine.onRestart((seconds) => app.server.log.info({ seconds }, "the engine is back"));
  stopOnSignals(app, engine, config);
  rereadKeys(app, config);
}

const KEY_FILE_MILLISECONDS = 1000;

/** Keys come and go without a restart; a file that is wrong changes nothing. */
function rereadKeys({ keys, server }: App, { apiKeyFile }: Config): void {
  const reread = (): void => {
    try {
      keys.reload();
      server.log.info("read the API keys again");
    } catch (err) {
      server.log.error({ err }, "the API keys stay as they were");
    }
  };
  process.on("SIGHUP", reread);
  // Looked at by time: a mounted file is replaced in ways that no watcher sees.
  if (apiKeyFile !== "") watchFile(apiKeyFile, { interval: KEY_FILE_MILLISECONDS, persistent: false }, reread);
}

function announce(engine: EngineClient, address: string, seconds: number): void {
  const { info, runtime } = engine;
  if (runtime?.fallbackReason)
    process.stderr.write(`mblm-server: using the slower backend: ${runtime.fallbackReason}\n`);
  const millions = (info.numParameters / 1e6).toFixed(1);
  const url = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
  process.stdout.write(
    `\n  ${info.id}: ${millions} M parameters, ${info.numStages} stages, ${info.precision}; loaded in ${seconds.toFixed(1)} s\n` +
      `  listening on ${address}\n\n` +
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
function stopOnSignals(app: App, engine: EngineClient, config: Config): void {
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
    // Closing the engine ends what is left with an error event, so that no stream just stops.
    await engine.close();
    await app.server.close();
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}
