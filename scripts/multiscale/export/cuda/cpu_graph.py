"""Opens one of the device's graphs on the CPU, with the reference operators."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from multiscale.export.cuda.device_tensor import DeviceTensor

ROOT = Path(__file__).parents[4]
REFERENCE_LIBRARY = ROOT / "native" / "build" / "libmblm_ops_reference.so"


class LibraryError(Exception):
    """The reference library cannot run a graph: it is older than what wrote the graph, or damaged."""


class CpuGraph:
    def __init__(self, path: Path, library: Path):
        """Raises LibraryError."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = onnx.load(path)
        _widen_products(model.graph)
        try:
            options.register_custom_ops_library(str(library))
            self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's have no class in common
            raise LibraryError(f"{library} does not run {path.name}: {str(error).splitlines()[0]}") from error
        self.inputs = [value.name for value in model.graph.input]

    def run(self, tensors: dict[str, DeviceTensor]) -> None:
        """`tensors` must have every input; those that operators write are written in place."""
        binding = self._session.io_binding()
        for name in self.inputs:
            tensor = tensors[name]
            binding.bind_input(name, "cpu", 0, tensor.onnx_type, tensor.memory.shape, tensor.memory.ctypes.data)
        binding.bind_output("done", "cpu")
        self._session.run_with_iobinding(binding)


def _widen_products(graph: onnx.GraphProto) -> None:
    """Gemm of 16-bit numbers, which the CPU does not have, as a device computes it: sums in float32, result rounded."""
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    nodes = []
    for node in graph.node:
        kind = types.get(node.input[1]) if node.op_type == "Gemm" else None
        if kind in (None, TensorProto.FLOAT):
            nodes.append(node)
            continue
        wide = [f"{name}:wide.{node.name}" for name in node.input]
        nodes += [
            helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT)
            for name, cast in zip(node.input, wide, strict=True)
        ]
        result = f"{node.output[0]}:wide"
        nodes.append(helper.make_node("Gemm", wide, [result], transB=1))
        nodes.append(helper.make_node("Cast", [result], list(node.output), to=kind))
    del graph.node[:]
    graph.node.extend(nodes)
