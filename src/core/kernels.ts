/** What runs small batches of a stage on a device: one kernel for all of it, or one for each operator. `auto`: what is faster, batch size by batch size. */
export type Kernels = "auto" | "fused" | "onnx";
