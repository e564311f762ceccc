import { describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { complete, json, post } from "./api.js";
import { Client, type Message } from "./stream-client.js";
import { untilIdle, useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
/** A position table ends at 96 bytes. */
const bounded = useApp("transformer");
const greedy = async (prompt: number[] | string, count: number): Promise<number[]> =>
  (await complete(app(), { prompt, max_tokens: count, temperature: 0, return_token_ids: true })).choices[0]!.token_ids!;

describe("GET /v1/stream", () => {
  it("speaks its subprotocol, and to clients that name none", async () => {
    expect((await Client.connect(app())).socket.protocol).toBe("mblm.stream.v1");
    const plain = new WebSocket(`${app().url.replace("http", "ws")}/v1/stream`);
    await new Promise((resolve) => plain.once("open", resolve));
    expect(plain.protocol).toBe("");
    plain.terminate();
    expect((await fetch(`${app().url}/v1/stream`)).status).toBe(404);
  });

  it("generates after what was pushed, again and again, as the whole sequence would", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 7 });
    const ids: number[] = [];
    for (const [turn, text] of ["Once upon", " a time, 👋 ", "", "x"].entries()) {
      for (const byte of Buffer.from(text)) client.push(7, Uint8Array.of(byte)); // in the smallest frames
      client.say({ type: "generate", stream: 7, max_tokens: 13, temperature: 0 });
      const finished = await client.next("finished", 7, turn + 1);
      ids.push(...Buffer.from(text));
      const expected = await greedy(ids, 13);
      expect(client.bytesOf(7).slice(13 * turn)).toEqual(expected);
      ids.push(...expected);
      expect(finished).toMatchObject({ finish_reason: "length", bytes: ids.length });
    }
    expect(await client.next("opened", 7)).toMatchObject({ session_id: null, bytes: 0 });
  });

  it("carries many streams, each with its own context and order", async () => {
    const client = await Client.connect(app());
    const prompts = Array.from({ length: 12 }, (_, i) => `stream ${i} `.repeat(1 + (i % 4)));
    for (const [i, prompt] of prompts.entries()) {
      client.say({ type: "open", stream: i });
      client.push(i, prompt);
      client.say({ type: "generate", stream: i, max_tokens: 20 + i, temperature: 0 });
    }
    for (const [i, prompt] of prompts.entries()) {
      await client.next("finished", i);
      expect(client.bytesOf(i)).toEqual(await greedy(prompt, 20 + i));
    }
  });

  it("takes the options of completions: stops, constraints, seeds", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1 });
    client.push(1, "a");
    client.say({ type: "generate", stream: 1, structured_outputs: { choice: ["one, two"] }, stop: ", " });
    expect(await client.next("finished", 1)).toMatchObject({ finish_reason: "stop", stop_reason: ", " });
    expect(Buffer.from(client.bytesOf(1)).toString()).toBe("one");
    client.say({ type: "generate", stream: 1, max_tokens: 30, seed: 5, temperature: 1.5, top_k: 40 });
    await client.next("finished", 1, 2);
    const body = { prompt: "aone, ", max_tokens: 30, seed: 5, temperature: 1.5, top_k: 40, return_token_ids: true };
    expect(client.bytesOf(1).slice(3)).toEqual((await complete(app(), body)).choices[0]!.token_ids);
  });

  it("can be cancelled and steered: what was sent stays, nothing else", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1 });
    client.push(1, "Tell me");
    client.say({ type: "generate", stream: 1, max_tokens: 1_000_000, temperature: 0, stop: "never ever" });
    await expect.poll(() => client.bytesOf(1).length, { interval: 2 }).toBeGreaterThan(20);
    client.say({ type: "cancel", stream: 1 });
    const { bytes, finish_reason } = await client.next("finished", 1);
    expect(finish_reason).toBe("cancelled");
    const context = [...Buffer.from("Tell me"), ...client.bytesOf(1)];
    expect(bytes).toBe(context.length);
    client.push(1, " STOP. ");
    client.say({ type: "generate", stream: 1, max_tokens: 10, temperature: 0 });
    await client.next("finished", 1, 2);
    expect(client.bytesOf(1).slice(context.length - 7)).toEqual(
      await greedy([...context, ...Buffer.from(" STOP. ")], 10),
    );
  });

  it("forks: both go on from the same context", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1 });
    client.push(1, "The quick brown fox");
    client.say({ type: "fork", stream: 1, into: 2 });
    expect(await client.next("opened", 2)).toMatchObject({ bytes: 19 });
    client.push(1, " jumps");
    client.push(2, " sleeps");
    for (const stream of [1, 2]) client.say({ type: "generate", stream, max_tokens: 12, temperature: 0 });
    await Promise.all([1, 2].map((stream) => client.next("finished", stream)));
    expect(client.bytesOf(1)).toEqual(await greedy("The quick brown fox jumps", 12));
    expect(client.bytesOf(2)).toEqual(await greedy("The quick brown fox sleeps", 12));
  });

  it("goes on with a session after the connection broke, in the middle of a generation", async () => {
    const { id } = await json<{ id: string }>(await post(app(), "/v1/sessions", {}));
    const first = await Client.connect(app());
    first.say({ type: "open", stream: 1, session_id: id });
    first.push(1, "To be, or");
    const generate = { type: "generate", max_tokens: 3000, temperature: 0.9, seed: 4, stop: "zzz" };
    first.say({ ...generate, stream: 1 });
    await expect.poll(() => first.bytesOf(1).length, { interval: 2 }).toBeGreaterThan(30);
    first.socket.terminate();

    const second = await Client.connect(app());
    const received = first.bytesOf(1).length;
    second.say({
      type: "open",
      stream: 5,
      session_id: id,
      take_over: true,
      received_bytes: received,
      received_messages: 0,
    });
    // The push is carried out, the generation is not.
    const opened = await second.next("opened", 5);
    expect(opened).toMatchObject({ session_id: id, frames: 1, said_messages: 0 });
    expect(opened.said_bytes).toBeGreaterThanOrEqual(received);
    expect(opened.bytes).toBe(9 + opened.said_bytes!);
    second.say({ ...generate, stream: 5 });
    const whole = await complete(app(), { ...generate, type: undefined, prompt: "To be, or", return_token_ids: true });
    expect(await second.next("finished", 5)).toMatchObject({
      frame: 2,
      bytes: 3009,
      usage: { prompt_tokens: 9, completion_tokens: 3000 },
    });
    expect([...first.bytesOf(1), ...second.bytesOf(5)]).toEqual(whole.choices[0]!.token_ids);

    const third = await Client.connect(app());
    third.say({ type: "open", stream: 1, session_id: id });
    expect(await third.next("error", 1)).toMatchObject({ error: { code: "session_conflict" } });
    third.say({ type: "open", stream: 1, session_id: id, take_over: true, received_bytes: 2000, received_messages: 0 });
    expect(await second.next("error", 5)).toMatchObject({ error: { code: "session_conflict" } });
    await second.next("closed", 5);
    // What it had missed is said again: the last bytes and the message, not what came before.
    expect(await third.next("finished", 1)).toMatchObject({ stream: 1, bytes: 3009 });
    expect(third.bytesOf(1)).toEqual(whole.choices[0]!.token_ids!.slice(2000));
    third.say({ type: "close", stream: 1 });
    await third.next("closed", 1);
    expect((await post(app(), "/v1/completions", { session_id: id, max_tokens: 1 })).status).toBe(200);
  });

  it("what is asked for in other words after a break begins anew", async () => {
    const { id } = await json<{ id: string }>(await post(app(), "/v1/sessions", {}));
    const first = await Client.connect(app());
    first.say({ type: "open", stream: 1, session_id: id });
    first.push(1, "a");
    first.say({ type: "generate", stream: 1, max_tokens: 1_000_000, temperature: 0 });
    await expect.poll(() => first.bytesOf(1).length, { interval: 2 }).toBeGreaterThan(10);
    first.socket.terminate();
    const second = await Client.connect(app());
    second.say({ type: "open", stream: 1, session_id: id, take_over: true, received_bytes: 0, received_messages: 0 });
    const { said_bytes: said } = await second.next("opened", 1);
    await expect.poll(() => second.bytesOf(1).length).toBe(said);
    second.say({ type: "generate", stream: 1, max_tokens: 12, temperature: 0 });
    await second.next("finished", 1);
    expect(second.bytesOf(1)).toEqual(await greedy("a", said! + 12));
  });

  it("keeps a context as a session, and forks into one", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1 });
    client.push(1, "A snapshot");
    client.say({ type: "snapshot", stream: 1, session_id: "kept-1" });
    expect(await client.next("saved", 1)).toMatchObject({ session_id: "kept-1", bytes: 10, frame: 2 });
    client.say({ type: "snapshot", stream: 1, session_id: "kept-1" });
    expect(await client.next("error", 1)).toMatchObject({ error: { code: "session_conflict", param: "id" }, frame: 3 });
    client.say({ type: "fork", stream: 1, into: 2, session_id: "kept-2" });
    expect(await client.next("forked", 1)).toMatchObject({ into: 2, session_id: "kept-2" });
    expect(await client.next("opened", 2)).toMatchObject({ session_id: "kept-2", bytes: 10 });
    client.push(2, " more");
    client.say({ type: "close", stream: 2 });
    await client.next("closed", 2);
    for (const [session_id, text] of [
      ["kept-1", "A snapshot"],
      ["kept-2", "A snapshot more"],
    ] as const) {
      const body = { session_id, max_tokens: 8, temperature: 0, return_token_ids: true };
      expect((await complete(app(), body)).choices[0]!.token_ids).toEqual(await greedy(text, 8));
    }
  });

  it("scores what is pushed, as /v1/score does", async () => {
    const text = Buffer.from("Call me Ishmael. Some years ago".repeat(30));
    const lines = await (await fetch(`${app().url}/v1/score?return=logprobs`, { method: "POST", body: text })).text();
    const expected = lines
      .split("\n")
      .filter((line) => line.includes('"offset"'))
      .flatMap((line) => (JSON.parse(line) as { logprobs: number[] }).logprobs);
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1, score: true, top_logprobs: 2 });
    for (let start = 0; start < text.length; start += 100) client.push(1, text.subarray(start, start + 100));
    const scores = (): Message[] => client.messages.filter(({ type }) => type === "scores");
    await expect.poll(() => scores().flatMap(({ logprobs }) => logprobs!).length).toBe(text.length);
    expect(scores().flatMap(({ logprobs }) => logprobs)).toEqual(expected);
    let offset = 0;
    for (const message of scores()) {
      expect(message.offset).toBe(offset);
      expect(message.top_logprobs).toHaveLength(message.logprobs!.length);
      expect(message.top_logprobs!.every((top) => top.length === 2 && top[0]!.logprob >= top[1]!.logprob)).toBe(true);
      offset += message.logprobs!.length;
    }
    client.say({ type: "generate", stream: 1, max_tokens: 5, temperature: 0 });
    await client.next("finished", 1);
    expect(client.bytesOf(1)).toEqual(await greedy([...text], 5));
  });

  it("generates no further than its window, without holding a slot, and others go on", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1, window: 100 });
    client.push(1, "slow");
    client.say({ type: "generate", stream: 1, max_tokens: 1000, temperature: 0 });
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(100);
    await untilIdle(app());
    expect(client.bytesOf(1)).toHaveLength(100);
    client.say({ type: "open", stream: 2 });
    client.push(2, "fast");
    client.say({ type: "generate", stream: 2, max_tokens: 500, temperature: 0 });
    await client.next("finished", 2);
    expect(client.messages.some(({ type, stream }) => type === "finished" && stream === 1)).toBe(false);
    client.say({ type: "ack", stream: 1, bytes: 5000, messages: 0 });
    expect(await client.next("error", 1)).toMatchObject({ error: { param: "bytes" } });
    while (!client.messages.some(({ type, stream }) => type === "finished" && stream === 1)) {
      client.say({ type: "ack", stream: 1, bytes: client.bytesOf(1).length, messages: 0 });
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(client.bytesOf(1)).toEqual(await greedy("slow", 1000));
  });

  it("cancels what waits for its turn or its window as well", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1, window: 50 });
    client.push(1, "x");
    for (let i = 0; i < 3; i++) client.say({ type: "generate", stream: 1, max_tokens: 1000, temperature: 0 });
    client.push(1, "yz");
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(50);
    client.say({ type: "cancel", stream: 1 });
    client.say({ type: "ack", stream: 1, bytes: 50, messages: 0 }); // for what was made already
    for (let i = 1; i <= 3; i++)
      expect(await client.next("finished", 1, i)).toMatchObject({ finish_reason: "cancelled" });
    const said = client.bytesOf(1).length;
    client.say({ type: "ack", stream: 1, bytes: said, messages: 3 });
    client.say({ type: "generate", stream: 1, max_tokens: 9, temperature: 0 });
    await client.next("finished", 1, 4);
    const context = [...Buffer.from("x"), ...client.bytesOf(1).slice(0, said), ...Buffer.from("yz")];
    expect(client.bytesOf(1).slice(said)).toEqual(await greedy(context, 9));
  });

  it("frees every slot when the client goes", async () => {
    const client = await Client.connect(app());
    for (let stream = 0; stream < 8; stream++) {
      client.say({ type: "open", stream });
      client.push(stream, "x");
      client.say({ type: "generate", stream, max_tokens: 1_000_000 });
    }
    await expect.poll(async () => (await app().engine.stats()).numRunning).toBe(4);
    client.socket.terminate();
    await untilIdle(app());
    await expect
      .poll(async () => (await json<{ server_load: number }>(await fetch(`${app().url}/load`))).server_load)
      .toBe(0);
  });

  it("says what is wrong and goes on", async () => {
    const client = await Client.connect(app());
    const cases: [sent: string | Buffer, stream: number | null, code: string, param: string | null][] = [
      ["not json", null, "invalid_request", null],
      ["[]", null, "invalid_request", "type"],
      ['{"type": "dance", "stream": 1}', 1, "invalid_request", "type"],
      ['{"type": "open"}', null, "invalid_request", "stream"],
      ['{"type": "open", "stream": -1}', -1, "invalid_request", "stream"],
      ['{"type": "open", "stream": 1, "colour": "red"}', 1, "invalid_request", "colour"],
      ['{"type": "open", "stream": 1, "session_id": "none"}', 1, "session_not_found", "session_id"],
      ['{"type": "generate", "stream": 5}', 5, "invalid_request", "stream"],
      ['{"type": "cancel", "stream": 5}', 5, "invalid_request", "stream"],
      [Buffer.of(1, 0), null, "invalid_request", null],
      [Buffer.of(9, 0, 0, 0, 65), 9, "invalid_request", "stream"],
      ['{"type": "open", "stream": 3}', 3, "", null],
      ['{"type": "open", "stream": 3}', 3, "invalid_request", "stream"],
      ['{"type": "generate", "stream": 3, "temperature": 9}', 3, "invalid_request", "temperature"],
      ['{"type": "generate", "stream": 3, "max_tokens": 10000000}', 3, "invalid_request", "max_tokens"],
      [
        '{"type": "generate", "stream": 3, "structured_outputs": {"regex": "("}}',
        3,
        "invalid_request",
        "structured_outputs.regex",
      ],
    ];
    for (const [sent, stream, code, param] of cases) {
      const before = client.messages.length;
      client.socket.send(sent);
      await expect.poll(() => client.messages.length, { interval: 3 }).toBe(before + 1);
      const message = client.messages[before]!;
      if (code === "") expect(message.type).toBe("opened");
      else expect(message).toMatchObject({ type: "error", stream, error: { code, param } });
    }
    client.push(3, "still here");
    client.say({ type: "generate", stream: 3, max_tokens: 5, temperature: 0 });
    await client.next("finished", 3);
    expect(client.bytesOf(3)).toEqual(await greedy("still here", 5));
  });

  it("bounds streams and frames", async () => {
    const client = await Client.connect(app());
    for (let stream = 0; stream <= 64; stream++) client.say({ type: "open", stream });
    expect(await client.next("error", 64)).toMatchObject({ error: { code: "overloaded" } });
    client.push(0, new Uint8Array(1 << 20));
    await expect.poll(() => client.closed?.code).toBe(1009);
  });

  it("takes megabytes in any pieces without losing a byte", async () => {
    const client = await Client.connect(app());
    const history = Uint8Array.from({ length: 300_000 }, (_, i) => (Math.imul(i, 0x9e3779b1) >>> 11) & 0xff);
    client.say({ type: "open", stream: 1 });
    for (let start = 0, size = 1; start < history.length; start += size, size = (size * 7) % 50_021) {
      client.push(1, history.subarray(start, start + size));
    }
    client.say({ type: "generate", stream: 1, max_tokens: 10, temperature: 0 });
    expect(await client.next("finished", 1)).toMatchObject({ bytes: 300_010 });
    expect(client.bytesOf(1)).toEqual(await greedy([...history], 10));
  });
});

describe("a reader that pauses", () => {
  it("gets everything afterwards, and others go on meanwhile", async () => {
    const slow = await Client.connect(app());
    slow.say({ type: "open", stream: 1 });
    slow.push(1, "go");
    slow.say({ type: "generate", stream: 1, max_tokens: 3000, temperature: 0 });
    await expect.poll(() => slow.bytesOf(1).length, { interval: 2 }).toBeGreaterThan(0);
    slow.socket.pause();
    const other = await greedy("meanwhile", 50);
    expect(other).toHaveLength(50);
    slow.socket.resume();
    await slow.next("finished", 1);
    expect(slow.bytesOf(1)).toEqual(await greedy("go", 3000));
  });
});

describe("keeping alive and shutting down", () => {
  const pinging = useApp("mamba2-transformer", { pingSeconds: 0.1 });
  it("pings, and drops who does not answer", async () => {
    const answering = await Client.connect(pinging());
    const silent = await Client.connect(pinging(), { autoPong: false });
    await expect.poll(() => silent.closed?.code).toBe(1006);
    expect(answering.closed).toBeUndefined();
  });

  it("says that it goes away", async () => {
    const client = await Client.connect(pinging());
    await pinging().server.close();
    await expect.poll(() => client.closed).toEqual({ code: 1001, reason: "The server is shutting down." });
  });
});

describe("long pushes", () => {
  it("are reported on while the model is behind, and once when it is not any longer", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1, progress: 0.1 });
    const part = Buffer.alloc(60_000, "never the same again, ");
    for (let i = 0; i < 4; i++) client.push(1, part);
    client.push(1, "!");
    const isDone = (): boolean => client.messages.some((message) => message.prefilled_bytes === 240_001);
    await expect.poll(isDone).toBe(true);
    await untilIdle(app());
    const reports = client.messages.filter(({ type }) => type === "progress");
    for (const [i, { received_bytes: got, prefilled_bytes: fed }] of reports.entries()) {
      expect(fed).toBeLessThanOrEqual(got!);
      expect(got).toBeLessThanOrEqual(240_001);
      if (i > 0) expect(fed).toBeGreaterThanOrEqual(reports[i - 1]!.prefilled_bytes!);
    }
    client.say({ type: "generate", stream: 1, max_tokens: 8, temperature: 0 });
    await client.next("finished", 1);
    const prompt = [...Buffer.concat([part, part, part, part]), 33];
    expect(client.bytesOf(1)).toEqual(await greedy(prompt, 8));
    const count = reports.length;
    await new Promise((resolve) => setTimeout(resolve, 250));
    expect(client.messages.filter(({ type }) => type === "progress").length).toBe(count);
  });

  it("end where a position table does, with an error that names the bound; the context stays as it was", async () => {
    const client = await Client.connect(bounded());
    client.say({ type: "open", stream: 1, progress: 0.1 });
    client.push(1, Buffer.alloc(80));
    await client.next("ack", 1);
    client.push(1, Buffer.alloc(17));
    const { error } = await client.next("error", 1);
    expect(error!.code).toBe("context_length_exceeded");
    expect(error!.message).toContain("at most 96 bytes, but the prompt has 97");
    client.say({ type: "generate", stream: 1, max_tokens: 17 });
    expect((await client.next("error", 1, 2)).error!.code).toBe("context_length_exceeded");
    client.say({ type: "generate", stream: 1, max_tokens: 16, ignore_eos: true });
    expect(await client.next("finished", 1)).toMatchObject({ finish_reason: "length", bytes: 96 });
    const last = client.messages.filter(({ type }) => type === "progress").at(-1);
    expect(last).toMatchObject({ received_bytes: 80, prefilled_bytes: 80 });
  });
});
