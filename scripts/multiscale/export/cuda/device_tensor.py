"""Tensors of the device's types in NumPy memory, for running the device's graphs on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multiscale.export.cuda.work_type import ONNX_TYPES

NUMPY_TYPES = {"bfloat16": np.dtype(np.uint16)}
"""NumPy's type of the memory, where it has none of that name."""


@dataclass(frozen=True)
class DeviceTensor:
    """What is bound to a graph is this memory: operators that write in place write here."""

    memory: np.ndarray
    dtype: str

    @classmethod
    def undefined(cls, dtype: str, shape: tuple[int, ...]) -> DeviceTensor:
        """Filled with NaN (integers: −1): whatever reads it before it is written shows."""
        memory = np.empty(shape, NUMPY_TYPES.get(dtype, dtype))
        memory.reshape(-1).view(np.uint8)[:] = 0xFF
        return cls(memory, dtype)

    @classmethod
    def of(cls, array: np.ndarray) -> DeviceTensor:
        return cls(np.ascontiguousarray(array), array.dtype.name)

    @property
    def onnx_type(self) -> int:
        return ONNX_TYPES[self.dtype]
