"""The two forms of a product with what surrounds it: matrix-vector kernels for up to 8 rows, Gemm for more.

A `Residual` is the residual stream with what is still to be added to it: the large form adds inside the next norm, which
saves a pass over it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum

from multiscale.export.cuda.graph import DeviceGraph
from multiscale.export.cuda.work_type import WorkType

MAX_SMALL_ROWS = 8


class Norm(IntEnum):
    """How `native/ops.h` numbers them."""

    CLAMP = 0
    EPSILON = 1


@dataclass(frozen=True)
class Residual:
    """The residual stream is x + delta + bias."""

    x: str
    """float32 (M, D)"""
    delta: str = ""
    """work type (M, D)"""
    bias: str = ""
    """float32 (D,)"""


@dataclass(frozen=True)
class StepAt:
    """Inputs that say where rows stand: int32 (R,) each."""

    slot: str
    position: str


class Form(ABC):
    def __init__(self, graph: DeviceGraph):
        self.graph = graph

    @abstractmethod
    def norm_linear(
        self, r: Residual, gain: str, norm: Norm, weight: str, prev: str = "", bias: str = "", gelu: bool = False
    ) -> tuple[Residual, str]:
        """act(norm(shift(r, prev))·gain · Wᵀ + bias); the residual comes back with nothing left to add.

        `weight` and `bias` are names of state-dict entries.
        """

    @abstractmethod
    def linear(self, h: str, weight: str, bias: str = "", gelu: bool = False) -> str:
        """act(h · Wᵀ + bias)."""

    @abstractmethod
    def linear_add(self, r: Residual, h: str, weight: str, bias: str = "") -> Residual:
        """r + h · Wᵀ + bias."""

    @abstractmethod
    def head(self, r: Residual, gain: str, norm: Norm, weight: str, bias: str) -> str:
        """norm(r)·gain · Wᵀ + bias, all in float32."""

    def shift_norm(self, r: Residual, gain: str, state: str, initial: str, at: StepAt) -> tuple[Residual, str]:
        """norm(shift(r))·gain, with the previous step from `state`."""
        inputs = [r.x, self.graph.vector(gain), state, initial, at.slot, at.position, r.delta, r.bias]
        x, h = self.graph.ops("ShiftNorm", inputs, 2)
        return Residual(x), h

    def _vector(self, name: str) -> str:
        return self.graph.vector(name) if name else ""


class SmallForm(Form):
    def norm_linear(
        self, r: Residual, gain: str, norm: Norm, weight: str, prev: str = "", bias: str = "", gelu: bool = False
    ) -> tuple[Residual, str]:
        g = self.graph
        inputs = [r.x, g.vector(gain), g.matrix(weight), self._vector(bias), prev]
        return r, g.op("NormLinear", inputs, norm=norm, gelu=int(gelu))

    def linear(self, h: str, weight: str, bias: str = "", gelu: bool = False) -> str:
        return self.graph.op("Linear", [h, self.graph.matrix(weight), self._vector(bias)], gelu=int(gelu))

    def linear_add(self, r: Residual, h: str, weight: str, bias: str = "") -> Residual:
        return Residual(self.graph.op("LinearAdd", [h, self.graph.matrix(weight), r.x, self._vector(bias)]))

    def head(self, r: Residual, gain: str, norm: Norm, weight: str, bias: str) -> str:
        g = self.graph
        inputs = [r.x, g.vector(gain), g.vector(weight), g.vector(bias)]
        return g.op("NormLinear", inputs, WorkType.FP32, norm=norm, gelu=0)


class LargeForm(Form):
    def norm_linear(
        self, r: Residual, gain: str, norm: Norm, weight: str, prev: str = "", bias: str = "", gelu: bool = False
    ) -> tuple[Residual, str]:
        r, h = self._add_norm(r, gain, norm, prev)
        return r, self.linear(h, weight, bias, gelu)

    def linear(self, h: str, weight: str, bias: str = "", gelu: bool = False) -> str:
        g = self.graph
        if gelu:
            return g.op("BiasGelu", [g.gemm(h, g.matrix(weight)), g.vector(bias)])
        return g.gemm(h, g.matrix(weight), self._work_vector(bias))

    def linear_add(self, r: Residual, h: str, weight: str, bias: str = "") -> Residual:
        assert not r.delta, "a sum of two products has no norm between them"
        return Residual(r.x, self.graph.gemm(h, self.graph.matrix(weight)), self._vector(bias))

    def head(self, r: Residual, gain: str, norm: Norm, weight: str, bias: str) -> str:
        g = self.graph
        if r.delta and g.work is not WorkType.FP32:  # the addition in the work type's operator, the norm in float32
            r = self._add_norm(r, gain, norm)[0]
        _, h = self._add_norm(r, gain, norm, work=WorkType.FP32)
        return g.gemm(h, g.vector(weight), g.vector(bias))

    def _add_norm(
        self, r: Residual, gain: str, norm: Norm, prev: str = "", work: WorkType | None = None
    ) -> tuple[Residual, str]:
        inputs = [r.x, self.graph.vector(gain), r.delta, r.bias, prev]
        x, h = self.graph.ops("AddNorm", inputs, 2, work, norm=norm)
        return Residual(x), h

    def _work_vector(self, name: str) -> str | None:
        """A bias in the type that Gemm wants."""
        g = self.graph
        return g.derived(f"{name}#work", lambda: g.file.weights[name], g.work) if name else None
