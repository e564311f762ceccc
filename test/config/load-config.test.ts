import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  CONFIG_PROPERTIES,
  defaultModelDir,
  environmentName,
  loadConfig,
  modelDirs,
} from "../../src/config/load-config.js";
import { redactUrl } from "../../src/config/redact-url.js";
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

  it("says in words what a pattern or a list of choices asks for", () => {
    const problem = (setting: string, value: unknown) => {
      try {
        loadConfig({ flags: { [setting]: value }, environment: {} });
      } catch (thrown) {
        return (thrown as Error).message;
      }
    };
    expect(problem("logLevel", "loud")).toBe(
      '--log-level: "loud" must be one of fatal, error, warn, info, debug, silent',
    );
    expect(problem("device", "gpu")).toBe('--device: "gpu" must be auto, cpu, cuda or cuda:N');
    expect(problem("vllmMetrics", "yes")).toBe('--vllm-metrics: "yes" must be true or false');
    expect(problem("model", 5)).toBe("--model: 5 must be text (in quotes)");
    for (const [key, { pattern, rule }] of CONFIG_PROPERTIES) {
      if (pattern === undefined) continue;
      expect(rule, key).toMatch(/^must /);
      expect(problem(key, "*{ }*")).toContain(rule);
    }
  });

  it("never shows a secret, however wrong it is", () => {
    const url = "http://user:hunter2@host";
    const environment = { MBLM_API_KEY: "hunter2/secret+pass==", MBLM_SESSION_URL: url, MBLM_OTLP_ENDPOINT: `x${url}` };
    const load = () => loadConfig({ environment });
    expect(load).toThrow(/MBLM_API_KEY: must be 8 or more letters/);
    expect(load).toThrow(/MBLM_SESSION_URL: must be redis:/);
    expect(load).toThrow(/MBLM_OTLP_ENDPOINT: must begin with http/);
    for (const content of [
      "api_key: 'hunter2\n",
      "api_key: hunter2=\n",
      'api_key: "hunter2" x\n',
      "api_key: [hunter2]\n",
    ]) {
      expect(() => loadConfig({ file: file(content), environment: {} })).toThrow(/^(?!.*hunter2)/s);
    }
  });

  it("takes no part of a password for the host of the session store", () => {
    const load = (sessionUrl: string) => loadConfig({ flags: { sessionUrl }, environment: {} }).sessionUrl;
    for (const url of ["redis://user:p@ss/w0rd@host", "redis://user:p/w0rd@host", "redis://:a@b@host"])
      expect(() => load(url)).toThrow(/@ \/ \? # in a password are %40/);
    for (const url of ["redis://host", "rediss://:p%40ss@host:6380/2", "valkey://u:p@[::1]:6379"])
      expect(load(url)).toBe(url);
  });

  it("MBLM_CONFIG names the file unless --config does", () => {
    const [one, two] = [file("port: 1\n"), file("port: 2\n")];
    expect(loadConfig({ environment: { MBLM_CONFIG: one } }).port).toBe(1);
    expect(loadConfig({ environment: { MBLM_CONFIG: one }, file: two }).port).toBe(2);
    expect(loadConfig({ environment: { MBLM_CONFIG: "" } }).port).toBe(8000);
    expect(() => loadConfig({ environment: { MBLM_CONFIG: "/nowhere.yaml" } })).toThrow(/^MBLM_CONFIG: cannot read/);
  });

  it("names no model with an empty list", () => {
    const load = (model: string) => modelDirs(loadConfig({ environment: { MBLM_MODEL: model } }));
    expect(load(" one , two,")).toEqual(["one", "two"]);
    expect(load(" ,")).toEqual(load(""));
    expect(load("")).toEqual([defaultModelDir()]);
  });

  it("a file that cannot be read or is no mapping is named", () => {
    expect(() => loadConfig({ file: "/nowhere.yaml", environment: {} })).toThrow(/cannot read \/nowhere\.yaml/);
    expect(() => loadConfig({ file: file("- 1\n"), environment: {} })).toThrow(/is not a mapping/);
  });
});

it("redactUrl leaves nothing of a password, whatever it has in it", () => {
  expect(redactUrl("redis://user:p@ss/w0rd@host:1/2")).toBe("redis://***@host:1/2");
  expect(redactUrl("redis://host/2")).toBe("redis://host/2");
});
