import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { builtPackage } from "../built-package.js";
import { scratchFolder } from "../scratch-folder.js";
import { bundleDir, readGolden } from "../test-bundles.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = scratchFolder("cli");
const main = join(root, "dist", "cli", "main.js");
const model = bundleDir("mamba2-transformer");

beforeAll(() => {
  builtPackage();
}, 120_000);

function cli(args: readonly string[], input?: Uint8Array, environment: Readonly<Record<string, string>> = {}) {
  const options = { input: input ?? "", env: { ...process.env, ...environment } };
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], options);
  return { status, stdout, stderr: stderr.toString() };
}

describe("generate", () => {
  it("writes PyTorch's bytes to a file and to standard output", () => {
    const { prompt, greedy } = readGolden("mamba2-transformer").cases.at(-1)!;
    const promptFile = join(dist, "prompt.bin");
    writeFileSync(promptFile, Uint8Array.from(prompt));
    const base = ["generate", "--model", model, "--temperature", "0", "--max-bytes", String(greedy.length), "--quiet"];
    const out = join(dist, "out.bin");
    expect(cli([...base, "--prompt-file", promptFile, "--out", out])).toMatchObject({ status: 0, stderr: "" });
    expect([...readFileSync(out)]).toEqual(greedy);
    expect([...cli([...base, "--out", "-"], Uint8Array.from(prompt)).stdout]).toEqual(greedy);
  });

  it("takes files of any length, piece by piece", () => {
    const promptFile = join(dist, "long.bin");
    writeFileSync(promptFile, Buffer.alloc(200_000, "long, "));
    const base = ["generate", "--model", model, "--temperature", "0", "--max-bytes", "12", "--out", "-"];
    const whole = cli([...base, "--prompt-file", promptFile]);
    expect(whole.stderr).toMatch(/^200000 prompt bytes .* 12 bytes/);
    expect(cli(base, readFileSync(promptFile)).stdout).toEqual(whole.stdout);
    expect(cli([...base, "--prompt-file", promptFile], Buffer.of()).stdout).toHaveLength(12);
  });

  it.each(["c-api", "node"])("leaves no file behind, and starts no telemetry of ONNX Runtime (%s)", (backend) => {
    const home = scratchFolder("home");
    const args = ["generate", "x", "--model", model, "--backend", backend, "--max-bytes", "1", "--quiet"];
    const env = { PATH: process.env.PATH, TMPDIR: home, HOME: home };
    expect(spawnSync(process.execPath, [main, ...args], { input: "", env }).status).toBe(0);
    expect(readdirSync(home)).toEqual([]);
  });

  it("repeats itself for a seed and prints valid UTF-8 and statistics", () => {
    const args = ["generate", "x", "--model", model, "--max-bytes", "60", "--temperature", "2"];
    const [a, b, c] = [cli([...args, "--seed", "1"]), cli([...args, "--seed", "1"]), cli([...args, "--seed", "2"])];
    expect(a!.stdout).toEqual(b!.stdout);
    expect(a!.stdout).not.toEqual(c!.stdout);
    expect(() => new TextDecoder("utf-8", { fatal: true }).decode(a!.stdout)).not.toThrow();
    expect(a!.stderr).toMatch(/1 prompt bytes .* 60 bytes in .* ended by length/);
  });
});

describe("a list of models in the environment", () => {
  const environment = { MBLM_MODEL: `${model},${bundleDir("vqa")}` };

  it("means the first one to commands that take one", () => {
    const args = ["generate", "x", "--max-bytes", "9", "--quiet", "--out", "-"];
    const { status, stdout, stderr } = cli(args, undefined, environment);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toEqual(cli([...args, "--model", model]).stdout);
  });
});

describe("chat", () => {
  const chat = (input: string, ...args: string[]) => cli(["chat", "--model", model, ...args], Buffer.from(input));
  const greedy = (prompt: string | Uint8Array, count: number): Buffer => {
    const args = [
      "generate",
      "--model",
      model,
      "--temperature",
      "0",
      "--max-bytes",
      `${count}`,
      "--out",
      "-",
      "--quiet",
    ];
    return cli(args, Buffer.from(prompt as string)).stdout;
  };

  it("goes on turn by turn with what was said before", () => {
    const { status, stdout, stderr } = chat(
      "Once upon\n a time\n/bytes\n/reset\nOnce\n",
      "--text",
      "--temperature",
      "0",
      "--max-bytes",
      "9",
    );
    const first = greedy("Once upon", 9);
    const second = greedy(Buffer.concat([Buffer.from("Once upon"), first, Buffer.from(" a time")]), 9);
    expect(stdout.toString()).toBe(`${first}\n${second}\n${greedy("Once", 9)}\n`);
    expect(stderr).toContain("mamba2-transformer. /help");
    expect(stderr).toContain(`${9 + 9 + 7 + 9} bytes`);
    expect(status).toBe(0);
  });

  it("follows the model's template, and keeps sessions", () => {
    const folder = scratchFolder("chat");
    const options = ["--temperature", "0", "--max-bytes", "6", "--session-dir", folder];
    const first = greedy("user: Hi\n\nassistant:", 6);
    const context = Buffer.concat([
      Buffer.from("user: Hi\n\nassistant:"),
      first,
      Buffer.from("\n\nuser: Yes\n\nassistant:"),
    ]);
    const { stdout } = chat("Hi\n/save kept\nYes\n", ...options);
    expect(stdout.toString()).toBe(`${first}\n${greedy(context, 6)}\n`);
    const again = chat("Yes\n/bytes\n", "--session", "kept", ...options);
    expect(again.stderr).toContain("going on after 26 bytes");
    expect(again.stdout.toString()).toBe(`${greedy(context, 6)}\n`);
    expect(again.stderr).toContain(`\n${context.length + 6} bytes`);
  });

  it("talks to itself whatever certificate or keys a server here would have", () => {
    const settings = { MBLM_TLS_CERT: "/nowhere", MBLM_TLS_KEY: "/nowhere", MBLM_API_KEY_FILE: "/nowhere" };
    const args = ["chat", "--model", model, "--text", "--temperature", "0", "--max-bytes", "9"];
    const { status, stdout, stderr } = cli(args, Buffer.from("Once"), settings);
    expect({ status, stderr }).toMatchObject({ status: 0, stderr: expect.stringContaining("/help") });
    expect(stdout.toString()).toBe(`${greedy("Once", 9)}\n`);
  });

  it("says what is wrong", () => {
    for (const url of ["nonsense", "ftp://host", "http://"]) {
      const { status, stderr } = chat("", "--url", url);
      expect(stderr).toContain("must be an address that begins with http:// or https://");
      expect(status).toBe(2);
    }
    expect(chat("", "--url", "http://127.0.0.1:9")).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("--url: http://127.0.0.1:9 cannot be reached"),
    });
    expect(chat("/dance\n/save ../x\n", "--text").stderr).toMatch(/no command \/dance.*session_id/s);
  });
});

describe("vqa", () => {
  const { image, question, logprobs } = readGolden("vqa").asked!.at(-1)!;
  const path = join(dist, "image.png");
  writeFileSync(path, Buffer.from(image, "base64"));
  const best = Object.entries(logprobs)
    .sort((a, b) => b[1] - a[1])
    .map(([answer]) => answer);

  it("answers questions about a file, for people and for programs", () => {
    const args = ["vqa", path, question, "what", "--model", bundleDir("vqa")];
    const lines = cli(args).stdout.toString().split("\n");
    expect(lines[0]).toBe(question);
    expect(lines[1]).toMatch(new RegExp(`^  ${best[0]} [\\d.]+ %   ${best[1]} [\\d.]+ %   ${best[2]} [\\d.]+ %$`));
    expect(lines[2]).toBe("what");
    const [first, second] = cli([...args, "--json", "--top", "1"])
      .stdout.toString()
      .trimEnd()
      .split("\n");
    expect(JSON.parse(first!)).toMatchObject({ question, answer: best[0], top_answers: [{ answer: best[0] }] });
    expect(JSON.parse(second!)).toMatchObject({ question: "what" });
    expect(cli(["vqa", "-", question, "--model", bundleDir("vqa")], readFileSync(path)).stdout.toString()).toContain(
      `${best[0]} `,
    );
  });

  it.each([
    [["vqa", path, "what", "--model", model], "--model: mamba2-transformer does not answer questions about images"],
    [["vqa", "/nowhere.png", "what", "--model", bundleDir("vqa")], "cannot read the image"],
    [["vqa", main, "what", "--model", bundleDir("vqa")], "image: is no JPEG, PNG or WebP file"],
    [["vqa", path, "", "--model", bundleDir("vqa")], "question: must not be empty"],
    [["vqa", path], "missing required argument"],
  ])("%j", (args, message) => {
    expect(cli(args)).toMatchObject({ status: 2, stderr: expect.stringContaining(message) });
  });
});

describe("a reader that has enough", () => {
  it("ends generation without complaint", () => {
    const command = `"${process.execPath}" "${main}" generate x --model "${model}" --max-bytes 1000000000 --quiet --out -`;
    const { stdout, stderr } = spawnSync("sh", ["-c", `{ ${command}; echo "exit $?" >&2; } | head -c 5`], {
      timeout: 30_000,
    });
    expect(stdout).toHaveLength(5);
    expect(stderr.toString()).toBe("exit 0\n");
  });
});

describe("mistakes are one line and exit code 2", () => {
  it.each([
    [["generate", "x", "--temperature", "3"], "from 0 to 2"],
    [["generate", "x", "--top-p", "0"], "must be a number above 0, up to 1"],
    [["generate", "x", "--top-k", "1.5"], "must be an integer from 0 to 65536"],
    [["generate", "x", "--prompt-file", "y"], "not both"],
    [["serve", "--model", "/nope1,/nope2"], "/nope1 is not a bundle: cannot read manifest.json\n/nope2 is not"],
    [["generate", "--prompt-file", "/nowhere"], "cannot read the prompt"],
    [["generate", "x", "--model", model, "--out", "/nowhere/x"], "cannot write to --out /nowhere/x"],
    [["serve", "--port", "99999"], '--port: "99999"'],
    [["serve", "--colour"], "unknown option"],
    [["inspect", "/nowhere"], "/nowhere is not a bundle"],
    [["dance"], "unknown command"],
  ])("%j", (args, message) => {
    const { status, stderr } = cli(args);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("    at ");
    expect(status).toBe(2);
  });
});

describe("inspect and config", () => {
  it("print what there is, for people and for programs", () => {
    expect(cli(["inspect", model]).stdout.toString()).toMatch(
      /mamba2-transformer .*global\s+mamba2.*local\s+transformer.*weights\.bin/s,
    );
    const summary = JSON.parse(cli(["inspect", model, "--json"]).stdout.toString()) as { stages: object[] };
    expect(summary.stages).toHaveLength(2);
    expect(cli(["config", "--port", "1234"]).stdout.toString()).toContain("port: 1234 # --port\n");
    expect(cli(["--help"]).stdout.toString()).toContain("generate");
    expect(cli(["generate", "--help"]).stdout.toString()).toMatch(/--seed.*\(default: 0,/s);
    expect(cli(["serve", "--help"]).stdout.toString()).toContain("MBLM_MAX_WAITING");
  });
});

it("config shows no secret", () => {
  const { stdout } = cli(["config"], undefined, {
    MBLM_API_KEY: "hunter2hunter2",
    MBLM_SESSION_URL: "redis://user:hunter2@host/1",
    MBLM_OTLP_ENDPOINT: "http://user:hunter2@collector:4318",
  });
  expect(stdout.toString()).toContain('api_key: "***" # MBLM_API_KEY\n');
  expect(stdout.toString()).toContain("session_url: redis://***@host/1 # MBLM_SESSION_URL\n");
  expect(stdout.toString()).toContain("otlp_endpoint: http://***@collector:4318 # MBLM_OTLP_ENDPOINT\n");
  expect(stdout.toString()).not.toContain("hunter2");
});

const hasCuda = process.platform === "linux" && process.arch === "x64";

describe.skipIf(!hasCuda)("install-cuda", () => {
  const install = (...args: string[]) => cli(["install-cuda", "--dir", join(dist, "cuda"), ...args]);

  it("says what is missing and changes nothing with --check, exit code 3", () => {
    const { status, stdout } = install("--check");
    expect(status).toBe(3);
    expect(stdout.toString()).toContain("there is no libonnxruntime_providers_cuda.so in");
    expect(stdout.toString()).toContain("To install it: mblm-server install-cuda");
    expect(existsSync(join(dist, "cuda"))).toBe(false);
  });

  it.each([
    [["--from", "/nowhere"], "--from: /nowhere is neither a wheel nor a folder"],
    [["--index-url", "pypi.org"], "--index-url: pypi.org is not an address"],
    [["--dir", join(model, "manifest.json", "cuda")], "cannot make "],
  ])("names a mistake in %j, exit code 2", (args, message) => {
    const { status, stderr } = install(...args);
    expect(stderr).toContain(`mblm-server: ${message}`);
    expect(status).toBe(2);
  });

  it("fails with exit code 1 when nothing can be fetched", () => {
    const { status, stderr } = install("--index-url", "http://127.0.0.1:9/simple");
    expect(stderr).toContain("mblm-server: cannot reach http://127.0.0.1:9/simple/onnxruntime-gpu/");
    expect(status).toBe(1);
  });
});

describe("serve", () => {
  it("announces itself, answers, drains on SIGTERM and exits with 0", async () => {
    const server = spawn(process.execPath, [main, "serve", "--model", model, "--port", "0", "--log-level", "error"]);
    let output = "";
    const url = await new Promise<string>((resolve) => {
      server.stdout.on("data", (data: Buffer) => {
        output += data.toString();
        const match = /listening on (\S+)/.exec(output);
        if (match && output.includes("curl -N")) resolve(match[1]!);
      });
    });
    const exit = new Promise<number | null>((resolve) => server.on("exit", resolve));
    const body = JSON.stringify({ prompt: "x", max_tokens: 3000, stream: true, return_token_ids: true });
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    expect(response.status).toBe(200);
    server.kill("SIGTERM");
    server.kill("SIGINT"); // the same wish, relayed twice: still a drain
    const text = await response.text(); // accepted before the signal: finished, not cut off
    expect(text).toContain('"finish_reason":"length"');
    expect(text.trimEnd().endsWith("data: [DONE]")).toBe(true);
    expect(await exit).toBe(0);
  });
});
