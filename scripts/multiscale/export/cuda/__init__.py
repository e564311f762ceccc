"""What a CUDA device runs: graphs of ONNX `Gemm` and the operators of `native/ops.h`, and one file of weights."""
