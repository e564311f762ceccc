"""`cuda-weights.bin`: every tensor that the device's graphs take as an input, once, ready to be copied to the device whole.

Names are those of `graph_builder`: state-dict entries, `+` for a concatenation of entries, `#…` for a transformation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from multiscale.export.cuda.work_type import WorkType

FILE_NAME = "cuda-weights.bin"
ALIGNMENT = 256
"""What cudaMalloc gives; kernels read 16 bytes at a time."""


class WeightFile:
    """Writes tensors as they come: a name is written once."""

    def __init__(self, path: Path, weights: dict[str, np.ndarray], work: WorkType):
        self.weights, self.work = weights, work
        self.tensors: dict[str, dict[str, Any]] = {}
        self._file = path.open("wb")

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def matrix(self, name: str) -> str:
        """A matrix of a product, or an embedding table, in the work type; entries joined by + are stacked along their rows."""
        return self.add(name, lambda: np.concatenate([self.weights[part] for part in name.split("+")]), self.work)

    def vector(self, name: str) -> str:
        """An entry as it is, float32."""
        return self.add(name, lambda: self.weights[name], WorkType.FP32)

    def add(self, name: str, array: Callable[[], np.ndarray], kind: WorkType) -> str:
        """`array` is called if the name is new."""
        if name not in self.tensors:
            values = array()
            data = kind.encode(values)
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            entry = {"dtype": kind.dtype, "shape": list(values.shape), "offset": self._file.tell(), "bytes": len(data)}
            self.tensors[name] = entry
            self._file.write(data)
        return name
