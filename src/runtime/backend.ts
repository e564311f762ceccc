import { MblmError } from "../errors.js";

/** Typed memory that a tensor can be made of. */
export type TensorData = Float32Array | Int32Array | BigInt64Array;

/**
 * A tensor in memory that the caller owns. Backends keep raw pointers into it: whoever holds a binding keeps the arrays
 * alive, and they are never resized.
 */
export interface Tensor {
  readonly data: TensorData;
  readonly shape: readonly number[];
}

/** A session's inputs and outputs tied to memory; running it allocates nothing. */
export interface Binding {
  /** Runs the graph on what the bound memory holds now. */
  run(): void | Promise<void>;
  /** Later calls do nothing. */
  dispose(): void;
}

export interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /** Ties tensors to ports by name; unknown names are ignored, missing ones are an error. */
  bind(inputs: Readonly<Record<string, Tensor>>, outputs: Readonly<Record<string, Tensor>>): Binding;
  /** Releases its bindings, too. Later calls do nothing. */
  dispose(): void;
}

/** A way of driving ONNX Runtime. */
export interface Backend {
  /** `c-api`: zero-copy, in place, synchronous. `node`: onnxruntime-node's own API, copying. */
  readonly kind: "c-api" | "node";
  readonly version: string;
  openSession(path: string, numThreads: number): Promise<Session>;
  /** Releases all that was opened through it and still is: sessions and their bindings, too. No session may be opening. */
  dispose(): void;
}

export function numElements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** The named tensor, checked to fill its shape exactly. */
export function requireTensor(tensors: Readonly<Record<string, Tensor>>, name: string): Tensor {
  const tensor = tensors[name];
  if (!tensor) throw new MblmError("bundle_invalid", `a graph asks for a tensor ${name} that the server does not have`);
  if (tensor.data.length !== numElements(tensor.shape)) {
    throw new Error(`tensor ${name}: ${tensor.data.length} elements do not fill [${tensor.shape}]`);
  }
  return tensor;
}
