"""The type of activations and of weights of products on the device (`T` of `native/ops.h`)."""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch
from onnx import TensorProto


class WorkType(Enum):
    """Values are the names that the command line takes."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> str:
        """As the manifest names it."""
        return {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[self.value]

    @property
    def onnx_type(self) -> int:
        return ONNX_TYPES[self.dtype]

    @property
    def suffix(self) -> str:
        """Of the operators' names."""
        return {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[self.value]

    def encode(self, array: np.ndarray) -> bytes:
        """Rounded to nearest even, little-endian, row-major."""
        tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32))
        return tensor.to(getattr(torch, self.dtype)).flatten().view(torch.uint8).numpy().tobytes()


ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
}
