import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CONFIG_PROPERTIES, environmentName, loadConfig } from "../../src/config/load-config.js";
import { scratchFolder } from "../scratch-folder.js";

function file(content: string): string {
  const path = join(scratchFolder("config"), "server.yaml");
  writeFileSync(path, content);
  return path;
}

describe("loadConfig", () => {
  it("flags win over environment, environment over file, file over defaults", () => {
    const path = file("port: 1\nslots: 2\nthreads: 3\n");
    const config = loadConfig({
      file: path,
      environment: { MBLM_PORT: "10", MBLM_SLOTS: "20" },
      flags: { port: "100" },
    });
    expect(config).toMatchObject({ port: 100, slots: 20, threads: 3, pingSeconds: 10 });
    expect(Object.isFrozen(config)).toBe(true);
  });

  it("every setting has a default that is within its own bounds, and an environment variable", () => {
    const defaults = loadConfig({ environment: {} });
    for (const [key, property] of CONFIG_PROPERTIES) {
      expect(loadConfig({ environment: { [environmentName(key)]: String(defaults[key]) } })[key]).toBe(defaults[key]);
      expect(property.description.length).toBeGreaterThan(10);
    }
  });

  it("PORT is read, MBLM_PORT wins", () => {
    expect(loadConfig({ environment: { PORT: "9001" } }).port).toBe(9001);
    expect(loadConfig({ environment: { PORT: "9001", MBLM_PORT: "9002" } }).port).toBe(9002);
  });

  it("reads what OpenTelemetry's variables say of the collector", () => {
    const base = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" };
    const load = (environment: Record<string, string>) => loadConfig({ environment }).otlpEndpoint;
    expect(load({})).toBe("");
    expect(load(base)).toBe("http://collector:4318");
    const traces = "http://traces:4318/v1/traces";
    expect(load({ ...base, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces })).toBe(traces);
    expect(load({ ...base, MBLM_OTLP_ENDPOINT: "http://own:1" })).toBe("http://own:1");
    expect(load({ ...base, OTEL_SDK_DISABLED: "true" })).toBe("");
    expect(() => load({ OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4317" })).toThrow(/OTEL_EXPORTER_OTLP_ENDPOINT/);
  });

  it("takes a device by its kind and number", () => {
    const load = (device: string) => loadConfig({ flags: { device }, environment: {} }).device;
    expect(["auto", "cpu", "cuda", "cuda:0", "cuda:12"].map(load)).toEqual([
      "auto",
      "cpu",
      "cuda",
      "cuda:0",
      "cuda:12",
    ]);
    for (const wrong of ["gpu", "cuda:", "cuda:-1", "cuda:a", "cpu:0", ""])
      expect(() => load(wrong)).toThrow(/--device/);
  });

  it("lists every problem at once, each with its source", () => {
    const path = file("slots: many\ncolour: red\n");
    const load = () => loadConfig({ file: path, environment: { MBLM_PORT: "70000" }, flags: { threads: "0" } });
    expect(load).toThrow(/MBLM_PORT: "70000"/);
    expect(load).toThrow(/--threads: "0"/);
    expect(load).toThrow(/slots in .*server\.yaml: "many"/);
    expect(load).toThrow(/colour in .*: no such setting/);
  });

  it("a file that cannot be read or is no mapping is named", () => {
    expect(() => loadConfig({ file: "/nowhere.yaml", environment: {} })).toThrow(/cannot read \/nowhere\.yaml/);
    expect(() => loadConfig({ file: file("- 1\n"), environment: {} })).toThrow(/is not a mapping/);
  });
});
