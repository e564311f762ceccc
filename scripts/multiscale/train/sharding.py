"""Optimizer state divided among processes (ZeRO, stage 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist


def make_optimizer(
    kind: type[torch.optim.Optimizer], parameters: Iterable[Any], is_sharded: bool, **settings: Any
) -> torch.optim.Optimizer:
    """`kind(parameters, **settings)`. Sharded: each process has the state of its share of the parameters, updates these, and
    gets the others from where they were updated; among one process there is nothing to divide."""
    if not is_sharded or not dist.is_initialized() or dist.get_world_size() == 1:
        return kind(parameters, **settings)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(list(parameters), optimizer_class=kind, **settings)


def gather_state(*optimizers: torch.optim.Optimizer) -> None:
    """Brings sharded state to the main process, whose `state_dict` is then whole. Every process takes part."""
    for optimizer in optimizers:
        if hasattr(optimizer, "consolidate_state_dict"):
            optimizer.consolidate_state_dict(to=0)
