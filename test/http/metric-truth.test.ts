import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { MblmClient, type SocketClass } from "../../src/client/index.js";
import { type Completion, complete, post, streamEvents } from "./api.js";
import { postCompletion, startApp, type TestApp, untilIdle } from "./test-app.js";

const MODEL = "mamba2-transformer";
type Metrics = ReadonlyMap<string, number>;

async function scrape(app: TestApp): Promise<Metrics> {
  const text = await (await fetch(`${app.url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.replace(/ \S+$/, ""), Number(/\S+$/.exec(line)![0])]));
}

/** What grew, and by how much. */
function grown(before: Metrics, after: Metrics, pattern: RegExp): Record<string, number> {
  const changes = [...after].map(([name, value]) => [name, value - (before.get(name) ?? 0)] as const);
  return Object.fromEntries(changes.filter(([name, change]) => pattern.test(name) && change !== 0));
}

const of = (name: string, labels = ""): string => `${name}{model="${MODEL}"${labels && `,${labels}`}}`;
const ended = (reason: string): string => of("mblm_requests_total", `finish_reason="${reason}"`);
const refused = (code: string): string => `mblm_requests_refused_total{code="${code}"}`;
const COUNTS = /^mblm_(requests|requests_refused|prompt_bytes|generated_bytes|scored_bytes)_total/;
const HISTOGRAM_COUNTS = /^mblm_(time_to_first_byte|request_duration|queue|prefill|decode|time_per_byte)_seconds_count/;

describe("under a scripted load", () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startApp(MODEL, { slots: 2, maxWaiting: 2 });
  });
  afterAll(() => app.stop());

  it("the counters are the client's own counts", async () => {
    const before = await scrape(app);
    /** As the client sees it. */
    let [promptBytes, generatedBytes, numSequences, numWithBytes, numGenerating] = [0, 0, 0, 0, 0];
    const reasons: Record<string, number> = {};
    const note = (prompt: string, choices: readonly { ids: number; reason: string }[]): void => {
      for (const { ids, reason } of choices) {
        promptBytes += prompt.length;
        generatedBytes += ids;
        numSequences++;
        if (ids > 0) numWithBytes++;
        if (ids > 0 || reason === "stop") numGenerating++; // what a stop hides was generated
        reasons[reason] = (reasons[reason] ?? 0) + 1;
      }
    };
    const whole = async (prompt: string, fields: object): Promise<void> => {
      const { choices } = await complete(app, { prompt, return_token_ids: true, seed: 1, ...fields });
      note(
        prompt,
        choices.map(({ token_ids, finish_reason }) => ({ ids: token_ids!.length, reason: finish_reason! })),
      );
    };
    await whole("one", { max_tokens: 10, n: 2 });
    await whole("nothing", { max_tokens: 0 });
    await Promise.all([whole("at once", { max_tokens: 30 }), whole("at once, too", { max_tokens: 20 })]);
    for (let i = 0; i < 20; i++) await whole("until it stops", { max_tokens: 40, stop: ["e", "a", "\u0001"], seed: i });
    await post(app, "/v1/sessions", { id: "s" });
    await whole("a session", { max_tokens: 5, session_id: "s" });
    const chunks = await streamEvents<Completion>(app, "/v1/completions", {
      prompt: "a stream",
      max_tokens: 50,
      stream: true,
      return_token_ids: true,
    });
    const pieces = chunks.flatMap(({ choices }) => choices);
    const ids = pieces.reduce((sum, { token_ids }) => sum + token_ids!.length, 0);
    note("a stream", [{ ids, reason: pieces.at(-1)!.finish_reason! }]);
    const connection = new MblmClient({ baseUrl: app.url }).connect({ webSocket: WebSocket as unknown as SocketClass });
    const stream = await connection.open();
    for (const text of ["over", " a socket"]) {
      await stream.push(new TextEncoder().encode(text));
      let numBytes = 0;
      const generation = stream.generate({ maxTokens: 25 });
      for await (const bytes of generation) numBytes += bytes.length;
      note(text, [{ ids: numBytes, reason: (await generation.result).finishReason }]);
    }
    await stream.close();
    connection.close();
    const scored = 777;
    await (await fetch(`${app.url}/v1/score`, { method: "POST", body: new Uint8Array(scored) })).text();
    const bad = [{ temperature: 9 }, { prompt: 7 }, { max_tokens: -1 }, { unknown: 1 }];
    for (const fields of bad) expect((await postCompletion(app, { prompt: "x", ...fields })).status).toBe(400);
    expect((await postCompletion(app, { prompt: "x", model: "other" })).status).toBe(404);
    await untilIdle(app);

    const after = await scrape(app);
    expect(reasons.stop).toBeGreaterThan(0);
    expect(grown(before, after, COUNTS)).toEqual({
      ...Object.fromEntries(Object.entries(reasons).map(([reason, count]) => [ended(reason), count])),
      [of("mblm_prompt_bytes_total")]: promptBytes,
      [of("mblm_generated_bytes_total")]: generatedBytes,
      [of("mblm_scored_bytes_total")]: scored,
      [refused("invalid_request")]: bad.length,
      [refused("model_not_found")]: 1,
    });
    expect(grown(before, after, HISTOGRAM_COUNTS)).toEqual({
      [of("mblm_time_to_first_byte_seconds_count")]: numWithBytes,
      [of("mblm_time_per_byte_seconds_count")]: numGenerating,
      [of("mblm_request_duration_seconds_count")]: numSequences,
      [of("mblm_queue_seconds_count")]: numSequences,
      [of("mblm_prefill_seconds_count")]: numSequences,
      [of("mblm_decode_seconds_count")]: numSequences,
    });
  });

  it("what is cut off is counted once, whether it ran or waited, and what is refused as refused", async () => {
    const before = await scrape(app);
    const controllers = Array.from({ length: 4 }, () => new AbortController());
    const endless = { prompt: "a", max_tokens: 1e6, stream: true };
    const open = [];
    for (const { signal } of controllers) open.push(await postCompletion(app, endless, { signal }));
    await expect.poll(async () => (await scrape(app)).get(of("mblm_requests_running"))).toBe(2);
    const busy = await scrape(app);
    expect(busy.get(of("mblm_requests_waiting"))).toBe(2);
    expect(busy.get(of("mblm_slot_usage_ratio"))).toBe(1);
    for (let i = 0; i < 3; i++) expect((await postCompletion(app, { prompt: "b" })).status).toBe(429);
    for (const controller of controllers.reverse()) controller.abort(); // those that wait first
    await Promise.all(open.map((response) => response.text().catch(() => "")));
    await untilIdle(app);
    await expect
      .poll(async () => grown(before, await scrape(app), /^mblm_(requests|requests_refused)_total/))
      .toEqual({ [ended("abort")]: 4, [refused("overloaded")]: 3 });
    const after = await scrape(app);
    expect(grown(before, after, /^mblm_(time_to_first_byte|request_duration)_seconds_count/)).toEqual({
      [of("mblm_time_to_first_byte_seconds_count")]: 2, // those that waited said nothing
      [of("mblm_request_duration_seconds_count")]: 4,
    });
    for (const name of ["running", "waiting"]) expect(after.get(of(`mblm_requests_${name}`))).toBe(0);
  });

  it("what a full engine refuses is counted, whatever was asked and however", async () => {
    const leaving = new AbortController();
    const endless = { prompt: "a", max_tokens: 1e6, stream: true };
    await post(app, "/v1/sessions", { id: "full" });
    const socket = new WebSocket(`${app.url.replace("http", "ws")}/v1/stream`, "mblm.stream.v1");
    await new Promise((resolve) => socket.once("open", resolve));
    const said = (type: string): Promise<{ error?: { code: string } }> =>
      new Promise((resolve) => {
        socket.on("message", (data, isBinary) => {
          const message = isBinary ? {} : JSON.parse(String(data));
          if (message.type === type) resolve(message);
        });
      });
    const open = [];
    for (let i = 0; i < 3; i++) open.push(await postCompletion(app, endless, { signal: leaving.signal }));
    const before = await scrape(app);
    // There is room for one of two: the place that it had is given back.
    expect((await postCompletion(app, { prompt: "b", n: 2 })).status).toBe(429);
    open.push(await postCompletion(app, endless, { signal: leaving.signal }));
    expect((await fetch(`${app.url}/v1/score`, { method: "POST", body: "abc" })).status).toBe(429);
    expect((await fetch(`${app.url}/v1/sessions/full/append`, { method: "POST", body: "abc" })).status).toBe(429);
    const problem = said("error");
    socket.send(JSON.stringify({ type: "open", stream: 1 }));
    socket.send(JSON.stringify({ type: "generate", stream: 1, max_tokens: 3 }));
    expect((await problem).error?.code).toBe("overloaded");
    socket.send(JSON.stringify({ type: "generate", stream: 1, max_tokens: -1 }));
    await expect
      .poll(async () => grown(before, await scrape(app), /^mblm_requests_refused_total/))
      .toEqual({ [refused("overloaded")]: 4, [refused("invalid_request")]: 1 });
    leaving.abort();
    socket.terminate();
    await Promise.all(open.map((response) => response.text().catch(() => "")));
    await untilIdle(app);
  });

  it("what runs out of time is neither refused nor the server's failure", async () => {
    const before = await scrape(app);
    const timed = { headers: { "content-type": "application/json", "x-request-timeout-ms": "400" } };
    const endless = { prompt: "a", max_tokens: 1e6 };
    const [whole, streamed, waiting] = await Promise.all([
      postCompletion(app, endless, timed),
      postCompletion(app, { ...endless, stream: true }, timed),
      postCompletion(app, endless, timed),
    ]);
    expect([whole!.status, streamed!.status, waiting!.status]).toEqual([408, 200, 408]);
    expect(await streamed!.text()).toContain("deadline_exceeded");
    /** What has come is worked on at once; the rest does not come. */
    const stalled = (path: string): Promise<Response> => {
      const body = new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(70_000)) });
      const headers = { "x-request-timeout-ms": "4000" };
      return fetch(app.url + path, { method: "POST", body, headers, duplex: "half" } as RequestInit);
    };
    const [score, upload] = await Promise.all([
      stalled("/v1/score"),
      stalled("/v1/completions/upload?return=events&progress=60"),
    ]);
    expect([score!.status, upload!.status]).toEqual([408, 200]);
    expect(await upload!.text()).toContain("deadline_exceeded");
    await untilIdle(app);
    expect(grown(before, await scrape(app), /^mblm_requests(_refused)?_total/)).toEqual({ [ended("timeout")]: 4 });
  });

  it("durations are those that the client sees, up to what a request without work takes", async () => {
    const now = (): number => performance.now() / 1000;
    const timed = async (body: object): Promise<number> => {
      const startedAt = now();
      await (await postCompletion(app, body)).text();
      return now() - startedAt;
    };
    const before = await scrape(app);
    const seconds: number[] = [];
    const idle: number[] = [];
    for (let i = 0; i < 12; i++) {
      seconds.push(await timed({ prompt: "a", max_tokens: 400, seed: i }));
      idle.push(await timed({ prompt: "a", max_tokens: -1 }));
    }
    const change = grown(before, await scrape(app), /_seconds_sum/);
    const served = change[of("mblm_request_duration_seconds_sum")]!;
    const seen = seconds.reduce((a, b) => a + b);
    const overhead = idle.reduce((a, b) => a + b);
    expect(served).toBeLessThanOrEqual(seen);
    expect(seen - served).toBeLessThanOrEqual(Math.max(5 * overhead, 0.2 * seen));
    const phases = ["queue", "prefill", "decode"].map((phase) => change[of(`mblm_${phase}_seconds_sum`)] ?? 0);
    expect(phases.reduce((a, b) => a + b)).toBeLessThanOrEqual(served);
    const steps = [0, 1].map((stage) => change[of("mblm_step_duration_seconds_sum", `stage="${stage}"`)] ?? 0);
    expect(steps.every((sum) => sum > 0)).toBe(true);
    expect(steps[0]! + steps[1]!).toBeLessThanOrEqual(served);
  });

  it("every step of decoding is counted, with the sequences that it served", async () => {
    const before = await scrape(app);
    await complete(app, { prompt: "abc", max_tokens: 40, n: 2, seed: 1 });
    const change = grown(before, await scrape(app), /^mblm_(batch|step)/);
    const numSteps = change[of("mblm_step_duration_seconds_count", 'stage="1"')];
    expect(numSteps).toBeGreaterThanOrEqual(40);
    expect(change[of("mblm_batch_sequences_count")]).toBe(numSteps);
    expect(change[of("mblm_batch_sequences_sum")]).toBeGreaterThanOrEqual(2 * 40);
    expect(change[`mblm_batch_sequences_bucket{le="+Inf",model="${MODEL}"}`]).toBe(numSteps);
  });
});

describe("names that vLLM has", () => {
  it("show the same numbers, if asked for", async () => {
    const app = await startApp(MODEL, { vllmMetrics: true });
    await complete(app, { prompt: "abcd", max_tokens: 30, seed: 1 });
    const metrics = await scrape(app);
    const label = `{model_name="${MODEL}"}`;
    expect(metrics.get(`vllm:prompt_tokens_total${label}`)).toBe(4);
    expect(metrics.get(`vllm:generation_tokens_total${label}`)).toBe(30);
    expect(metrics.get(`vllm:num_requests_running${label}`)).toBe(0);
    expect(metrics.get(`vllm:kv_cache_usage_perc${label}`)).toBe(0);
    expect(metrics.get(`vllm:request_success_total{model_name="${MODEL}",finished_reason="length"}`)).toBe(1);
    for (const name of ["time_to_first_token", "e2e_request_latency", "request_queue_time", "inter_token_latency"]) {
      const own = [...metrics.keys()].filter((key) => key.startsWith(`vllm:${name}_seconds_`));
      expect(own.length).toBeGreaterThan(5);
    }
    expect(metrics.get(`vllm:time_to_first_token_seconds_count${label}`)).toBe(1);
    expect([...metrics.keys()].some((key) => key.startsWith("vllm:") && /[{,](model|finish_reason)=/.test(key))).toBe(
      false,
    );
    await app.stop();
    const plain = await startApp(MODEL);
    expect([...(await scrape(plain)).keys()].some((key) => key.startsWith("vllm:"))).toBe(false);
    await plain.stop();
  });
});
