"""Runs one operator of `native/` as a graph of one node, on the CPU, with the reference library."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from torch import Tensor

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "native" / "build" / "libmblm_ops_reference.so"

ONNX_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float64: TensorProto.DOUBLE,
    torch.int32: TensorProto.INT32,
    torch.uint8: TensorProto.UINT8,
}


@functools.cache
def build_reference() -> Path:
    """The library, built from today's sources."""
    subprocess.run(["node", "scripts/build-native.mjs", "reference"], cwd=ROOT, check=True)
    return LIBRARY


@functools.lru_cache(maxsize=256)
def _session(
    kind: str,
    inputs: tuple[tuple[str, int | None], ...],
    outputs: tuple[tuple[str, int], ...],
    attributes: tuple[tuple[str, int], ...],
) -> ort.InferenceSession:
    names = [name if element else "" for name, element in inputs]
    node = helper.make_node(kind, names, [name for name, _ in outputs], domain="mblm", **dict(attributes))
    graph = helper.make_graph(
        [node],
        kind,
        [helper.make_tensor_value_info(name, element, None) for name, element in inputs if element],
        [helper.make_tensor_value_info(name, element, None) for name, element in outputs],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("mblm", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, too
    options.register_custom_ops_library(str(build_reference()))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_op(
    kind: str,
    inputs: dict[str, Tensor | None],
    outputs: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    **attributes: int,
) -> list[Tensor]:
    """Inputs in the operator's order, None for an absent one; they are bound as they are, so that those written in place change.

    `outputs`: type and shape of each, which the operator must agree to.
    """
    session = _session(
        kind,
        tuple((name, None if tensor is None else ONNX_TYPES[tensor.dtype]) for name, tensor in inputs.items()),
        tuple((name, ONNX_TYPES[dtype]) for name, (dtype, _) in outputs.items()),
        tuple(attributes.items()),
    )
    binding = session.io_binding()
    for name, tensor in inputs.items():
        if tensor is not None:
            assert tensor.is_contiguous()
            binding.bind_input(name, "cpu", 0, ONNX_TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
    results = []
    for name, (dtype, shape) in outputs.items():
        results.append(torch.zeros(shape, dtype=dtype))
        binding.bind_output(name, "cpu", 0, ONNX_TYPES[dtype], shape, results[-1].data_ptr())
    session.run_with_iobinding(binding)
    return results
