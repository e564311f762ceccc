#!/usr/bin/env node
import { Command, CommanderError } from "commander";
import { MblmError } from "../errors.js";
import { VERSION } from "../version.js";

/** Exit codes: 0 done, 1 failed while working, 2 used wrongly, 130 interrupted. */
const USAGE_ERROR = 2;
const USER_CODES = new Set(["invalid_request", "config_invalid", "bundle_invalid", "context_length_exceeded"]);

/** What each command needs is loaded when it is asked for: all of it takes a second. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import("./serve-command.js")).serveCommand(),
  generate: async () => (await import("./generate-command.js")).generateCommand(),
  chat: async () => (await import("./chat-command.js")).chatCommand(),
  vqa: async () => (await import("./vqa-command.js")).vqaCommand(),
  health: async () => (await import("./health-command.js")).healthCommand(),
  inspect: async () => (await import("./inspect-command.js")).inspectCommand(),
  config: async () => (await import("./config-command.js")).configCommand(),
  "install-cuda": async () => (await import("./install-cuda-command.js")).installCudaCommand(),
  key: async () => (await import("./key-command.js")).keyCommand(),
};

const program = new Command("mblm-server")
  .description("Serves Multiscale Byte Language Models: no tokenizer, cached state, one byte at a time.")
  .version(VERSION)
  .showHelpAfterError("(--help shows what there is)")
  .exitOverride();
const named = process.argv[2] ?? "";
const wanted = Object.hasOwn(COMMANDS, named) ? [COMMANDS[named]!] : Object.values(COMMANDS);
for (const command of await Promise.all(wanted.map((load) => load()))) program.addCommand(command);
for (const command of program.commands) command.exitOverride().showHelpAfterError("(--help shows what there is)");

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) process.exit(thrown.exitCode === 0 ? 0 : USAGE_ERROR);
  const error = MblmError.from(thrown);
  process.stderr.write(`mblm-server: ${error.message}\n`);
  process.exit(USER_CODES.has(error.code) ? USAGE_ERROR : 1);
}
