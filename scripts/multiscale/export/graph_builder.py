"""Builds one ONNX graph: nodes, weights under a precision policy, and the stage's state tensors.

Weights are named after the state-dict entries they come from, so that a bundle can be read back (`read_bundle`). A suffix
`#…` names a transformation, `+` a concatenation of entries.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from multiscale.export.quantize import block_size_for, quantize_blocks
from multiscale.export.weight_store import WeightStore

Precision = Literal["fp32", "fp16", "int8"]
OPSET, IR_VERSION = 21, 10
CONTRIB = "com.microsoft"
EIGEN_PACKET = 4
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32}


@dataclass(frozen=True)
class State:
    """One state tensor of a stage. `shape` is per row. See the manifest's `states`."""

    layer: int
    kind: str
    shape: tuple[int, ...]
    update: Literal["in_place", "copy"]
    reset: Literal["copy", "none"]

    @property
    def past(self) -> str:
        return f"past.{self.layer}.{self.kind}"

    @property
    def present(self) -> str:
        return f"present.{self.layer}.{self.kind}"


class GraphBuilder:
    def __init__(self, weights: dict[str, np.ndarray], store: WeightStore, precision: Precision):
        self.weights, self.precision = weights, precision
        self._store, self._nodes, self._initializers = store, [], {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.states: list[State] = []
        self.weight_bytes = 0
        self.num_parameters = 0

    # ---- borders ----------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: list[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        return name

    def output(self, value: str, name: str, dtype: str, shape: list[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._declare_output(name, dtype, shape)

    def _declare_output(self, name: str, dtype: str, shape: list[int | str]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))

    def state(
        self,
        layer: int,
        kind: str,
        shape: tuple[int, ...],
        update: Literal["in_place", "copy"] = "in_place",
        reset: Literal["copy", "none"] = "copy",
    ) -> State:
        """Declares a state tensor; the emitter must write a node whose output is `state.present`."""
        state = State(layer, kind, shape, update, reset)
        self.states.append(state)
        self.input(state.past, "float32", ["B", *shape])
        self._declare_output(state.present, "float32", ["B", *shape])
        return state

    # ---- nodes ------------------------------------------------------------------------------------------------

    def node(self, op: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        return self.nodes(op, inputs, 1, domain, **attributes)[0]

    def nodes(
        self, op: str, inputs: list[str], outputs: int | list[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """A node with several outputs: their number, or their names ("" = not wanted)."""
        if isinstance(outputs, int):
            outputs = [f"{op}_{len(self._nodes)}_{k}" for k in range(outputs)]
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def contrib(self, op: str, inputs: list[str], **attributes: Any) -> str:
        return self.node(op, inputs, CONTRIB, **attributes)

    # ---- constants and weights --------------------------------------------------------------------------------

    def constant(self, array: np.ndarray, name: str | None = None) -> str:
        """A constant that is not a weight of the model, or a small weight kept in its own precision."""
        if name is None:  # named by content: graphs share the store
            content = array.dtype.str.encode() + str(array.shape).encode() + array.tobytes()
            name = f"constant_{hashlib.sha256(content).hexdigest()[:16]}"
        if name not in self._initializers:
            self._initializers[name] = self._store.tensor(name, array)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def vector(self, name: str) -> str:
        """A bias, norm gain or other small weight, float32."""
        return self._weight(name, self.weights[name].astype(np.float32))

    def derived(self, name: str, array: np.ndarray) -> str:
        """A float32 weight computed from the entries that `name` spells (see the module's docstring)."""
        return self._weight(name, array.astype(np.float32))

    def table(self, name: str) -> str:
        """An embedding table, looked up and not multiplied: half precision unless the bundle is fp32."""
        return self._half(name, self.weights[name])

    def _weight(self, name: str, array: np.ndarray) -> str:
        self.weight_bytes += array.nbytes
        self.num_parameters += array.size
        return self.constant(array, name)

    def _half(self, name: str, array: np.ndarray) -> str:
        if self.precision == "fp32":
            return self._weight(name, array.astype(np.float32))
        stored = self._weight(name, array.astype(np.float16))
        return self.node("Cast", [stored], to=TensorProto.FLOAT)  # folded when the session is built

    def linear(self, x: str, name: str, bias: str | None = None, quantize: bool = True) -> str:
        """x (…, K) · W, for the state-dict entry `name` = (N, K); entries joined by + are stacked along N."""
        parts = name.split("+")
        stacked = np.concatenate([self.weights[part] for part in parts]) if len(parts) > 1 else self.weights[name]
        return self.matmul(x, name, stacked.T, bias, quantize)

    def matmul(self, x: str, name: str, matrix: np.ndarray, bias: str | None = None, quantize: bool = True) -> str:
        """x (…, K) · matrix (K, N) [+ bias]."""
        block = block_size_for(matrix.shape[0])
        if self.precision == "int8" and quantize and block is not None:
            return self._quantized_matmul(x, name, matrix, block, bias)
        product = self.node("MatMul", [x, self._half(name, matrix)])
        return product if bias is None else self.node("Add", [product, bias])

    def _quantized_matmul(self, x: str, name: str, matrix: np.ndarray, block: int, bias: str | None) -> str:
        values, scales = quantize_blocks(matrix, block)
        self.weight_bytes += values.nbytes + scales.nbytes
        self.num_parameters += matrix.size
        inputs = [x, self.constant(values, name + "#int8"), self.constant(scales, name + "#scales")]
        if bias is not None:
            inputs += ["", "", bias]
        # Accuracy level 4: activations are quantised per block too. It is the only level with a fast 8-bit CPU kernel.
        return self.contrib(
            "MatMulNBits",
            inputs,
            K=matrix.shape[0],
            N=matrix.shape[1],
            bits=8,
            block_size=block,
            accuracy_level=4,
        )

    def layer_norm(self, x: str, prefix: str) -> str:
        return self.node(
            "LayerNormalization",
            [x, self.vector(prefix + "weight"), self.vector(prefix + "bias")],
            axis=-1,
            epsilon=1e-5,
        )

    def rms_norm(self, x: str, gain: str, epsilon: float) -> str:
        return self.node("SimplifiedLayerNormalization", [x, self.vector(gain)], axis=-1, epsilon=epsilon)

    def elementwise(self, op: str, x: str, width: int) -> str:
        """An elementwise function over (…, width) whose result for a row does not depend on the row's place in memory.

        ONNX Runtime computes some functions (Softplus, Cos, Sin, Log) four values at a time and the rest of the array one by
        one, with other rounding. Rows are therefore padded to whole groups of four.
        """
        padding = -width % EIGEN_PACKET
        if not padding:
            return self.node(op, [x])
        filler = self.constant(np.zeros(padding, np.float32))
        leading = self.node("Slice", [self.node("Shape", [x]), self.ints(0), self.ints(-1)])
        filler = self.node("Expand", [filler, self.node("Concat", [leading, self.ints(padding)], axis=0)])
        result = self.node(op, [self.node("Concat", [x, filler], axis=-1)])
        return self.node("Slice", [result, self.ints(0), self.ints(width), self.ints(-1)])

    def silu(self, x: str) -> str:
        return self.contrib("QuickGelu", [x], alpha=1.0)

    def model(self, name: str) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, name, self.inputs, self.outputs, list(self._initializers.values()))
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="multiscale")
