import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import type { Backend, Tensor } from "../../src/runtime/backend.js";
import { selectBackend } from "../../src/runtime/select-backend.js";
import { loadTestBundle } from "../test-bundles.js";

const backends: [name: string, backend: Backend][] = (["c-api", "node"] as const).map((kind) => [
  kind,
  selectBackend(kind).backend,
]);

/** Tensors for every port of a graph, filled with zeros. */
function portTensors(
  ports: readonly { name: string; dtype: string; shape: readonly (string | number)[] }[],
): Record<string, Tensor> {
  return Object.fromEntries(
    ports.map(({ name, dtype, shape }) => {
      const dims = shape.map((dim) => (typeof dim === "number" ? dim : dim === "R" ? 4 : 1));
      const size = dims.reduce((a, b) => a * b, 1);
      const data =
        dtype === "float32"
          ? new Float32Array(size)
          : dtype === "int32"
            ? new Int32Array(size)
            : new BigInt64Array(size);
      return [name, { data, shape: dims }];
    }),
  );
}

async function openLocalStage(backend: Backend) {
  const bundle = await loadTestBundle("mamba2-transformer");
  const stage = bundle.manifest.stages[1]!;
  const session = await backend.openSession(bundle.path(stage.graph), 1);
  return { session, inputs: portTensors(stage.inputs), outputs: portTensors(stage.outputs) };
}

describe.each(backends)("%s", (_, backend) => {
  it("names its ports and writes into the bound memory", async () => {
    const { session, inputs, outputs } = await openLocalStage(backend);
    expect(session.inputNames).toContain("parent_context");
    expect(session.outputNames).toContain("logits");
    (inputs.bytes!.data as BigInt64Array)[0] = 65n;
    const binding = session.bind(inputs, outputs);
    await binding.run();
    const first = (outputs.logits!.data as Float32Array).slice();
    expect(first.some((x) => x !== 0)).toBe(true);
    (inputs.bytes!.data as BigInt64Array)[0] = 66n;
    await binding.run();
    expect(outputs.logits!.data).not.toEqual(first);
    binding.dispose();
    session.dispose();
  });

  it("refuses missing tensors and wrong sizes", async () => {
    const { session, inputs, outputs } = await openLocalStage(backend);
    const { bytes: _bytes, ...rest } = inputs;
    expect(() => session.bind(rest, outputs)).toThrow(/asks for a tensor bytes/);
    expect(() => session.bind({ ...inputs, bytes: { data: new BigInt64Array(3), shape: [1] } }, outputs)).toThrow(
      /do not fill/,
    );
    session.dispose();
  });

  it("says what is wrong with a graph that cannot be opened", async () => {
    await expect(backend.openSession("/nowhere/stage0.onnx", 1)).rejects.toThrow(/stage0\.onnx/);
  });
});

describe("the C API", () => {
  it("keeps bound memory alive through garbage collections", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const { backend } = selectBackend("c-api");
    const { session, inputs, outputs } = await openLocalStage(backend);
    const { logits } = outputs;
    const binding = session.bind(inputs, outputs);
    for (const key of Object.keys(inputs)) delete inputs[key];
    for (const key of Object.keys(outputs)) delete outputs[key];
    await binding.run();
    for (let k = 0; k < 20; k++) {
      collect();
      Array.from({ length: 50 }, () => new Float32Array(10_000).fill(k)); // would overwrite freed memory
      await binding.run();
      expect(logits!.data.some((x) => Number.isNaN(x))).toBe(false);
    }
    binding.dispose();
    session.dispose();
  });

  it("runs without growing", async () => {
    const { backend } = selectBackend("c-api");
    const { session, inputs, outputs } = await openLocalStage(backend);
    const binding = session.bind(inputs, outputs);
    for (let k = 0; k < 2000; k++) binding.run();
    const before = process.memoryUsage.rss();
    for (let k = 0; k < 20_000; k++) binding.run();
    expect(process.memoryUsage.rss() - before).toBeLessThan(32 << 20);
    binding.dispose();
    session.dispose();
  });
});
