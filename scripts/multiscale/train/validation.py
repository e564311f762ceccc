"""Bits per byte on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from multiscale.train.processes import ProcessGroup


@torch.no_grad()
def bits_per_byte(
    loss: Callable[[Tensor], Tensor],
    gather: Callable[[np.ndarray], Tensor],
    windows: int,
    padding: int,
    batch_size: int,
    max_batches: int | None,
    group: ProcessGroup,
) -> float:
    """Mean over the bytes of windows that are spread evenly over number 0 … windows-1, and divided among the processes.

    `gather`: numbers of windows (n,) → ids (n, L). `padding` is an id that the loss leaves out.
    """
    count = windows if max_batches is None else min(windows, max_batches * batch_size * group.size)
    numbers = np.linspace(0, windows - 1, count).round().astype(np.int64)[group.rank :: group.size]
    total = torch.zeros(2, dtype=torch.float64, device=group.device)
    for first in range(0, len(numbers), batch_size):
        ids = gather(numbers[first : first + batch_size]).to(group.device)
        counted = (ids != padding).sum().double()
        total += torch.stack((loss(ids).double() * counted, counted))
    group.sum(total)
    return float(total[0] / total[1]) / math.log(2)
