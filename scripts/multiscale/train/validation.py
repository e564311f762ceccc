"""Bits per byte on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from multiscale.data.corpus import Corpus, DeviceCorpus
from multiscale.train.processes import ProcessGroup


@torch.no_grad()
def bits_per_byte(
    loss: Callable[[Tensor], Tensor],
    corpus: Corpus | DeviceCorpus,
    length: int,
    batch_size: int,
    max_batches: int | None,
    group: ProcessGroup,
) -> float:
    """Mean over whole windows, spread evenly over the corpus and divided among the processes."""
    windows = len(corpus) // length
    if windows == 0:
        raise ValueError(f"validation: {len(corpus)} bytes are fewer than one window of {length}")
    count = windows if max_batches is None else min(windows, max_batches * batch_size * group.size)
    starts = (np.linspace(0, windows - 1, count).round().astype(np.int64) * length)[group.rank :: group.size]
    total = torch.zeros(2, dtype=torch.float64, device=group.device)
    for first in range(0, len(starts), batch_size):
        chosen = starts[first : first + batch_size]
        nats = loss(corpus.gather(chosen, length).to(group.device))
        total += torch.stack((nats.double() * len(chosen), torch.tensor(float(len(chosen)), device=group.device)))
    group.sum(total)
    return float(total[0] / total[1]) / math.log(2)
