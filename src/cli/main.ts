#!/usr/bin/env node
import { Command, CommanderError } from "commander";
import { MblmError } from "../errors.js";
import { VERSION } from "../version.js";
import { chatCommand } from "./chat-command.js";
import { configCommand } from "./config-command.js";
import { generateCommand } from "./generate-command.js";
import { inspectCommand } from "./inspect-command.js";
import { installCudaCommand } from "./install-cuda-command.js";
import { keyCommand } from "./key-command.js";
import { serveCommand } from "./serve-command.js";
import { vqaCommand } from "./vqa-command.js";

/** Exit codes: 0 done, 1 failed while working, 2 used wrongly, 130 interrupted. */
const USAGE_ERROR = 2;
const USER_CODES = new Set(["invalid_request", "config_invalid", "bundle_invalid", "context_length_exceeded"]);

const program = new Command("mblm-server")
  .description("Serves Multiscale Byte Language Models: no tokenizer, cached state, one byte at a time.")
  .version(VERSION)
  .showHelpAfterError("(--help shows what there is)")
  .exitOverride()
  .addCommand(serveCommand())
  .addCommand(generateCommand())
  .addCommand(chatCommand())
  .addCommand(vqaCommand())
  .addCommand(inspectCommand())
  .addCommand(configCommand())
  .addCommand(installCudaCommand())
  .addCommand(keyCommand());
for (const command of program.commands) command.exitOverride().showHelpAfterError("(--help shows what there is)");

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) process.exit(thrown.exitCode === 0 ? 0 : USAGE_ERROR);
  const error = MblmError.from(thrown);
  process.stderr.write(`mblm-server: ${error.message}\n`);
  process.exit(USER_CODES.has(error.code) ? USAGE_ERROR : 1);
}
