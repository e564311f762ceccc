"""Calls operators of a library through their C names; the argument structs are read from native/ops.h itself."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

OPS_HEADER = Path(__file__).parents[3] / "native" / "ops.h"
TYPE_NUMBER = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}
_SCALARS = {"int64_t": ctypes.c_int64, "bool": ctypes.c_bool, "DType": ctypes.c_int32, "Norm": ctypes.c_int32}


def _read_structs() -> dict[str, type[ctypes.Structure]]:
    text = re.sub(r"//.*", "", OPS_HEADER.read_text())
    sizes = {name: int(value) for name, value in re.findall(r"(MAX_\w+) = (\d+);", text)}
    structs = {}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, re.DOTALL):
        fields: list[tuple[str, Any]] = []
        for line in filter(None, (part.strip() for part in body.split(";"))):
            kind, names = re.match(r"((?:const )?\w+\*?) (.*)", line, re.DOTALL).groups()
            for field in re.split(r",\s*", names):
                if kind.endswith("*"):
                    field, _, size = field.rstrip("]").partition("[")
                    fields.append((field, ctypes.c_void_p * sizes[size] if size else ctypes.c_void_p))
                elif kind in _SCALARS:
                    fields.append((field, _SCALARS[kind]))
        structs[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return structs


STRUCTS = _read_structs()


class Library:
    """One build of the operators."""

    def __init__(self, path: Path):
        self._library = ctypes.CDLL(str(path))
        self._library.mblm_take_error.restype = ctypes.c_char_p

    def prepare(self, name: str, work: torch.dtype, arguments: dict[str, Any]) -> ctypes.Structure:
        """Tensors (or lists of them) become addresses; the caller keeps them alive."""
        struct = STRUCTS[name]()
        if hasattr(struct, "type"):
            struct.type = TYPE_NUMBER[work]
        for field, value in arguments.items():
            if isinstance(value, Tensor):
                assert value.is_contiguous(), field
                setattr(struct, field, value.data_ptr())
            elif isinstance(value, list):
                for i, item in enumerate(value):
                    getattr(struct, field)[i] = item.data_ptr()
            elif value is not None:
                setattr(struct, field, value)
        return struct

    def run(self, name: str, struct: ctypes.Structure, stream: int = 0) -> None:
        function = getattr(self._library, "mblm_" + re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower())
        function(ctypes.byref(struct), ctypes.c_void_p(stream))

    def raise_errors(self) -> None:
        error = self._library.mblm_take_error()
        if error is not None:
            raise RuntimeError(error.decode())
