import { createInterface } from "node:readline/promises";
import { Command, InvalidArgumentError } from "commander";
import { WebSocket } from "ws";
import { MblmClient, type SocketClass, type StreamGeneration } from "../client/index.js";
import type { Config } from "../config/schema.js";
import { MblmError } from "../errors.js";
import { buildApp } from "../http/build-app.js";
import { ChatTemplate } from "../http/chat/chat-template.js";
import { VERSION } from "../version.js";
import { startEngine } from "../worker/engine-client.js";
import { ALL_KEYS, addConfigOptions, readConfig } from "./config-options.js";
import { Conversation, type TurnFormat } from "./conversation.js";
import { engineOptions } from "./engine-options.js";
import { addSamplingOptions, type SamplingOptions } from "./sampling-options.js";

interface ChatOptions extends SamplingOptions {
  readonly url?: string;
  readonly session?: string;
  readonly text?: boolean;
}

const COMMANDS = `  /save [id]   keep what was said so far as a session
  /bytes       length of the context
  /reset       begin anew
  /help        this
  /quit        end (also Ctrl-D); Ctrl-C ends an answer
`;

/** `mblm-server chat`: a conversation in the terminal. */
export function chatCommand(): Command {
  const command = new Command("chat")
    .description("talk to a model in the terminal, here or on a server; its state is kept between turns")
    .option("--url <url>", "server to talk to (default: one in this process)", address)
    .option("--session <id>", "session to go on with, made if there is none")
    .option("--text", "no chat template: what you type is continued as it is")
    .addHelpText(
      "after",
      `\nIn a conversation:\n${COMMANDS}\nExamples:\n` +
        "  $ mblm-server chat --text --max-bytes 200\n" +
        "  $ mblm-server chat --url http://127.0.0.1:8000 --session alice\n",
    );
  return addConfigOptions(addSamplingOptions(command, "another for every answer"), ALL_KEYS).action(
    async (options: ChatOptions) => {
      const config = readServing(options);
      const local = options.url === undefined ? await startHere(config) : undefined;
      try {
        await chat(options.url ?? local!.url, config.apiKey === "" ? undefined : config.apiKey, options);
      } finally {
        await local?.stop();
      }
    },
  );
}

function address(text: string): string {
  if (/^https?:\/\//.test(text) && URL.canParse(text)) return text;
  throw new InvalidArgumentError("must be an address that begins with http:// or https://");
}

function readServing(options: ChatOptions): Config {
  const flags = Object.entries(options).filter(
    ([key]) => key === "config" || (ALL_KEYS as readonly string[]).includes(key),
  );
  return readConfig(Object.fromEntries(flags));
}

/** The server of this very process, on a port of its own: the same code as on any other. */
async function startHere(given: Config): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const config = { ...given, logLevel: "silent" as const, apiKeyFile: "", tlsCert: "", tlsKey: "" };
  const app = await buildApp(config, (dir) => startEngine(engineOptions(config, dir)), VERSION);
  await app.models.load();
  const url = await app.server.listen({ host: "127.0.0.1", port: 0 });
  const stop = async (): Promise<void> => {
    await app.lifecycle.drain(0);
    await app.models.close();
    await app.server.close();
  };
  return { url, stop };
}

async function chat(url: string, apiKey: string | undefined, options: ChatOptions): Promise<void> {
  const client = new MblmClient({ baseUrl: url, apiKey });
  const connection = client.connect({ webSocket: WebSocket as unknown as SocketClass, maxRetries: 4 });
  try {
    const format = options.text ? undefined : await readFormat(url, apiKey);
    const conversation = await Conversation.start(connection, options.session, format, toGeneration(options));
    const [model] = await client.models();
    const before = conversation.contextBytes > 0 ? `, going on after ${conversation.contextBytes} bytes` : "";
    process.stderr.write(`${model?.id ?? url}${before}. /help shows commands.\n`);
    await talk(conversation);
    await conversation.close();
  } finally {
    connection.close();
  }
}

async function readFormat(url: string, apiKey: string | undefined): Promise<TurnFormat> {
  const headers: Record<string, string> = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  const answer = await fetch(new URL("/tokenizer_info", url), { headers }).catch((cause: Error) => {
    throw new MblmError("config_invalid", `--url: ${url} cannot be reached: ${cause.message}`, { cause });
  });
  if (answer.status === 401)
    throw new MblmError("invalid_api_key", "--api-key: the server asks for a key that it knows");
  const info = (await answer.json()) as { chat_template?: string; chat_stop?: string[] };
  if (info.chat_template === undefined) throw new MblmError("config_invalid", `--url: ${url} is no mblm-server`);
  const stop = info.chat_stop ?? [];
  const template = new ChatTemplate({ template: info.chat_template, stop });
  return { render: (messages, addPrompt) => template.render([...messages], addPrompt), stop };
}

function toGeneration(options: ChatOptions): StreamGeneration {
  return {
    maxTokens: options.maxBytes,
    temperature: options.temperature,
    topK: options.topK,
    topP: options.topP,
    minP: options.minP,
    repetitionPenalty: options.repetitionPenalty,
    presencePenalty: options.presencePenalty,
    frequencyPenalty: options.frequencyPenalty,
    stop: options.stop,
    ...(options.seed === undefined ? {} : { seed: options.seed }),
    ...(options.ignoreEos ? { ignoreEos: true } : {}),
  };
}

/** Reads lines until there are no more. */
async function talk(conversation: Conversation): Promise<void> {
  const isInteractive = process.stdin.isTTY === true && process.stdout.isTTY === true;
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    prompt: "> ",
    terminal: isInteractive,
  });
  const interrupt = (): void => {
    if (conversation.isGenerating) conversation.cancel();
    else lines.close();
  };
  lines.on("SIGINT", interrupt);
  process.on("SIGINT", interrupt);
  const ask = (): void => {
    if (isInteractive) lines.prompt();
  };
  try {
    ask();
    for await (const line of lines) {
      const isOver = line.startsWith("/") ? await obey(line, conversation) : await answer(line, conversation);
      if (isOver) break;
      ask();
    }
  } finally {
    process.off("SIGINT", interrupt);
    lines.close();
  }
}

/** Returns false: the conversation goes on. */
async function answer(line: string, conversation: Conversation): Promise<boolean> {
  const pieces = conversation.say(line);
  let piece = await pieces.next();
  for (; !piece.done; piece = await pieces.next()) process.stdout.write(piece.value);
  const { finishReason } = piece.value;
  process.stdout.write(finishReason === "cancelled" ? " [cancelled]\n" : "\n");
  return false;
}

/** Returns whether the conversation is over. */
async function obey(line: string, conversation: Conversation): Promise<boolean> {
  const [name, argument] = line.slice(1).trim().split(/\s+/, 2);
  try {
    switch (name) {
      case "save":
        process.stderr.write(`saved as session ${await conversation.save(argument)}\n`);
        return false;
      case "bytes":
        process.stderr.write(`${conversation.contextBytes} bytes\n`);
        return false;
      case "reset":
        await conversation.reset();
        return false;
      case "quit":
        return true;
      default:
        process.stderr.write(name === "help" ? COMMANDS : `no command /${name}; there are\n${COMMANDS}`);
        return false;
    }
  } catch (thrown) {
    process.stderr.write(`${(thrown as Error).message}\n`);
    return false;
  }
}
