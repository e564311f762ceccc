// `npm run bench:sessions`: what sessions cost. Resuming a long history against computing it again, and the memory of many
// parked sessions and open sockets. Needs about 20 GB of disk with the default settings. --help shows what can be set.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { WebSocket } from "ws";
import { build, installPackages, requireNode, root } from "./setup.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "models/books" },
    histories: { type: "string", default: "16384,131072,1048576" },
    parked: { type: "string", default: "5000" },
    sockets: { type: "string", default: "200" },
    "session-bytes": { type: "string", default: "134217728" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(
    "npm run bench:sessions -- [--model DIR] [--histories N,N,…] [--parked N] [--sockets N] [--session-bytes N]",
  );
  process.exit(0);
}
requireNode();
await installPackages();
await build();

const folder = mkdtempSync(join(tmpdir(), "bench-sessions-"));
const text = readFileSync(join(root, "README.md"));
const history = (length) => Buffer.alloc(length, text);
const seconds = () => performance.now() / 1000;
const MIB = 2 ** 20;

/** A server on the folder of sessions, ready. */
async function serve() {
  const flags = ["--port", "0", "--session-dir", folder, "--session-bytes", values["session-bytes"]];
  const args = [join(root, "dist/cli/main.js"), "serve", "--model", values.model, "--log-level", "error", ...flags];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((resolve, reject) => {
    let said = "";
    child.once("exit", () => reject(new Error(`the server ended:\n${said}`)));
    child.stdout.on("data", (data) => {
      said += data;
      const match = /listening on (http:\S+)/.exec(said);
      if (match) resolve(match[1]);
    });
  });
  const stop = (signal) =>
    new Promise((resolve) => {
      child.removeAllListeners("exit");
      child.once("exit", resolve);
      child.kill(signal);
    });
  return { url, stop };
}

async function call(server, method, path, body) {
  const isBytes = body instanceof Uint8Array;
  const response = await fetch(server.url + path, {
    method,
    headers: body && { "content-type": isBytes ? "application/octet-stream" : "application/json" },
    body: body && (isBytes ? body : JSON.stringify(body)),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** The next bytes of a session, which goes on with them; and how long they took. */
async function goOn(server, session, count = 1) {
  const start = seconds();
  const body = { session_id: session, max_tokens: count, temperature: 0, return_token_ids: true };
  const answer = await call(server, "POST", "/v1/completions", body);
  return { ids: answer.choices[0].token_ids, seconds: seconds() - start };
}

async function residentBytes(server) {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\S+)/m.exec(metrics)[1]);
}

const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];

async function benchResume() {
  console.log(
    "\nresuming a session: from its file by a new process, and from memory, against feeding its history again\n",
  );
  console.log("| history | feed it | resume from disk | ratio | resume in memory | state kept |");
  console.log("|--:|--:|--:|--:|--:|--:|");
  for (const length of values.histories.split(",").map(Number)) {
    const id = `history-${length}`;
    let server = await serve();
    await call(server, "POST", "/v1/sessions", { id });
    await goOn(server, (await call(server, "POST", "/v1/sessions", {})).id); // warm
    const start = seconds();
    await call(server, "POST", `/v1/sessions/${id}/append`, history(length));
    const fed = seconds() - start;
    const expected =
      (await call(server, "POST", `/v1/sessions/${id}/fork`, { id: `${id}-twin` })) &&
      (await goOn(server, `${id}-twin`, 8)).ids;
    const cold = [];
    for (let i = 0; i < 5; i++) {
      await server.stop("SIGKILL");
      server = await serve();
      await goOn(server, (await call(server, "POST", "/v1/sessions", {})).id);
      const first = await goOn(server, id, 1);
      if (first.ids[0] !== expected[i]) throw new Error("the session went on with something else");
      cold.push(first.seconds);
    }
    const warm = [];
    for (let i = 0; i < 9; i++) warm.push((await goOn(server, id, 1)).seconds);
    await server.stop("SIGTERM");
    const { size } = statSync(join(folder, `${id}.session`));
    const [disk, memory] = [median(cold), median(warm)];
    const ms = (value) => `${(value * 1000).toFixed(1)} ms`;
    console.log(
      `| ${length.toLocaleString("en")} B | ${fed.toFixed(2)} s | ${ms(disk)} | ${Math.round(fed / disk)}× | ${ms(memory)} | ${(size / MIB).toFixed(2)} MiB |`,
    );
  }
}

async function benchParked() {
  const [numParked, numSockets] = [Number(values.parked), Number(values.sockets)];
  const server = await serve();
  const { id } = await call(server, "POST", "/v1/sessions", {});
  await call(server, "POST", `/v1/sessions/${id}/append`, history(1024));
  await goOn(server, id);
  for (let i = 0; i < 50; i++) await call(server, "POST", `/v1/sessions/${id}/fork`, { id: `warm-${i}` });
  const before = await residentBytes(server);
  const start = seconds();
  for (let i = 0; i < numParked; i++) await call(server, "POST", `/v1/sessions/${id}/fork`, { id: `parked-${i}` });
  const took = seconds() - start;
  const parked = await residentBytes(server);
  const sockets = [];
  for (let i = 0; i < numSockets; i++) {
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/v1/stream`, "mblm.stream.v1");
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("open", resolve));
    socket.send(JSON.stringify({ type: "open", stream: 0, session_id: `parked-${(i * 7919) % numParked}` }));
    await new Promise((resolve) => socket.once("message", resolve));
    sockets.push(socket);
  }
  const open = await residentBytes(server);
  const expected = (await goOn(server, id, 4)).ids.join();
  const outputs = await Promise.all(
    sockets.map(
      (socket) =>
        new Promise((resolve) => {
          const bytes = [];
          socket.on("message", (data, isBinary) => {
            if (isBinary) bytes.push(...data.subarray(4));
            else if (JSON.parse(data).type === "finished") resolve(bytes.join());
          });
          socket.send(JSON.stringify({ type: "generate", stream: 0, max_tokens: 4, temperature: 0 }));
        }),
    ),
  );
  if (outputs.some((output) => output !== expected)) throw new Error("a parked session went on with something else");
  const used = await residentBytes(server);
  await server.stop("SIGTERM");
  const mib = (value) => `${(value / MIB).toFixed(0)} MiB`;
  console.log(
    `\n${numParked} parked sessions (made in ${took.toFixed(0)} s), ${numSockets} open sockets, states in memory at most ${mib(Number(values["session-bytes"]))}\n`,
  );
  console.log("| | resident memory |");
  console.log("|--|--:|");
  console.log(`| with 50 sessions | ${mib(before)} |`);
  console.log(
    `| with ${numParked} parked sessions | ${mib(parked)} (${((parked - before) / numParked / 1024).toFixed(1)} KiB each) |`,
  );
  console.log(
    `| and ${numSockets} sockets, each with one of them open | ${mib(open)} (${((open - parked) / numSockets / 1024).toFixed(0)} KiB each) |`,
  );
  console.log(`| after all ${numSockets} have generated | ${mib(used)} |`);
}

try {
  await benchResume();
  await benchParked();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
