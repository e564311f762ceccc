"""Where half precision would lose too much: norms, rotations, recurrences."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
