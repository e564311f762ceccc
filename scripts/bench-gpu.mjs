// `npm run bench:gpu -- --bundle DIR …`: what a bundle's graphs do on a CUDA device, measured through the engine that the server runs.
// Random prompts, top-p sampling. Prints a table; needs nothing but this package, or a folder made by pack-gpu-host.mjs.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { GREEDY, startInlineEngine } from "../dist/index.js";

const HELP = `usage: npm run bench:gpu -- --bundle DIR [options]
  --bundle DIR         a bundle exported with --cuda; may be given several times
  --streams LIST       numbers of streams (default 1,4,8,64,256)
  --bytes N            bytes that each stream generates (default 512)
  --contexts LIST      prompt lengths for time to first byte and time per byte (default 1024,65536,1048576,8388608)
  --device cuda[:N]    which device (default cuda)
  --kernels NAME       auto, fused or onnx: what runs the local stage's patches (default auto)
  --cuda-dir DIR       ONNX Runtime's libraries for CUDA (default: where install-cuda puts them)
  --torch PYTHON       also runs scripts/bench_torch_graph.py with this Python: the same shape as a PyTorch CUDA graph
  --only LIST          of streams, contexts, numbers, batches, http
  --json FILE          figures as JSON
`;

const list = (text) => text.split(",").map(Number);
const { values: options } = parseArgs({
  options: {
    bundle: { type: "string", multiple: true },
    streams: { type: "string", default: "1,4,8,64,256" },
    bytes: { type: "string", default: "512" },
    contexts: { type: "string", default: "1024,65536,1048576,8388608" },
    device: { type: "string", default: "cuda" },
    kernels: { type: "string", default: "auto" },
    "cuda-dir": { type: "string", default: "" },
    torch: { type: "string" },
    only: { type: "string", default: "streams,contexts,numbers,batches,http" },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (options.help || options.bundle === undefined) {
  process.stdout.write(HELP);
  process.exit(options.help ? 0 : 2);
}
const [deviceKind, deviceIndex = "0"] = options.device.split(":");
const wanted = new Set(options.only.split(","));

/** Bytes of a prompt that are one request of the engine; longer ones are fed piece by piece, so that none is held whole. */
const PIECE_LENGTH = 2 ** 20;
const CONTEXT_ROUNDS = 5;
/** More than one patch: the first bytes are handed out before the state is taken. */
const FIRST_BYTES = 64;
const TOP_P = { ...GREEDY, temperature: 1, topP: 0.9 };
const now = () => performance.now() / 1000;

/** Ids that look random and are the same in every run, in pieces of at most `size`. */
function* randomPieces(seed, length, size) {
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let done = 0; done < length; done += size) {
    yield Uint16Array.from({ length: Math.min(size, length - done) }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return 1 + ((state >>> 8) % 250);
    });
  }
}

const randomIds = (seed, length) => randomPieces(seed, length, length).next().value ?? new Uint16Array();

function request(prompt, maxNewBytes, sampling, more = {}) {
  return {
    id: "bench",
    prompt,
    sampling,
    stop: { maxNewBytes, minNewBytes: 0, stopSequences: [], stopIds: [], ignoreEos: true, includeStop: false },
    ...more,
  };
}

/** Runs one request; tells when bytes came. */
async function run(engine, asked, onBytes = () => {}) {
  const ids = [];
  const scores = [];
  let state;
  for await (const event of engine.submit(asked, new AbortController().signal)) {
    if (event.type === "failed") throw new Error(event.message);
    if (event.type === "prompt") scores.push(event.scores);
    if (event.type === "finished") state = event.state;
    if (event.type !== "bytes") continue;
    for (const id of event.ids) ids.push(id);
    onBytes(event.ids.length);
  }
  return { ids, scores, state };
}

/** Bytes per second of so many streams at once, from when all of them have begun until the first ends. */
async function streamRate(engine, numStreams, numBytes) {
  let begun = 0;
  let counted = 0;
  let from;
  let until;
  const streams = Array.from({ length: numStreams }, async (_, i) => {
    let own = 0;
    const asked = request(randomIds(i + 1, 64), numBytes, { ...TOP_P, seed: BigInt(i) });
    await run(engine, asked, (count) => {
      if (own === 0) begun++;
      own += count;
      if (until !== undefined) return;
      if (from !== undefined) counted += count;
      else if (begun === numStreams) from = now();
      if (own >= numBytes) until = now();
    });
  });
  await Promise.all(streams);
  return counted / (until - from);
}

/** A prompt of so many bytes, fed in pieces; seconds until the byte behind it, and the state that it leads to. */
async function feedContext(engine, length) {
  const startedAt = now();
  let firstAt;
  let state;
  let done = 0;
  for (const piece of randomPieces(7, length, PIECE_LENGTH)) {
    done += piece.length;
    const more = { returnState: true, ...(state && { resume: state }) };
    const asked = request(piece, done < length ? 0 : FIRST_BYTES, TOP_P, more);
    ({ state } = await run(engine, asked, () => {
      firstAt ??= now();
    }));
  }
  return { length, state, firstByteSeconds: firstAt - startedAt, rounds: [] };
}

/** Seconds per byte of a stream that goes on from a state, from its first bytes to its last. */
async function secondsPerByte(engine, state, numBytes) {
  let firstAt;
  let first = 0;
  let total = 0;
  const asked = request(new Uint16Array(), numBytes, { ...TOP_P, seed: 7n }, { resume: state });
  await run(engine, asked, (count) => {
    total += count;
    if (firstAt !== undefined) return;
    firstAt = now();
    first = total;
  });
  return (now() - firstAt) / (total - first);
}

/** Of each length: seconds to the first byte, and the median of seconds per byte of rounds that take the lengths in turn. */
async function measureContexts(engine, lengths, numBytes) {
  await secondsPerByte(engine, (await feedContext(engine, 1024)).state, 64);
  const contexts = [];
  for (const length of lengths) contexts.push(await feedContext(engine, length));
  for (let round = 0; round < CONTEXT_ROUNDS; round++) {
    for (const { state, rounds } of contexts) rounds.push(await secondsPerByte(engine, state, numBytes));
  }
  return contexts.map(({ length, firstByteSeconds, rounds }) => {
    const sorted = rounds.toSorted((a, b) => a - b);
    return { length, firstByteSeconds, secondsPerByte: sorted[sorted.length >> 1], rounds };
  });
}

/** Log-probs and greedy choices against those that float64 PyTorch gave (make_bench_bundle.py --check-fp64). */
async function compareNumbers(engine, dir) {
  const file = join(dir, "check-logprobs.npy");
  if (!existsSync(file)) return undefined;
  const bytes = readFileSync(join(dir, "check-bytes.bin"));
  const npy = readFileSync(file);
  const headerEnd = 10 + npy.readUInt16LE(8);
  const expected = new Float32Array(npy.buffer.slice(npy.byteOffset + headerEnd, npy.byteOffset + npy.length));
  const size = engine.info.vocabularySize;
  const asked = request(Uint16Array.from(bytes), 0, GREEDY, { promptScoring: { numTop: size, entropy: false } });
  const { scores } = await run(engine, asked);
  const tops = scores.flatMap(({ top }) => top);
  let worst = 0;
  let agreeing = 0;
  // Entry i scores byte i, which is predicted after byte i − 1.
  for (let i = 1; i < tops.length; i++) {
    const row = expected.subarray((i - 1) * size, i * size);
    for (const { id, logprob } of tops[i]) worst = Math.max(worst, Math.abs(logprob - row[id]));
    let best = 0;
    for (let id = 1; id < size; id++) if (row[id] > row[best]) best = id;
    if (tops[i][0].id === best) agreeing++;
  }
  return { worstLogprobError: worst, greedyAgreement: agreeing / (tops.length - 1), numBytes: tops.length - 1 };
}

/** How many of some requests give the same bytes alone and among others. */
async function compareBatches(engine, numStreams, numBytes) {
  const make = (i) => request(randomIds(1000 + i, 40 + i), numBytes, { ...(i % 2 ? TOP_P : GREEDY), seed: BigInt(i) });
  const together = await Promise.all(Array.from({ length: numStreams }, (_, i) => run(engine, make(i))));
  const compared = Math.min(numStreams, 8);
  let same = 0;
  for (let i = 0; i < compared; i++) {
    const alone = await run(engine, make(i));
    if (Buffer.from(alone.ids).equals(Buffer.from(together[i].ids))) same++;
  }
  return { numStreams, same, compared };
}

/** One streamed completion over HTTP; tells how many bytes came when. */
function complete(agent, port, body, onBytes) {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const asked = httpRequest({ agent, port, host: "127.0.0.1", path: "/v1/completions", method: "POST", headers });
    asked.on("error", reject);
    asked.on("response", (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => {
        text += piece;
        const end = text.lastIndexOf("\n\n");
        if (end < 0) return;
        for (const line of text.slice(0, end).split("\n\n")) {
          if (!line.startsWith("data: {")) continue;
          const { choices, error } = JSON.parse(line.slice(6));
          if (error) reject(new Error(error.message));
          onBytes(choices?.[0]?.token_ids?.length ?? 0);
        }
        text = text.slice(end + 2);
      });
      response.on("end", resolve);
    });
    asked.end(JSON.stringify(body));
  });
}

/** A port that nobody listens on. */
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Bytes per second of so many streams at once through a server of its own, counted as `streamRate` counts. */
async function httpRate(dir, numStreams, numBytes) {
  const port = await freePort();
  const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
  const settings = { port, slots: numStreams, device: options.device, "prefix-cache-bytes": 0, "max-waiting": 1024 };
  settings.kernels = options.kernels;
  if (options["cuda-dir"]) settings["cuda-dir"] = options["cuda-dir"];
  const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const server = spawn(process.execPath, [main, "serve", "--model", dir, "--log-level", "error", ...flags], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  try {
    for (let tries = 0; ; tries++) {
      const isReady = await fetch(`http://127.0.0.1:${port}/health`).then(({ ok }) => ok, () => false); // biome-ignore format: one thought
      if (isReady) break;
      if (tries > 600 || server.exitCode !== null) throw new Error("the server does not start");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const agent = new Agent({ keepAlive: true });
    let begun = 0;
    let counted = 0;
    let from;
    let until;
    const streams = Array.from({ length: numStreams }, (_, i) => {
      let own = 0;
      const body = {
        prompt: [...randomIds(i + 1, 64)],
        max_tokens: numBytes,
        temperature: 1,
        top_p: 0.9,
        seed: i,
        stream: true,
        ignore_eos: true,
        return_token_ids: true,
      };
      return complete(agent, port, body, (count) => {
        if (own === 0 && count > 0) begun++;
        own += count;
        if (until !== undefined) return;
        if (from !== undefined) counted += count;
        else if (begun === numStreams) from = now();
        if (own >= numBytes) until = now();
      });
    });
    await Promise.all(streams);
    return counted / (until - from);
  } finally {
    server.kill("SIGKILL");
  }
}

/** Bytes per second of a PyTorch CUDA graph of the same shape, for up to 64 streams. */
function torchRates(dir, streams) {
  const script = fileURLToPath(new URL("bench_torch_graph.py", import.meta.url));
  const asked = streams.filter((numStreams) => numStreams <= 64).join(",");
  const lines = execFileSync(options.torch, [script, "--bundle", dir, "--streams", asked], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  return lines.trim().split("\n").map((line) => JSON.parse(line)); // biome-ignore format: one thought
}

function usedMemoryGiB() {
  const command = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
  try {
    return Number(execFileSync("nvidia-smi", command, { encoding: "utf8" }).split("\n")[0]) / 1024;
  } catch {
    return undefined;
  }
}

async function measure(dir) {
  const figures = { bundle: basename(dir) };
  const streams = list(options.streams);
  const startedAt = now();
  const engine = await startInlineEngine({
    bundleDir: dir,
    numSlots: wanted.has("streams") || wanted.has("batches") ? Math.max(...streams) : 8,
    device: { kind: deviceKind, index: Number(deviceIndex), cudaDir: options["cuda-dir"] },
    kernels: options.kernels,
    backend: "auto",
    numThreads: 1,
    maxWaiting: 1024,
    maxQueuedPromptBytes: 2 ** 30,
    prefixCacheBytes: 0,
    verifyChecksums: false,
  });
  figures.device = engine.runtime.deviceName;
  figures.loadSeconds = now() - startedAt;
  const say = (title, value) => process.stdout.write(`${figures.bundle}: ${title} ${value}\n`);
  say("loaded on", `${figures.device} in ${figures.loadSeconds.toFixed(1)} s, ${usedMemoryGiB()?.toFixed(2)} GiB used`);
  say("kernels:", engine.runtime.kernels);
  try {
    if (wanted.has("numbers")) {
      figures.numbers = await compareNumbers(engine, dir);
      say("numbers", JSON.stringify(figures.numbers));
    }
    if (wanted.has("streams")) {
      figures.streams = [];
      for (const numStreams of streams) {
        const bytesPerSecond = await streamRate(engine, numStreams, Number(options.bytes));
        figures.streams.push({ numStreams, bytesPerSecond });
        say(`${numStreams} streams`, `${bytesPerSecond.toFixed(0)} B/s`);
      }
    }
    if (wanted.has("batches")) {
      figures.batches = [];
      for (const numStreams of streams.filter((n) => n > 1)) {
        figures.batches.push(await compareBatches(engine, numStreams, 256));
        say("same bytes alone and together", JSON.stringify(figures.batches.at(-1)));
      }
    }
    if (wanted.has("contexts")) {
      const lengths = list(options.contexts).filter((length) => length < (engine.info.maxLength ?? Infinity));
      figures.contexts = await measureContexts(engine, lengths, Number(options.bytes));
      for (const { length, firstByteSeconds, secondsPerByte } of figures.contexts) {
        say(
          `context ${length}`,
          `first byte ${(1e3 * firstByteSeconds).toFixed(1)} ms, ${(1e3 * secondsPerByte).toFixed(3)} ms/byte`,
        );
      }
    }
    figures.usedGiB = usedMemoryGiB();
    const counts = (await engine.stats()).stepSeconds.map(({ counts: c, sum }) => [c.reduce((a, b) => a + b, 0), sum]);
    say("memory", `${figures.usedGiB?.toFixed(2)} GiB; calls and seconds by stage: ${JSON.stringify(counts)}`);
  } finally {
    await engine.close();
  }
  if (options.torch) {
    figures.torch = torchRates(dir, streams);
    for (const { streams: numStreams, bytes_per_second } of figures.torch) {
      say(`${numStreams} streams of a PyTorch CUDA graph`, `${bytes_per_second} B/s`);
    }
  }
  if (wanted.has("http")) {
    const numStreams = 64;
    // Long enough that none is done before all have begun.
    const bytesPerSecond = await httpRate(dir, numStreams, 16 * Number(options.bytes));
    const bare = figures.streams?.find((measured) => measured.numStreams === numStreams)?.bytesPerSecond;
    figures.http = { numStreams, bytesPerSecond, ratio: bare && bytesPerSecond / bare };
    say(
      `${numStreams} streams over HTTP`,
      `${bytesPerSecond.toFixed(0)} B/s, ${figures.http.ratio?.toFixed(2)} of the engine`,
    );
  }
  return figures;
}

const all = [];
try {
  for (const dir of options.bundle) all.push(await measure(dir));
} catch (error) {
  console.error(`bench-gpu: ${error.message}`);
  process.exit(1);
}
if (options.json) writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`);

process.stdout.write("\n| bundle | device | work | figure |\n|---|---|---|---|\n");
for (const { bundle, device, streams = [], torch = [], contexts = [], numbers, batches = [], http, usedGiB } of all) {
  const row = (work, figure) => process.stdout.write(`| ${bundle} | ${device} | ${work} | ${figure} |\n`);
  for (const { numStreams, bytesPerSecond } of streams)
    row(`${numStreams} streams`, `${bytesPerSecond.toFixed(0)} B/s`);
  for (const { streams: numStreams, bytes_per_second } of torch)
    row(`${numStreams} streams, PyTorch CUDA graph`, `${bytes_per_second} B/s`);
  for (const { length, firstByteSeconds, secondsPerByte } of contexts) {
    row(
      `prompt of ${length}`,
      `${(1e3 * firstByteSeconds).toFixed(0)} ms to the first byte, ${(1e3 * secondsPerByte).toFixed(3)} ms a byte`,
    );
  }
  if (numbers) {
    const { worstLogprobError, greedyAgreement, numBytes } = numbers;
    row(
      "against float64",
      `${worstLogprobError.toExponential(1)} at most, greedy ${(100 * greedyAgreement).toFixed(2)} % of ${numBytes}`,
    );
  }
  for (const { numStreams, same, compared } of batches)
    row(`same alone and among ${numStreams}`, `${same} of ${compared}`);
  if (http)
    row(
      `${http.numStreams} streams over HTTP`,
      `${http.bytesPerSecond.toFixed(0)} B/s, ${http.ratio?.toFixed(2)} of the engine`,
    );
  if (usedGiB !== undefined) row("memory used", `${usedGiB.toFixed(2)} GiB`);
}
