import { describe, expect, it } from "vitest";
import { readGolden } from "../test-bundles.js";
import { type Choice, complete, post, stream } from "./api.js";
import { postCompletion, untilIdle, useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const withEos = useApp("with-eos");
const LONG = "The quick brown fox jumps over the lazy dog. ".repeat(8);

describe("echo", () => {
  it("with logprobs gives PyTorch's log-prob of every prompt byte", async () => {
    const { ids, logprobs: expected } = readGolden("mamba2-transformer").scored;
    const { choices, usage } = await complete(app(), { prompt: ids, max_tokens: 0, echo: true, logprobs: 2 });
    const { logprobs, finish_reason, text } = choices[0]!;
    expect(finish_reason).toBe("length");
    expect(text).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(ids)));
    expect(logprobs!.token_logprobs[0]).toBeNull();
    expect(logprobs!.top_logprobs[0]).toBeNull();
    expect(logprobs!.token_logprobs).toHaveLength(ids.length);
    for (const [i, logprob] of expected.entries()) {
      if (i > 0) expect(Math.abs(logprobs!.token_logprobs[i]! - logprob)).toBeLessThanOrEqual(1e-4);
    }
    expect(logprobs!.text_offset).toEqual(ids.map((_, i) => i));
    expect(usage).toMatchObject({ prompt_tokens: ids.length, completion_tokens: 0 });
  });

  it("puts the prompt before the output and scores both alike", async () => {
    const body = { prompt: LONG, max_tokens: 20, seed: 1, logprobs: 3, return_token_ids: true };
    const plain = (await complete(app(), body)).choices[0]!;
    const echoed = (await complete(app(), { ...body, echo: true })).choices[0]!;
    expect(echoed.text).toBe(LONG + plain.text);
    expect(echoed.token_ids).toEqual(plain.token_ids);
    expect(echoed.logprobs!.token_logprobs.slice(LONG.length)).toEqual(plain.logprobs!.token_logprobs);
    expect(echoed.logprobs!.top_logprobs.slice(LONG.length)).toEqual(plain.logprobs!.top_logprobs);
    // The same bytes as a prompt have the same log-probs as when they were generated.
    const whole = [...Buffer.from(LONG), ...plain.token_ids!];
    const scored = (await complete(app(), { prompt: whole, max_tokens: 0, echo: true, logprobs: 3 })).choices[0]!;
    expect(scored.logprobs!.token_logprobs.slice(LONG.length)).toEqual(plain.logprobs!.token_logprobs);
  });

  it("in a stream the first chunk brings the prompt", async () => {
    const body = { prompt: ["first prompt", "héllo"], n: 2, max_tokens: 9, seed: 4, echo: true, logprobs: 1 };
    const whole = await complete(app(), body);
    const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
    for (const choice of whole.choices) {
      const own = pieces.filter(({ index }) => index === choice.index);
      expect(own[0]!.text.startsWith(choice.index < 2 ? "first prompt" : "héllo")).toBe(true);
      expect(own.map(({ text }) => text).join("")).toBe(choice.text);
      expect(own.flatMap(({ logprobs }) => logprobs?.token_logprobs ?? [])).toEqual(choice.logprobs!.token_logprobs);
      expect(own.flatMap(({ logprobs }) => logprobs?.text_offset ?? [])).toEqual(choice.logprobs!.text_offset);
    }
  });

  it("joins a character that begins in the prompt and ends in the output", async () => {
    const body = { prompt: [0xe2, 0x82], max_tokens: 1, allowed_token_ids: [0xac], echo: true };
    expect((await complete(app(), body)).choices[0]!.text).toBe("€");
    const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
    expect(pieces.map(({ text }) => text).join("")).toBe("€");
  });

  it("with max_tokens 0 and no logprobs runs nothing", async () => {
    const { choices } = await complete(app(), { prompt: "abc", max_tokens: 0, echo: true });
    expect(choices[0]).toMatchObject({ text: "abc", logprobs: null, finish_reason: "length" });
  });
});

describe("prompt_logprobs", () => {
  it("has vLLM's form: id → log-prob, rank and spelling, null first", async () => {
    const body = { prompt: "hello there", max_tokens: 2, prompt_logprobs: 3, echo: true, logprobs: 3 };
    const { prompt_logprobs: scores, logprobs } = (await complete(app(), body)).choices[0]!;
    expect(scores).toHaveLength(11);
    expect(scores![0]).toBeNull();
    for (const [i, byte] of [...Buffer.from("hello there")].entries()) {
      if (i === 0) continue;
      const entry = scores![i]![byte]!;
      expect(entry.logprob).toBe(logprobs!.token_logprobs[i]);
      expect(entry.decoded_token).toBe(String.fromCharCode(byte));
      const ranked = Object.values(scores![i]!).filter(({ rank }) => rank !== null);
      expect(ranked.map(({ rank }) => rank).sort()).toEqual([1, 2, 3]);
      expect(Math.max(...ranked.map(({ logprob }) => logprob))).toBe(ranked.find(({ rank }) => rank === 1)!.logprob);
    }
  });

  it("comes with every choice, though the prompt is computed once", async () => {
    const { choices } = await complete(app(), { prompt: LONG, n: 3, seed: 1, prompt_logprobs: 0 });
    for (const choice of choices) expect(choice.prompt_logprobs).toEqual(choices[0]!.prompt_logprobs);
    expect(choices[0]!.prompt_logprobs).toHaveLength(LONG.length);
    expect(new Set(choices.map(({ text }) => text)).size).toBe(3);
  });
});

describe("several choices", () => {
  it("each is what its seed gives alone", async () => {
    const body = { prompt: LONG, max_tokens: 30, temperature: 1.2, seed: 7, return_token_ids: true };
    const forked = (await complete(app(), { ...body, n: 6 })).choices;
    const again = (await complete(app(), { ...body, n: 2 })).choices;
    expect(again.map(({ token_ids }) => token_ids)).toEqual(forked.slice(0, 2).map(({ token_ids }) => token_ids));
    expect((await complete(app(), body)).choices[0]!.token_ids).toEqual(forked[0]!.token_ids);
  });

  it("best_of answers with the choices of the highest mean log-prob", async () => {
    const body = { prompt: ["one ", "two "], max_tokens: 12, seed: 9, temperature: 1.5, logprobs: 0 };
    const all = (await complete(app(), { ...body, n: 5 })).choices;
    const best = await complete(app(), { ...body, n: 2, best_of: 5 });
    const mean = ({ logprobs }: Choice): number =>
      logprobs!.token_logprobs.reduce((sum: number, x) => sum + x!, 0) / logprobs!.token_logprobs.length;
    const expected = [all.slice(0, 5), all.slice(5)].flatMap((group) =>
      group.sort((a, b) => mean(b) - mean(a)).slice(0, 2),
    );
    expect(best.choices.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
    expect(best.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(best.usage).toMatchObject({ prompt_tokens: 8, completion_tokens: 2 * 5 * 12 });
    expect((await complete(app(), { ...body, logprobs: null, n: 1, best_of: 2 })).choices[0]!.logprobs).toBeNull();
  });
});

describe("what ended an output", () => {
  it("is the stop text, its bytes, the id, or nothing", async () => {
    const force = (text: string) => ({ prompt: "a", max_tokens: 50, structured_outputs: { choice: [text] } });
    const cases: [object, Partial<Choice>][] = [
      [
        { ...force("one, two"), stop: ", " },
        { text: "one", stop_reason: ", ", finish_reason: "stop" },
      ],
      [
        { ...force("one € two"), stop: [[0x82]] },
        { text: "one \ufffd", stop_reason: [0x82], finish_reason: "stop" },
      ],
      [
        { ...force("one"), stop: "x" },
        { text: "one", stop_reason: null, finish_reason: "stop" },
      ],
      [
        { prompt: "a", max_tokens: 3 },
        { stop_reason: null, finish_reason: "length" },
      ],
      [
        { prompt: "a", max_tokens: 9, allowed_token_ids: [66], stop_token_ids: [66] },
        { text: "", stop_reason: 66, finish_reason: "stop" },
      ],
      [
        {
          prompt: "a",
          max_tokens: 9,
          allowed_token_ids: [66],
          stop_token_ids: [66],
          min_tokens: 0,
          include_stop_str_in_output: true,
        },
        { text: "B", stop_reason: 66 },
      ],
    ];
    for (const [body, expected] of cases) expect((await complete(app(), body)).choices[0]).toMatchObject(expected);
    const eos = { prompt: "a", max_tokens: 9, allowed_token_ids: [256], return_token_ids: true };
    expect((await complete(withEos(), eos)).choices[0]).toMatchObject({ stop_reason: 256, token_ids: [], text: "" });
    const ignored = (await complete(withEos(), { ...eos, ignore_eos: true })).choices[0]!;
    expect(ignored).toMatchObject({ finish_reason: "length", token_ids: Array(9).fill(256) });
  });
});

describe("other options", () => {
  it("null means that a field is left out", async () => {
    const fields = { prompt: "abc", seed: 5, return_token_ids: true };
    const nulls = Object.fromEntries(
      [
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "n",
        "stream",
        "echo",
        "logprobs",
        "stop",
        "logit_bias",
        "best_of",
      ]
        .concat(["suffix", "presence_penalty", "stream_options", "user", "response_format", "stop_token_ids", "utf8"])
        .map((name) => [name, null]),
    );
    const [plain, given] = [await complete(app(), fields), await complete(app(), { ...fields, ...nulls })];
    expect(given.choices).toEqual(plain.choices);
  });

  it("allowed_token_ids are the only ones generated", async () => {
    const body = {
      prompt: "a",
      max_tokens: 200,
      temperature: 2,
      allowed_token_ids: [48, 49, 97],
      return_token_ids: true,
    };
    expect(new Set((await complete(app(), body)).choices[0]!.token_ids)).toEqual(new Set([48, 49, 97]));
  });

  it("truncate_prompt_tokens keeps the end of the prompt", async () => {
    const body = { max_tokens: 20, temperature: 0, return_token_ids: true };
    const short = await complete(app(), { ...body, prompt: "end of it" });
    const cut = await complete(app(), { ...body, prompt: `${LONG}end of it`, truncate_prompt_tokens: 9 });
    expect(cut.choices).toEqual(short.choices);
    expect(cut.usage).toMatchObject({ prompt_tokens: 9 });
  });

  it("request_id names the answer", async () => {
    expect((await complete(app(), { prompt: "a", request_id: "mine.1" })).id).toBe("cmpl-mine.1");
    const pieces = await stream(app(), { prompt: "a", request_id: "mine.2" });
    expect(new Set(pieces.map(({ id }) => id))).toEqual(new Set(["cmpl-mine.2"]));
  });

  it("requests of one request_id do not mix", async () => {
    const bodies = ["alpha ", "beta "].map((text) => ({
      prompt: text.repeat(30),
      n: 3,
      max_tokens: 10,
      seed: 1,
      request_id: "same",
    }));
    const alone = [];
    for (const body of bodies) alone.push((await complete(app(), body)).choices);
    const together = await Promise.all(bodies.map(async (body) => (await complete(app(), body)).choices));
    expect(together).toEqual(alone);
  });

  it.each([1, 7, 1000])(
    "stream_interval %i: the first chunk at once, the others at least that long, all bytes",
    async (interval) => {
      const body = { prompt: "a", max_tokens: 60, seed: 2, return_token_ids: true };
      const whole = (await complete(app(), body)).choices[0]!;
      const pieces = (await stream(app(), { ...body, stream_interval: interval })).flatMap(({ choices }) => choices);
      expect(pieces.flatMap(({ token_ids }) => token_ids!)).toEqual(whole.token_ids);
      expect(pieces.map(({ text }) => text).join("")).toBe(whole.text);
      for (const piece of pieces.slice(1, -1)) expect(piece.token_ids!.length).toBeGreaterThanOrEqual(interval);
      expect(pieces[0]!.token_ids!.length).toBeGreaterThan(0);
      if (interval === 1000) expect(pieces).toHaveLength(2);
    },
  );

  it("cached_tokens tells what was reused, and cache_salt keeps it apart", async () => {
    const cached = async (prompt: string, salt?: string): Promise<number> =>
      (await complete(app(), { prompt, max_tokens: 1, ...(salt ? { cache_salt: salt } : {}) })).usage!
        .prompt_tokens_details.cached_tokens;
    const prompt = `once upon a time ${LONG}`;
    expect(await cached(prompt, "x")).toBe(0);
    expect(await cached(prompt, "x")).toBe(Math.floor((prompt.length - 1) / 4) * 4);
    expect(await cached(prompt, "y")).toBe(0);
    expect(await cached(prompt)).toBe(0);
  });

  it("a waiting request of a lower priority value starts first", async () => {
    const one = app();
    const order: string[] = [];
    const run = async (name: string, priority: number): Promise<void> => {
      await (await post(one, "/v1/completions", { prompt: "a", max_tokens: 30, priority })).json();
      order.push(name);
    };
    const waiting = (count: number) => expect.poll(async () => (await one.engine.stats()).numWaiting).toBe(count);
    // Every slot has a stream that ends only when it is told to; then one slot is free, for one after the other.
    const busy = Array.from({ length: 4 }, () => new AbortController());
    const endless = { prompt: "a", max_tokens: 1e6, ignore_eos: true, stream: true };
    const open = busy.map(({ signal }) => postCompletion(one, endless, { signal }));
    for (const answer of await Promise.all(open)) expect(answer.status).toBe(200);
    const late = run("late", 5);
    await waiting(1);
    const early = run("early", -5);
    await waiting(2);
    busy[0]!.abort();
    await Promise.all([late, early]);
    for (const controller of busy) controller.abort();
    await untilIdle(one);
    expect(order).toEqual(["early", "late"]);
  });
});
