import { Command, Option } from "commander";
import { stringify } from "yaml";
import { hashSecret, makeSecret, SCOPES, spellHash } from "../access/api-key.js";
import { MblmError } from "../errors.js";

/** `mblm-server key NAME`: a new key; its secret is shown once, the server's file needs only the entry. */
export function keyCommand(): Command {
  return new Command("key")
    .description("make an API key: the entry for --api-key-file on standard output, the secret on standard error")
    .argument("<name>", "names the key in logs and owns its sessions: letters, digits, _ and -")
    .addOption(new Option("--scopes <scopes...>", "what it is for").choices(SCOPES).default(["generate", "sessions"]))
    .action((name: string, { scopes }: { scopes: string[] }) => {
      if (!/^[A-Za-z0-9_-]{1,32}$/.test(name)) {
        throw new MblmError("config_invalid", "name: must be 1 to 32 letters, digits, _ or -");
      }
      const secret = makeSecret();
      process.stderr.write(`${secret}\n`);
      process.stdout.write(stringify([{ name, hash: spellHash(hashSecret(secret)), scopes }]));
    });
}
