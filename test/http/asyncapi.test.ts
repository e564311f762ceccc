import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { stringify } from "yaml";
import { describeStream, SERVER_MESSAGES } from "../../src/http/stream/describe-stream.js";
import { VERSION } from "../../src/version.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");

describe("asyncapi.yaml", () => {
  it("says what the stream's schemas say (npm run openapi writes it anew)", async () => {
    const contract = JSON.parse(JSON.stringify(describeStream(VERSION)));
    const text = stringify(contract, { aliasDuplicateObjects: false, lineWidth: 120 });
    await expect(text).toMatchFileSnapshot("../../asyncapi.yaml");
  });

  it("describes what the server sends", async () => {
    const socket = new WebSocket(`${app().url.replace("http", "ws")}/v1/stream`);
    const messages: { type: keyof typeof SERVER_MESSAGES }[] = [];
    socket.on("message", (data: Buffer, isBinary: boolean) => {
      if (!isBinary) messages.push(JSON.parse(data.toString()));
    });
    await new Promise((resolve) => socket.once("open", resolve));
    for (const message of [
      { type: "open", stream: 1 },
      { type: "generate", stream: 1, max_tokens: 3 },
      { type: "generate", stream: 1, allowed_token_ids: [65], stop: [[65]] },
      { type: "close", stream: 1 },
      { type: "cancel", stream: 1 },
    ]) {
      socket.send(JSON.stringify(message));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await expect.poll(() => messages.length).toBe(5);
    socket.terminate();
    expect(messages.map(({ type }) => type)).toEqual(["opened", "finished", "finished", "closed", "error"]);
    const ajv = new Ajv2020({ strict: false });
    for (const message of messages) {
      const validate = ajv.compile(SERVER_MESSAGES[message.type] as object);
      expect(validate(message), JSON.stringify([validate.errors, message])).toBe(true);
    }
  });
});
