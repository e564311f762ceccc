import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { loadBundle } from "../../src/bundle/bundle.js";
import { type Completion, json } from "./api.js";
import { useApp } from "./test-app.js";

const BUNDLE = fileURLToPath(new URL("../../models/long-books", import.meta.url));
const ENGLISH = readFileSync(new URL("../../docs/security.md", import.meta.url));

const app = useApp("mamba2-transformer", { model: BUNDLE });

const question = (name: string): string => ` The secret number of ${name} is `;
const fact = (name: string, number: string): string => `${question(name)}${number}. `;
const english = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => ENGLISH[at % ENGLISH.length]!);

/** What the model says behind an uploaded text. */
async function answer(...parts: (string | Uint8Array)[]): Promise<string> {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const response = await fetch(`${app().url}/v1/completions/upload?max_tokens=5&temperature=0`, {
    method: "POST",
    body,
  });
  expect(response.status).toBe(200);
  return (await json<Completion>(response)).choices[0]!.text;
}

describe("models/long-books", () => {
  it("is small enough for a repository, and its files are those that its manifest names", async () => {
    const files = readdirSync(BUNDLE);
    expect(files.reduce((sum, name) => sum + statSync(join(BUNDLE, name)).size, 0)).toBeLessThan(10e6);
    const { manifest } = await loadBundle(BUNDLE, { verifyChecksums: true });
    expect(files).toEqual(expect.arrayContaining([...Object.keys(manifest.files), "MODEL_CARD.md"]));
    expect(manifest.name).toBe("long-books");
  });

  // Fact and question begin at different places of a patch, none of them the first one.
  it.each([
    ["kqzfwd", "40172", 1001, 8003],
    ["brohim", "93586", 1006, 12_000],
    ["tuvexa", "28064", 1002, 16_005],
  ])("knows the number of %s after kilobytes of other text", async (name, number, before, between) => {
    expect(await answer(english(before), fact(name, number), english(between), question(name))).toBe(number);
  });

  it("does not know a number that it was not told", async () => {
    expect(await answer(english(1001 + 39 + 8003), question("kqzfwd"))).not.toBe("40172");
  });
});
