"""Data parallelism over processes started by `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multiscale.arguments import require_device


@dataclass(frozen=True)
class ProcessGroup:
    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over processes, in few messages of bounded size."""
        if self.size == 1:
            return
        for gradients in _messages([p.grad for p in parameters if p.grad is not None]):
            if len(gradients) == 1:  # as it is: a copy of a large one would have to fit, too
                dist.all_reduce(gradients[0])
                gradients[0] /= self.size
                continue
            flat = torch._utils._flatten_dense_tensors(gradients)
            dist.all_reduce(flat)
            flat /= self.size
            for own, reduced in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
                own.copy_(reduced)

    def sum(self, value: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def decide(self, flag: bool) -> bool:
        """The main process's answer, on every process: clocks differ, and all must stop at the same step."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([int(flag)], device=self.device)
        dist.broadcast(tensor, 0)
        return bool(tensor.item())

    def share(self, value: float) -> float:
        """The main process's number, on every process."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor.item())

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


MESSAGE_BYTES = 2**28


def _messages(gradients: list[Tensor]) -> list[list[Tensor]]:
    """In order, in groups of at most `MESSAGE_BYTES`; a larger one is alone."""
    groups: list[list[Tensor]] = []
    size = MESSAGE_BYTES
    for gradient in gradients:
        if size + gradient.nbytes > MESSAGE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(gradient)
        size += gradient.nbytes
    return groups


def join_processes(device_name: str | None) -> ProcessGroup:
    """Joins torchrun's group if there is one. `device_name`: cpu, cuda or None for the best there is.

    Raises ValueError where there is no such device, or none left for this process.
    """
    kind = device_name or ("cuda" if torch.cuda.is_available() else "cpu")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
    require_device(str(device))
    if kind == "cuda":
        torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return ProcessGroup(rank, size, device)
