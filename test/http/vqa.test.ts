import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { readGolden } from "../test-bundles.js";
import { ask, json, post } from "./api.js";
import { type TestApp, untilIdle, useApp } from "./test-app.js";

interface Rating {
  readonly answer: string;
  readonly probability: number;
  readonly logprob: number;
}
interface Answers {
  readonly id: string;
  readonly object: string;
  readonly image: { format: string; width: number; height: number; bytes: number; sha256: string };
  readonly answers: (Rating & { index: number; question: string; top_answers: Rating[] })[];
  readonly usage: {
    prompt_tokens: number;
    completion_tokens: number;
    prompt_tokens_details: { cached_tokens: number };
  };
  readonly timings: { image_decode_ms: number; image_prefill_ms: number | null; total_ms: number };
}

const imageFirst = useApp("vqa");
const published = useApp("vqa-published", { prefixCacheBytes: 0 });
const blind = useApp("mamba2-transformer");
const jpeg = useApp("vqa-jpeg");
const apps = { vqa: imageFirst, "vqa-published": published, "vqa-jpeg": jpeg };
const golden = readGolden("vqa").asked!;
const [first] = golden;

/** Form with the file as it is; questions in order. */
function form(image: string, questions: readonly string[], more: Readonly<Record<string, string>> = {}): FormData {
  const data = new FormData();
  for (const question of questions) data.append("question", question);
  data.append("image", new Blob([Buffer.from(image, "base64")]), "x.png");
  for (const [key, value] of Object.entries(more)) data.append(key, value);
  return data;
}

async function askForm(app: TestApp, data: FormData): Promise<Answers> {
  const response = await fetch(`${app.url}/v1/vqa`, { method: "POST", body: data });
  const body = await response.json();
  expect(response.status, JSON.stringify(body)).toBe(200);
  return body as Answers;
}

/** What does not depend on time and chance. */
const lasting = ({ answers }: Answers) =>
  answers.map(({ question, answer, probability, logprob, top_answers }) => ({
    question,
    answer,
    probability,
    logprob,
    top_answers,
  }));

describe.each(Object.keys(apps) as (keyof typeof apps)[])("POST /v1/vqa on %s", (name) => {
  const app = apps[name];
  const cases = readGolden(name).asked!;

  it("gives PyTorch's log-prob of every answer, and the most likely one", async () => {
    for (const { image, question, logprobs } of cases) {
      const body = await ask<Answers>(app(), "/v1/vqa", { image, question, top_answers: 28 });
      const [answer] = body.answers;
      expect(answer!.top_answers).toHaveLength(Object.keys(logprobs).length);
      for (const { answer: text, logprob } of answer!.top_answers) {
        expect(Math.abs(logprob - logprobs[text]!)).toBeLessThanOrEqual(1e-4);
      }
      const best = Object.entries(logprobs).sort((a, b) => b[1] - a[1])[0]![0];
      expect(answer).toMatchObject({ index: 0, question, ...answer!.top_answers[0] });
      expect(answer!.answer).toBe(best);
      const total = Object.values(logprobs).reduce((sum, logprob) => sum + Math.exp(logprob), 0);
      expect(answer!.probability).toBeCloseTo(Math.exp(logprobs[best]!) / total, 4);
      expect(answer!.top_answers.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 9);
    }
  });

  it("answers many questions as if each were asked alone, cold and from the cache", async () => {
    const { image } = cases.at(-1)!;
    const questions = Array.from({ length: 20 }, (_, i) => `${"Is there a thing? ".repeat(i % 3)}number ${i}`);
    const together = await ask<Answers>(app(), "/v1/vqa", { image, questions });
    expect(together.answers.map(({ index }) => index)).toEqual([...questions.keys()]);
    for (const [i, question] of questions.entries()) {
      const alone = await ask<Answers>(app(), "/v1/vqa", { image, question });
      expect(lasting(alone)[0]).toEqual(lasting(together)[i]);
    }
  });

  it("takes the same as a form, JSON with base64 and JSON with a data: URL", async () => {
    const { image } = cases[0]!;
    const questions = ["Is it red?", "what"];
    const fromForm = await askForm(app(), form(image, questions, { top_answers: "2", request_id: "mine" }));
    const plain = await ask<Answers>(app(), "/v1/vqa", { image, questions, top_answers: 2 });
    const url = `data:image/png;base64,${image}`;
    const fromUrl = await ask<Answers>(app(), "/v1/vqa", { image: url, questions, top_answers: 2 });
    expect(fromForm.id).toBe("vqa-mine");
    expect(lasting(fromForm)).toEqual(lasting(plain));
    expect(lasting(fromUrl)).toEqual(lasting(plain));
    expect(fromForm.image).toEqual(plain.image);
    const file = Buffer.from(image, "base64");
    const sha256 = createHash("sha256").update(file).digest("hex");
    expect(plain.image).toEqual({ format: "png", width: 90, height: 60, bytes: file.length, sha256 });
  });

  it("takes an empty number of a form as left out", async () => {
    const { image } = cases[0]!;
    const plain = await askForm(app(), form(image, ["what"]));
    const empty = await askForm(app(), form(image, ["what"], { top_answers: "", priority: "" }));
    expect(lasting(empty)).toEqual(lasting(plain));
  });
});

describe("the image's state", () => {
  it("is computed once for all questions, and found by later requests with the same salt", async () => {
    const body = { image: golden.at(-1)!.image, questions: ["a", "b", "c"], cache_salt: "state" };
    const cold = await ask<Answers>(imageFirst(), "/v1/vqa", body);
    const segment = Math.ceil((3 * 62 * 41 + 2) / 8) * 8;
    const question = 8 + 1;
    expect(cold.usage).toMatchObject({ prompt_tokens: segment + 3 * question, completion_tokens: 3 });
    expect(cold.usage.prompt_tokens_details.cached_tokens).toBe(0);
    expect(cold.timings.image_prefill_ms).toBeGreaterThan(0);
    const warm = await ask<Answers>(imageFirst(), "/v1/vqa", body);
    expect(warm.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(segment - 16);
    expect(lasting(warm)).toEqual(lasting(cold));
    const other = await ask<Answers>(imageFirst(), "/v1/vqa", { ...body, cache_salt: "another" });
    expect(other.usage.prompt_tokens_details.cached_tokens).toBe(0);
  });

  it("is not there in the published order: every question is a pass of its own", async () => {
    const { image } = readGolden("vqa-published").asked![0]!;
    const { usage, timings } = await ask<Answers>(published(), "/v1/vqa", { image, questions: ["a", "b"] });
    expect(usage.prompt_tokens).toBe(2 * (3 * 12 * 9 + 2 + 3 + 3 + 1));
    expect(timings.image_prefill_ms).toBeNull();
  });
});

describe("a server with all slots taken", () => {
  const busy = useApp("vqa", { slots: 1, maxWaiting: 1 });
  const numWaiting = async (): Promise<number> => (await busy().engine.stats()).numWaiting;

  it("lets one request wait, refuses the next, and forgets one whose client goes away", async () => {
    const [running, waiting] = [new AbortController(), new AbortController()];
    const endless = post(
      busy(),
      "/v1/completions",
      { prompt: "a", max_tokens: 1e6, stream: true },
      { signal: running.signal },
    );
    await endless;
    const asked = { image: first!.image, question: "what" };
    const pending = post(busy(), "/v1/vqa", asked, { signal: waiting.signal }).catch(() => {});
    await expect.poll(numWaiting).toBe(1);
    const refused = await post(busy(), "/v1/vqa", asked);
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe("1");
    waiting.abort();
    await pending;
    await expect.poll(numWaiting).toBe(0);
    running.abort();
    await untilIdle(busy());
    const { answers } = await ask<Answers>(busy(), "/v1/vqa", { image: first!.image, questions: ["a", "b", "c"] });
    expect(answers).toHaveLength(3); // more questions than the queue holds
    await expect
      .poll(async () => (await json<{ server_load: number }>(await fetch(`${busy().url}/load`))).server_load)
      .toBe(0);
  });
});

describe("metrics", () => {
  it("count images and questions", async () => {
    const read = async (name: string): Promise<number> => {
      const text = await (await fetch(`${imageFirst().url}/metrics`)).text();
      return Number(new RegExp(`^${name}{.*} (\\S+)$`, "m").exec(text)![1]);
    };
    const names = ["mblm_images_decoded_total", "mblm_image_decode_seconds_count", "mblm_vqa_questions_total"];
    const before = await Promise.all(names.map(read));
    await ask(imageFirst(), "/v1/vqa", { image: first!.image, questions: ["a", "b", "c"] });
    const after = await Promise.all(names.map(read));
    expect(after.map((value, i) => value - before[i]!)).toEqual([1, 1, 3]);
  });
});

describe("a model that sees no images", () => {
  it("says so", async () => {
    for (const body of [JSON.stringify({ image: first!.image, question: "a" }), form(first!.image, ["a"])]) {
      const headers = typeof body === "string" ? { "content-type": "application/json" } : undefined;
      const response = await fetch(`${blind().url}/v1/vqa`, { method: "POST", body, ...(headers && { headers }) });
      expect(response.status).toBe(400);
      expect((await json(response)).error).toMatchObject({ param: "model" });
    }
  });
});
