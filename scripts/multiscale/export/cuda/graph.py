"""Builds one graph for the device. Weights, states and everything that the host writes are inputs; see `native/ops.h`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from multiscale.export.cuda.weight_file import WeightFile
from multiscale.export.cuda.work_type import ONNX_TYPES, WorkType
from multiscale.export.graph_builder import IR_VERSION, OPSET

DOMAIN, OPS_VERSION = "mblm", 1


@dataclass(frozen=True)
class DeviceState:
    """A tensor `[slots, *shape]` that operators read and write in place."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None = None
    """The axis of `shape` that counts positions, for caches."""


class DeviceGraph:
    def __init__(self, file: WeightFile):
        self.file, self.work = file, file.work
        self.states: list[DeviceState] = []
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: dict[str, onnx.ValueInfoProto] = {}

    # ---- inputs -----------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: list[int | str]) -> str:
        if name not in self._inputs:
            self._inputs[name] = helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape)
        return name

    def state(self, layer: int, kind: str, dtype: str, shape: tuple[int, ...], axis: int | None = None) -> str:
        state = DeviceState(f"state.{layer}.{kind}", dtype, shape, axis)
        if state not in self.states:
            self.states.append(state)
        return self.input(state.name, dtype, ["S", *shape])

    def matrix(self, name: str) -> str:
        return self._weight(self.file.matrix(name))

    def vector(self, name: str) -> str:
        return self._weight(self.file.vector(name))

    def derived(self, name: str, array: Callable[[], np.ndarray], kind: WorkType = WorkType.FP32) -> str:
        """A tensor computed from entries of the state dict, or a constant of the model."""
        return self._weight(self.file.add(name, array, kind))

    def _weight(self, name: str) -> str:
        entry = self.file.tensors[name]
        return self.input(name, entry["dtype"], entry["shape"])

    # ---- nodes ------------------------------------------------------------------------------------------------

    def op(self, kind: str, inputs: list[str], work: WorkType | None = None, **attributes: int) -> str:
        """One of our operators with one output. `work`: another type than the graph's."""
        return self.ops(kind, inputs, 1, work, **attributes)[0]

    def ops(
        self, kind: str, inputs: list[str], outputs: int, work: WorkType | None = None, **attributes: int
    ) -> list[str]:
        return self._add(f"{kind}_{(work or self.work).suffix}", inputs, outputs, DOMAIN, attributes)

    def untyped(self, kind: str, inputs: list[str], **attributes: int) -> str:
        return self._add(kind, inputs, 1, DOMAIN, attributes)[0]

    def gemm(self, x: str, weight: str, bias: str | None = None) -> str:
        """x (M, K) · weight (N, K)ᵀ, all of one type."""
        return self._add("Gemm", [x, weight, *([bias] if bias else [])], 1, "", {"transB": 1})[0]

    def gather(self, x: str, rows: str) -> str:
        return self._add("Gather", [x, rows], 1, "", {"axis": 0})[0]

    def _add(self, kind: str, inputs: list[str], outputs: int, domain: str, attributes: dict[str, Any]) -> list[str]:
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        name = f"{kind}.{len(self._nodes)}"
        names = [f"{name}:{k}" for k in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, name=name, domain=domain, **attributes))
        return names

    # ---- result -----------------------------------------------------------------------------------------------

    @property
    def num_launches(self) -> int:
        """Kernels of one run, one step per sequence: one per node, and one more where Gemm first spreads a bias."""
        return len(self._nodes) + sum(node.op_type == "Gemm" and len(node.input) > 2 for node in self._nodes)

    def model(self, name: str, done: str, shape: list[int | str]) -> onnx.ModelProto:
        """`done`: the int32 value that the graph returns, once everything is written."""
        for node in self._nodes:
            node.output[:] = ["done" if value == done else value for value in node.output]
        output = helper.make_tensor_value_info("done", ONNX_TYPES["int32"], shape)
        graph = helper.make_graph(self._nodes, name, list(self._inputs.values()), [output])
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="multiscale")
