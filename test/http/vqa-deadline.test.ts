import { afterEach, describe, expect, it, vi } from "vitest";
import { reasonOf } from "../../src/core/stopping.js";
import { RemoteImages } from "../../src/http/vqa/remote-images.js";
import { readGolden } from "../test-bundles.js";
import { ask, json, post } from "./api.js";
import { useApp } from "./test-app.js";

/** What makes of pixels what the model reads, and waits where a test wants it. */
let held: Promise<void> | undefined;
vi.mock("../../src/vqa/preprocess.js", async (original) => {
  const { preprocess } = await original<typeof import("../../src/vqa/preprocess.js")>();
  return {
    preprocess: async (...args: Parameters<typeof preprocess>) => {
      await held;
      return preprocess(...args);
    },
  };
});
afterEach(() => {
  vi.restoreAllMocks();
});

const app = useApp("vqa", { allowedImageHosts: "images.test" });
const limited = useApp("vqa", { maxRequestSeconds: 0.3 });
const { image, question } = readGolden("vqa").asked![0]!;
const chat = (url: string) => ({
  messages: [
    {
      role: "user",
      content: [
        { type: "image_url", image_url: { url } },
        { type: "text", text: question },
      ],
    },
  ],
});
const FEW = { headers: { "content-type": "application/json", "x-request-timeout-ms": "300" } };

describe("the time of a request", () => {
  it.each([
    ["of its client", app, "/v1/vqa", { image, question }, FEW],
    ["of the server", limited, "/v1/vqa", { image, question }, {}],
    ["of its client, in chat", app, "/v1/chat/completions", chat(`data:image/png;base64,${image}`), FEW],
  ] as const)("%s ends it while its image is decoded", async (_, server, path, body, init) => {
    let release = (): void => {};
    held = new Promise((resolve) => {
      release = resolve;
    });
    try {
      const late = await post(server(), path, body, init);
      expect([late.status, (await json(late)).error.code]).toEqual([408, "deadline_exceeded"]);
      expect(server().lifecycle.numOpen).toBe(0);
    } finally {
      held = undefined;
      release();
    }
    await ask(app(), path, body);
  });

  it("ends it while its image is fetched", async () => {
    let isStopped = false;
    vi.spyOn(RemoteImages.prototype, "fetch").mockImplementation(
      (_, __, stop) =>
        new Promise((_, reject) => {
          stop.addEventListener("abort", () => {
            isStopped = true;
            reject(reasonOf(stop));
          });
        }),
    );
    const late = await post(app(), "/v1/chat/completions", chat("https://images.test/a.png"), FEW);
    expect([late.status, (await json(late)).error.code]).toEqual([408, "deadline_exceeded"]);
    expect(isStopped).toBe(true);
  });
});
