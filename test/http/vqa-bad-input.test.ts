import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { deflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { json, post } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("vqa", { maxImageBytes: 200_000, maxQuestions: 8 });
const images = fileURLToPath(new URL("../.images/", import.meta.url));
const jpeg = readFileSync(`${images}320x480-q75-420.jpg`);
const png = readFileSync(`${images}131x97-type6-8bit.png`);
const webp = readFileSync(`${images}320x480-q80.webp`);

/** A PNG that claims a size and has few bytes: one of zeros is a thousand times smaller than its pixels. */
function pngOf(width: number, height: number, bits = 8, colourType = 0, extra: readonly Buffer[] = []): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([bits, colourType], 8);
  const lineBytes = 1 + Math.ceil((width * bits) / 8) * (colourType === 2 ? 3 : 1);
  const lines = Buffer.alloc(Math.min(lineBytes * height, 1_000_000));
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    ...extra,
    chunk("IDAT", deflateSync(lines)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function chunk(kind: string, content: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(kind, "latin1"), content]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(content.length);
  sum.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, sum]);
}

/** Bit by bit, as PNG defines it. */
function crc32(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function damaged(file: Buffer, at: number): Buffer {
  const copy = Buffer.from(file);
  copy.fill(0x5a, at, at + 64);
  return copy;
}

const bombs: [name: string, file: Buffer, message: RegExp][] = [
  ["a PNG of 40 000 × 40 000 pixels in a few kB", pngOf(40_000, 40_000, 1), /40000 × 40000 pixels; at most 25000000/],
  ["a PNG of 40 megapixels", pngOf(8000, 5000), /8000 × 5000 pixels; at most 25000000/],
  ["a PNG that is wider than anything", pngOf(0x7fffffff, 1), /png file is damaged|pixels/],
  ["an empty PNG", pngOf(0, 0), /png file is damaged/],
];
const broken: [name: string, file: Buffer, message: RegExp][] = [
  ["a JPEG cut in the middle", jpeg.subarray(0, jpeg.length >> 1), /jpeg file is damaged/],
  ["a JPEG cut at its end", jpeg.subarray(0, -20), /jpeg file is damaged/],
  ["a JPEG of nothing but its start", jpeg.subarray(0, 3), /jpeg file is damaged/],
  ["a JPEG with damaged tables", damaged(jpeg, 30), /jpeg file is damaged/],
  ["a PNG cut in the middle", png.subarray(0, png.length >> 1), /png file is damaged/],
  ["a PNG with a wrong checksum", damaged(png, png.length >> 1), /png file is damaged/],
  ["a WebP cut in the middle", webp.subarray(0, webp.length >> 1), /webp file is damaged/],
  ["a PNG's magic before a JPEG", Buffer.concat([png.subarray(0, 8), jpeg]), /png file is damaged/],
  ["a 16-bit PNG with a transparent colour", pngOf(4, 4, 16, 2, [chunk("tRNS", Buffer.alloc(6))]), /not supported/],
];
const strangers: [name: string, file: Buffer, message: RegExp][] = [
  ["a GIF", Buffer.from("GIF89a\u0001\u0000\u0001\u0000", "latin1"), /no JPEG, PNG or WebP/],
  ["an SVG", Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), /no JPEG, PNG or WebP/],
  ["a TIFF", Buffer.from("II*\u0000\u0008\u0000\u0000\u0000", "latin1"), /no JPEG, PNG or WebP/],
  ["a PDF that goes on as a JPEG", Buffer.concat([Buffer.from("%PDF-1.4\n"), jpeg]), /no JPEG, PNG or WebP/],
  ["an empty file", Buffer.alloc(0), /image: /],
  ["text", Buffer.from("hello"), /no JPEG, PNG or WebP/],
];

function form(parts: readonly [name: string, value: string | Buffer][]): FormData {
  const data = new FormData();
  for (const [name, value] of parts) {
    if (typeof value === "string") data.append(name, value);
    else data.append(name, new Blob([Uint8Array.from(value)]), "x.png");
  }
  return data;
}

async function refusal(response: Response) {
  const body = await json(response);
  return { status: response.status, ...body.error };
}

describe("images that are refused", () => {
  it.each([...bombs, ...broken, ...strangers])("%s", async (_, file, message) => {
    const before = process.memoryUsage.rss();
    const data = form([
      ["question", "what"],
      ["image", file],
    ]);
    for (const response of [
      await fetch(`${app().url}/v1/vqa`, { method: "POST", body: data }),
      await post(app(), "/v1/vqa", { image: file.toString("base64"), question: "what" }),
    ]) {
      const { status, param, message: said } = await refusal(response);
      expect([status, param]).toEqual([400, "image"]);
      expect(said).toMatch(message);
    }
    expect(process.memoryUsage.rss() - before).toBeLessThan(100 * 2 ** 20);
  });

  it("a file above the limit, in either form, without reading it to its end", async () => {
    const large = Buffer.concat([jpeg, Buffer.alloc(200_001 - jpeg.length)]);
    for (const response of [
      await fetch(`${app().url}/v1/vqa`, {
        method: "POST",
        body: form([
          ["question", "a"],
          ["image", large],
        ]),
      }),
      await post(app(), "/v1/vqa", { image: large.toString("base64"), question: "a" }),
    ]) {
      expect(await refusal(response)).toMatchObject({ status: 413, param: "image", code: "body_too_large" });
    }
    const fits = Buffer.concat([jpeg, Buffer.alloc(200_000 - jpeg.length)]); // what follows the image is not looked at
    expect((await post(app(), "/v1/vqa", { image: fits.toString("base64"), question: "a" })).status).toBe(200);
  });
});

const image = readFileSync(`${images}1x1-type0-8bit.png`).toString("base64");
const LONG = "x".repeat(206);

describe("JSON that is refused", () => {
  it.each<[param: string | null, body: unknown, message: RegExp]>([
    ["image", { question: "a" }, /required/],
    ["image", { image: 5, question: "a" }, /image/],
    ["image", { image: "", question: "a" }, /empty/],
    ["image", { image: "not base64!", question: "a" }, /not base64/],
    ["image", { image: `${image.slice(0, 60)}\n${image.slice(60)}`, question: "a" }, /not base64/],
    ["image", { image: "AAAAA", question: "a" }, /not base64/],
    ["image", { image: `data:text/plain;base64,${image}`, question: "a" }, /data:image/],
    ["image", { image: `data:image/png,${image}`, question: "a" }, /base64/],
    ["image", { image: "data:image/png;base64", question: "a" }, /data:image/],
    ["image", { image: "https://example.org/x.png", question: "a" }, /not base64/],
    ["question", { image }, /required/],
    ["question", { image, question: "" }, /empty/],
    ["question", { image, question: LONG }, /206 bytes; this model takes at most 205/],
    ["question", { image, question: "Ist es groß?" }, /ASCII/],
    ["question", { image, question: "half \ud800" }, /surrogate/],
    ["question", { image, question: 7 }, /question/],
    ["questions", { image, question: "a", questions: ["b"] }, /combined/],
    ["questions", { image, questions: [] }, /questions/],
    ["questions", { image, questions: Array(9).fill("a") }, /9 questions; at most 8/],
    ["questions.1", { image, questions: ["a", ""] }, /questions.1: must not be empty/],
    ["top_answers", { image, question: "a", top_answers: 0 }, />= 1/],
    ["top_answers", { image, question: "a", top_answers: "3" }, /integer/],
    ["colour", { image, question: "a", colour: "red" }, /no such field/],
    ["request_id", { image, question: "a", request_id: "a b" }, /pattern/],
  ])("%s %j", async (param, body, message) => {
    const answer = await refusal(await post(app(), "/v1/vqa", body));
    expect([answer.status, answer.param]).toEqual([400, param]);
    expect(answer.message).toMatch(message);
  });

  it("another model, another content type", async () => {
    expect(await refusal(await post(app(), "/v1/vqa", { image, question: "a", model: "x" }))).toMatchObject({
      status: 404,
      param: "model",
    });
    const plain = await fetch(`${app().url}/v1/vqa`, {
      method: "POST",
      body: "a",
      headers: { "content-type": "text/plain" },
    });
    expect(plain.status).toBe(415);
    const nothing = await fetch(`${app().url}/v1/vqa`, { method: "POST" });
    expect(nothing.status).toBe(400);
  });
});

describe("forms that are refused", () => {
  it.each<[name: string, parts: [string, string | Buffer][], status: number, param: string | null, message: RegExp]>([
    ["no image", [["question", "a"]], 400, "image", /required/],
    ["no question", [["image", png]], 400, "question", /required/],
    [
      "an image as text",
      [
        ["image", image],
        ["question", "a"],
      ],
      400,
      "image",
      /must be a file/,
    ],
    [
      "a question as a file",
      [
        ["question", png],
        ["image", png],
      ],
      400,
      "question",
      /must be text/,
    ],
    [
      "two images",
      [
        ["image", png],
        ["image", png],
        ["question", "a"],
      ],
      400,
      "image",
      /once/,
    ],
    [
      "three images",
      [
        ["image", png],
        ["image", png],
        ["image", png],
      ],
      400,
      "image",
      /once/,
    ],
    [
      "an unknown field",
      [
        ["image", png],
        ["question", "a"],
        ["colour", "red"],
      ],
      400,
      "colour",
      /no such field/,
    ],
    [
      "an option twice",
      [
        ["model", "vqa"],
        ["model", "vqa"],
      ],
      400,
      "model",
      /once/,
    ],
    [
      "an option out of bounds",
      [
        ["image", png],
        ["question", "a"],
        ["top_answers", "0"],
      ],
      400,
      "top_answers",
      />= 1/,
    ],
    [
      "an option that is no number",
      [
        ["image", png],
        ["question", "a"],
        ["top_answers", "x"],
      ],
      400,
      "top_answers",
      /integer/,
    ],
    [
      "an empty question",
      [
        ["image", png],
        ["question", ""],
      ],
      400,
      "question",
      /empty/,
    ],
    [
      "a long question",
      [
        ["image", png],
        ["question", LONG],
      ],
      400,
      "question",
      /205/,
    ],
    [
      "an endless question",
      [
        ["image", png],
        ["question", "x".repeat(70_000)],
      ],
      400,
      "question",
      /65536/,
    ],
    [
      "another model",
      [
        ["image", png],
        ["question", "a"],
        ["model", "x"],
      ],
      404,
      "model",
      /not served/,
    ],
    ["too many questions", [["image", png], ...Array(9).fill(["question", "a"])], 400, "question", /at most 8/],
    ["far too many fields", Array(200).fill(["question", "a"]), 413, null, /more than 24 fields/],
    [
      "a prototype's name",
      [
        ["image", png],
        ["question", "a"],
        ["__proto__", "a"],
      ],
      400,
      "__proto__",
      /no such field/,
    ],
  ])("%s", async (_, parts, status, param, message) => {
    const answer = await refusal(await fetch(`${app().url}/v1/vqa`, { method: "POST", body: form(parts) }));
    expect([answer.status, answer.param]).toEqual([status, param]);
    expect(answer.message).toMatch(message);
  });

  it.each([
    ["without a boundary", "multipart/form-data", "--x\r\n"],
    ["cut off", "multipart/form-data; boundary=x", '--x\r\ncontent-disposition: form-data; name="question"\r\n\r\nabc'],
    ["empty", "multipart/form-data; boundary=x", ""],
  ])("a body %s", async (_, type, body) => {
    const response = await fetch(`${app().url}/v1/vqa`, { method: "POST", body, headers: { "content-type": type } });
    expect(response.status).toBeGreaterThanOrEqual(400);
    expect(response.status).toBeLessThan(500);
    expect((await json(response)).error.message).toMatch(/\w/);
  });
});

it("all of this leaves nothing behind", async () => {
  const { numRunning, numWaiting } = await app().engine.stats();
  expect([numRunning, numWaiting]).toEqual([0, 0]);
  expect((await json<{ server_load: number }>(await fetch(`${app().url}/load`))).server_load).toBe(0);
});
