import { get as getHttp } from "node:http";
import { get as getHttps } from "node:https";
import { Command, Option } from "commander";
import type { Config, ConfigKey } from "../config/schema.js";
import { MblmError } from "../errors.js";
import { addConfigOptions, readConfig } from "./config-options.js";
import { number } from "./sampling-options.js";

interface HealthOptions {
  readonly check: "startup" | "ready" | "live";
  readonly timeoutSeconds: number;
}

/** Where a server listens. */
const KEYS: readonly ConfigKey[] = ["host", "port", "tlsCert"];
/** What an unspecified address is reached at from the same machine. */
const OWN_ADDRESS: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** `mblm-server health`: asks the server that the settings describe how it is. */
export function healthCommand(): Command {
  const command = new Command("health")
    .description("ask the server that runs here with the same settings whether it is well: for containers and scripts")
    .addOption(
      new Option("--check <what>", "startup: models are loaded; ready: requests are served; live: it answers")
        .choices(["startup", "ready", "live"])
        .default("ready"),
    )
    .option("--timeout-seconds <s>", "time that the answer may take", number(0.1, 60), 2)
    .addHelpText(
      "after",
      "\nGive it the options that `serve` has for these; variables of the environment and the file of settings are read alike.\n" +
        "With a certificate it asks by https, and does not verify it: it is of a public name, not of this machine's address.\n" +
        "Exit codes: 0 yes, 1 no or no answer in time, 2 used wrongly.\n" +
        "\nExample:\n" +
        "  $ mblm-server health --port 9000 && echo ready\n",
    );
  return addConfigOptions(command, KEYS).action(async ({ check, timeoutSeconds, ...settings }: HealthOptions) => {
    const url = addressOf(readConfig(settings), check);
    try {
      process.stdout.write(`${await ask(url, timeoutSeconds)}\n`);
    } catch (thrown) {
      process.stderr.write(`mblm-server: ${url}: ${(thrown as Error).message}\n`);
      process.exitCode = 1;
    }
  });
}

function addressOf({ host, port, tlsCert }: Config, check: HealthOptions["check"]): URL {
  if (port === 0) throw new MblmError("config_invalid", "port: 0 is a port that only the server knows; name it");
  const address = OWN_ADDRESS[host] ?? host;
  const scheme = tlsCert === "" ? "http" : "https";
  return new URL(`${scheme}://${address.includes(":") ? `[${address}]` : address}:${port}/health/${check}`);
}

/** The status that the server has. @throws Error that says what it has instead of a good one */
async function ask(url: URL, timeoutSeconds: number): Promise<string> {
  const signal = AbortSignal.timeout(timeoutSeconds * 1000);
  try {
    const { code, body } = await get(url, signal);
    const status = statusIn(body);
    if (code !== 200) throw new Error(status ?? `answered ${code}`);
    if (status === undefined) throw new Error("is no mblm-server");
    return status;
  } catch (thrown) {
    throw signal.aborted ? new Error(`no answer within ${timeoutSeconds} s`) : thrown;
  }
}

function get(url: URL, signal: AbortSignal): Promise<{ readonly code: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const options = { signal, agent: false, rejectUnauthorized: false };
    const request = (url.protocol === "https:" ? getHttps : getHttp)(url, options, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        body += part;
      });
      response.once("end", () => resolve({ code: response.statusCode!, body }));
      response.once("error", reject);
    });
    request.once("error", reject);
  });
}

function statusIn(body: string): string | undefined {
  try {
    const { status } = JSON.parse(body) as { status?: unknown };
    return typeof status === "string" ? status : undefined;
  } catch {
    return undefined;
  }
}
