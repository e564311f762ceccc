// `npm run load -- overload | soak`: how the server bears more than it can do, and very many requests. Prints pass or fail for
// each promise; --help shows what can be set.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { parseArgs } from "node:util";
import { build, installPackages, requireNode, root } from "./setup.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string", default: "models/books" },
    minutes: { type: "string", default: "10" },
    requests: { type: "string", default: "200000" },
    slots: { type: "string", default: "16" },
    "max-waiting": { type: "string", default: "4" },
    help: { type: "boolean" },
  },
});
const [kind] = positionals;
if (values.help || (kind !== "overload" && kind !== "soak")) {
  console.log(`npm run load -- overload [--minutes N] [--slots N] [--max-waiting N] [--model DIR]
    twice the requests that the server can do: latency of those accepted, answers to those refused, memory, recovery;
    compared with what it does unhurried, before and after
npm run load -- soak [--requests N] [--model DIR]
    many short requests, a tenth of them cut off: memory and slots afterwards`);
  process.exit(values.help ? 0 : 2);
}
requireNode();
await installPackages();
await build();

const seconds = () => performance.now() / 1000;
const sleep = (duration) => new Promise((resolve) => setTimeout(resolve, duration * 1000));
const quantile = (list, q) => [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))];
const ms = (value) => `${(value * 1000).toFixed(1)} ms`;
const mib = (value) => `${(value / 2 ** 20).toFixed(0)} MiB`;
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
let numFailed = 0;
function check(promise, isKept, figure) {
  if (!isKept) numFailed++;
  console.log(`${isKept ? "pass" : "FAIL"}  ${promise}: ${figure}`);
}

async function serve(...flags) {
  const args = ["dist/cli/main.js", "serve", "--port", "0", "--model", values.model, "--log-level", "error", ...flags];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((resolve, reject) => {
    child.once("exit", () => reject(new Error("the server ended")));
    child.stdout.on("data", (text) => {
      const match = /listening on (http:\S+)/.exec(text);
      if (match) resolve(match[1]);
    });
  });
  return { url, stop: () => child.kill("SIGTERM") };
}

/** Seconds that a probe takes, for which the server has nothing to do: what the machine and its neighbours add to every answer. */
function probe(server) {
  const start = seconds();
  return new Promise((resolve, reject) => {
    const call = request(`${server.url}/health`, { agent }, (response) => {
      response.on("end", () => resolve(seconds() - start));
      response.resume();
    });
    call.on("error", reject);
    call.end();
  });
}

/** Processor time since the machine was started: all of it, and what it wanted but others had. Undefined where nobody says. */
function processorTime() {
  if (!existsSync("/proc/stat")) return undefined;
  const times = readFileSync("/proc/stat", "utf8").split("\n", 1)[0].split(/ +/).slice(1, 9).map(Number);
  return { all: times.reduce((sum, time) => sum + time, 0), stolen: times[7] ?? 0 };
}

/** Status and duration of one request; `cutAfter` seconds it is cut off. */
function complete(server, body, cutAfter) {
  const start = seconds();
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const call = request(`${server.url}/v1/completions`, { method: "POST", agent, headers }, (response) => {
      response.on("error", () => {});
      response.on("end", () => resolve({ status: response.statusCode, duration: seconds() - start }));
      response.resume();
    });
    call.on("error", (error) => (call.destroyed && cutAfter !== undefined ? resolve({ status: 0 }) : reject(error)));
    if (cutAfter !== undefined) {
      setTimeout(() => {
        call.destroy();
        resolve({ status: 0 });
      }, cutAfter * 1000);
    }
    call.end(JSON.stringify(body));
  });
}

async function metrics(server) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const read = (name) => Number(new RegExp(`^${name}(?:{.*})? (\\S+)`, "m").exec(text)?.[1]);
  return {
    resident: read("process_resident_memory_bytes"),
    running: read("mblm_requests_running"),
    waiting: read("mblm_requests_waiting"),
  };
}

const BODY = { prompt: "The old man looked at the sea and said: ", max_tokens: 64, temperature: 0.8 };

/** As many as there are slots, all the time: all that the server can do, and nobody waits. */
async function unhurried(server, slots) {
  const durations = [];
  const start = seconds();
  await Promise.all(
    Array.from({ length: slots }, async () => {
      while (seconds() < start + 30) durations.push((await complete(server, BODY)).duration);
    }),
  );
  return { durations, rate: durations.length / (seconds() - start) };
}

const describe = ({ rate, durations }) =>
  `${rate.toFixed(1)} requests/s, ${ms(quantile(durations, 0.5))} each (median)`;

async function overload() {
  const slots = Number(values.slots);
  const server = await serve("--slots", values.slots, "--max-waiting", values["max-waiting"]);
  await complete(server, BODY);
  const first = await unhurried(server, slots);
  console.log(`${slots} slots do ${describe(first)}; now twice as many arrive`);
  const { rate } = first;
  const before = await metrics(server);
  const timeBefore = processorTime();
  const [accepted, refused, other, resident, probes] = [[], [], [], [], []];
  const pending = new Set();
  const end = seconds() + 60 * Number(values.minutes);
  let [nextSample, nextProbe, nextReport] = [0, 0, seconds() + 60];
  for (let arrival = seconds(); arrival < end; arrival += -Math.log(Math.random()) / (2 * rate)) {
    await sleep(Math.max(0, arrival - seconds()));
    const one = complete(server, BODY).then(({ status, duration }) => {
      pending.delete(one);
      if (status === 200) accepted.push(duration);
      else if (status === 429) refused.push(duration);
      else other.push(status);
    });
    pending.add(one);
    if (arrival > nextSample) {
      nextSample = arrival + 5;
      metrics(server).then((now) => resident.push(now.resident));
    }
    if (arrival > nextReport) {
      nextReport += 60;
      console.log(
        `  ${accepted.length} accepted, ${refused.length} refused, ${mib(resident.at(-1) ?? before.resident)}`,
      );
    }
    if (arrival > nextProbe) {
      nextProbe = arrival + 0.1;
      probe(server).then((duration) => probes.push(duration));
    }
  }
  const over = seconds();
  await Promise.all(pending);
  const timeAfter = processorTime();
  let recovery;
  for (;;) {
    const { status, duration } = await complete(server, BODY);
    recovery = seconds() - over;
    if ((status === 200 && duration <= 1.5 * quantile(first.durations, 0.5)) || recovery > 60) break;
  }
  const after = await metrics(server);
  // Again, since a machine that others use, too, is not equally fast all the time.
  const last = await unhurried(server, slots);
  const median = quantile([...first.durations, ...last.durations], 0.5);
  console.log(`afterwards ${describe(last)}`);
  console.log(`meanwhile a probe took ${ms(quantile(probes, 0.5))} (median), p99 ${ms(quantile(probes, 0.99))}`);
  if (timeBefore !== undefined) {
    const stolen = (timeAfter.stolen - timeBefore.stolen) / (timeAfter.all - timeBefore.all);
    console.log(`and others had ${(100 * stolen).toFixed(1)} % of the processors' time`);
  }
  console.log();
  const half = resident.length >> 1;
  const growth = quantile(resident.slice(half), 0.5) - quantile(resident.slice(0, half), 0.5);
  const ratio = quantile(accepted, 0.5) / median;
  check(
    "accepted requests take at most 1.5 times as long (median)",
    ratio <= 1.5,
    `${ms(quantile(accepted, 0.5))}, ${ratio.toFixed(2)}×, p99 ${ms(quantile(accepted, 0.99))}; ${accepted.length} accepted`,
  );
  check(
    "the others are refused in less than 20 ms (99 %)",
    quantile(refused, 0.99) < 0.02,
    `median ${ms(quantile(refused, 0.5))}, p99 ${ms(quantile(refused, 0.99))}, worst ${ms(quantile(refused, 1))}; ${refused.length} refused`,
  );
  check("nothing else is answered", other.length === 0, `${other.length}`);
  check(
    "memory stays flat",
    growth < 32 * 2 ** 20,
    `${mib(before.resident)} before, ${mib(after.resident)} after, second half ${mib(growth)} above the first`,
  );
  check("as fast as before within 5 s", recovery < 5, `${recovery.toFixed(2)} s`);
  check(
    "no slot is lost",
    after.running === 0 && after.waiting === 0,
    `${after.running} running, ${after.waiting} waiting`,
  );
  server.stop();
}

async function soak() {
  const total = Number(values.requests);
  const server = await serve();
  const expected = await (
    await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "ab", max_tokens: 4, seed: 1, return_token_ids: true }),
    })
  ).json();
  const samples = [];
  let [numDone, numCut, numWrong] = [0, 0, 0];
  const start = seconds();
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      while (numDone < total) {
        const i = numDone++;
        const body = { prompt: "ab", max_tokens: 1 + (i % 4), seed: i };
        const { status } = await complete(server, body, i % 10 === 0 ? (i % 7) / 500 : undefined);
        if (status === 0) numCut++;
        else if (status !== 200) numWrong++;
        if (i % Math.ceil(total / 100) === 0) samples.push({ i, resident: (await metrics(server)).resident });
        if (i % Math.ceil(total / 20) === 0 && i > 0) console.log(`  ${i} requests, ${mib(samples.at(-1).resident)}`);
      }
    }),
  );
  const took = seconds() - start;
  await sleep(1);
  const after = await metrics(server);
  // What the first fifth adds is caches filling up.
  const settled = samples.slice(samples.length / 5);
  const slope = leastSquares(settled.map(({ i, resident }) => [i, resident]));
  console.log(`${total} requests in ${took.toFixed(0)} s, ${numCut} of them cut off\n`);
  check(
    "memory does not grow",
    slope * total < 64 * 2 ** 20,
    `${slope.toFixed(1)} bytes a request (${mib(settled[0].resident)} → ${mib(settled.at(-1).resident)})`,
  );
  check("every answer was 200", numWrong === 0, `${numWrong} others`);
  check(
    "no slot is lost",
    after.running === 0 && after.waiting === 0,
    `${after.running} running, ${after.waiting} waiting`,
  );
  const again = await (
    await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "ab", max_tokens: 4, seed: 1, return_token_ids: true }),
    })
  ).json();
  check(
    "the same request gives the same bytes as before",
    again.choices[0].token_ids.join() === expected.choices[0].token_ids.join(),
    again.choices[0].token_ids.join(" "),
  );
  server.stop();
}

/** Slope of the line through the points. */
function leastSquares(points) {
  const mean = (k) => points.reduce((sum, point) => sum + point[k], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const above = points.reduce((sum, [px, py]) => sum + (px - x) * (py - y), 0);
  return above / points.reduce((sum, [px]) => sum + (px - x) ** 2, 0);
}

await (kind === "overload" ? overload() : soak());
console.log(numFailed === 0 ? "\nall kept" : `\n${numFailed} not kept`);
process.exit(numFailed === 0 ? 0 : 1);
