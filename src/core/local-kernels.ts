/** What runs a patch of the local stage on a device. `auto`: what is faster, batch size by batch size. */
export type LocalKernels = "auto" | "fused" | "onnx";
