import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { loadConfig } from "../../src/config/load-config.js";
import type { Config } from "../../src/config/schema.js";
import { buildApp } from "../../src/http/build-app.js";
import { scratchFolder } from "../scratch-folder.js";
import { bundleDir } from "../test-bundles.js";

const folder = scratchFolder("startup");
const MODEL = bundleDir("mamba2-transformer");

/** What the server says instead of starting. */
async function problems(settings: Partial<Config>): Promise<string[]> {
  const config = { ...loadConfig({ environment: {} }), logLevel: "silent" as const, model: MODEL, ...settings };
  const started = buildApp(config, () => Promise.reject(new Error("no engine is asked for")), "0");
  const { code, message } = await started.then(
    () => expect.unreachable("it started"),
    (thrown) => thrown,
  );
  expect(["config_invalid", "bundle_invalid"]).toContain(code);
  return message.split("\n");
}

it("all that is wrong with what the settings name is told at once", async () => {
  const keys = join(folder, "keys.yaml");
  writeFileSync(keys, "- name: one\n- name: two\n");
  const found = await problems({
    model: `/nope1,${MODEL},/nope2`,
    apiKeyFile: keys,
    tlsCert: "/nope3",
    tlsKey: "/nope4",
    sessionDir: folder,
    sessionUrl: "redis://nowhere",
    allowedImageHosts: "nope5",
  });
  for (const expected of [
    /^\/nope1 is not a bundle/,
    /^\/nope2 is not a bundle/,
    /^api_key_file: .*: one: /,
    /^api_key_file: .*: two: /,
    /^tls_cert: cannot read \/nope3/,
    /^tls_key: cannot read \/nope4/,
    /^session_url: cannot be used together/,
    /^allowed_image_hosts: nope5 /,
  ]) {
    expect(
      found.filter((line) => expected.test(line)),
      String(expected),
    ).not.toEqual([]);
  }
});

it("of models that have one name, or no room, each is named", async () => {
  const other = bundleDir("transformer");
  const found = await problems({ model: `${MODEL},${MODEL},${other}`, modelBytes: 1000 });
  expect(found.filter((line) => line.startsWith("model_bytes: 1000 is too little"))).toHaveLength(3);
  expect(await problems({ model: [MODEL, MODEL, other, other].join(",") })).toEqual([
    expect.stringMatching(/both named mamba2-transformer$/),
    expect.stringMatching(/both named transformer$/),
  ]);
});

it("files that are no certificate and its key are named", async () => {
  const file = join(folder, "rubbish.pem");
  writeFileSync(file, "rubbish");
  expect(await problems({ tlsCert: file, tlsKey: file })).toEqual([
    expect.stringContaining(`tls_cert, tls_key: ${file} and ${file} are no certificate and its key: `),
  ]);
});
