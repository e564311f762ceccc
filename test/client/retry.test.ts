import { describe, expect, it } from "vitest";
import { askedDelayMs, isRetriable, retryDelayMs } from "../../src/client/retry.js";

const NOW = Date.parse("2025-01-01T00:00:00Z");

describe("isRetriable", () => {
  it.each([
    [400, undefined, false],
    [401, undefined, false],
    [404, undefined, false],
    [408, undefined, true],
    [409, undefined, true],
    [413, undefined, false],
    [422, undefined, false],
    [429, undefined, true],
    [499, undefined, false],
    [500, undefined, true],
    [503, undefined, true],
    [529, undefined, true],
    [400, "true", true],
    [503, "false", false],
    [503, "perhaps", true],
  ])("%i with x-should-retry %s: %s", (status, asked, expected) => {
    expect(isRetriable(status, new Headers(asked === undefined ? {} : { "x-should-retry": asked }))).toBe(expected);
  });
});

describe("askedDelayMs", () => {
  it.each([
    [{}, undefined],
    [{ "retry-after": "2" }, 2000],
    [{ "retry-after": "0" }, 0],
    [{ "retry-after": "1.5" }, 1500],
    [{ "retry-after": "Wed, 01 Jan 2025 00:00:03 GMT" }, 3000],
    [{ "retry-after": "Tue, 31 Dec 2024 00:00:00 GMT" }, 0],
    [{ "retry-after": "soon" }, undefined],
    [{ "retry-after-ms": "250" }, 250],
    [{ "retry-after-ms": "250", "retry-after": "9" }, 250],
    [{ "retry-after-ms": "x", "retry-after": "9" }, 9000],
  ])("%j: %s", (headers, expected) => {
    expect(askedDelayMs(new Headers(headers as Record<string, string>), NOW)).toBe(expected);
  });
});

describe("retryDelayMs", () => {
  it.each([
    ["begins small", 0, undefined, 0, 500],
    ["doubles", 1, undefined, 0, 1000],
    ["doubles again", 2, undefined, 0, 2000],
    ["is bounded", 50, undefined, 0, 8000],
    ["spreads downwards", 1, undefined, 0.5, 750],
    ["obeys", 0, 3, 0.9, 3],
    ["obeys zero", 3, 0, 0.9, 0],
    ["waits up to a minute", 0, 60_000, 0, 60_000],
    ["does not wait longer", 0, 60_001, 0, undefined],
  ])("%s", (_, attempt, asked, random, expected) => expect(retryDelayMs(attempt, asked, random)).toBe(expected));
});
