"""The bundle's `weights.bin`: every tensor once, shared by all graphs as ONNX external data."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper

FILE_NAME = "weights.bin"
ALIGNMENT = 64
INLINE_BYTES = 256
"""Smaller tensors are kept in the graph: shape inference needs the values of shapes and axes."""


@dataclass
class WeightStore:
    """Append-only; a name is written once."""

    keeps_content: bool = True
    """False: only to learn what a graph would look like."""
    _chunks: list[bytes] = field(default_factory=list)
    _entries: dict[str, TensorProto] = field(default_factory=dict)
    _size: int = 0

    def tensor(self, name: str, array: np.ndarray) -> TensorProto:
        """Initializer of that name; repeated names return the first."""
        if name in self._entries:
            return self._entries[name]
        array = np.ascontiguousarray(array)
        if array.nbytes < INLINE_BYTES:
            proto = helper.make_tensor(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.tobytes(), raw=True
            )
        else:
            proto = self._external(name, array)
        self._entries[name] = proto
        return proto

    def _external(self, name: str, array: np.ndarray) -> TensorProto:
        padding = -self._size % ALIGNMENT
        if self.keeps_content:
            self._chunks += [b"\0" * padding, array.tobytes()]
        offset, self._size = self._size + padding, self._size + padding + array.nbytes
        proto = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", FILE_NAME), ("offset", offset), ("length", array.nbytes)):
            proto.external_data.add(key=key, value=str(value))
        return proto

    def content(self) -> bytes:
        return b"".join(self._chunks)
