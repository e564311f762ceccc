"""Live bytes of a computation, counted storage by storage; on fake tensors without doing or allocating anything."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators make inside the context, until they are freed. What exists before is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._known[tensor.untyped_storage()] = True
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known[storage] = True
                size = storage.nbytes()
                self.current += size
                self.peak = max(self.peak, self.current)
                weakref.finalize(storage, self._free, size)
        return out

    def _free(self, size: int) -> None:
        self.current -= size


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class _FusedNorm(torch.autograd.Function):
    """What a GPU's one-kernel RMSNorm allocates: its output, one number per row, and the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(*x.shape[:-1], 1))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


@contextlib.contextmanager
def gpu_kernels() -> Iterator[None]:
    """Stands in for what is one kernel on a GPU and several operators on the CPU.

    The function is replaced, rather than intercepted by a mode: modes do not reach what is computed again backwards.
    """
    own = F.rms_norm
    F.rms_norm = lambda x, shape, weight, eps: _FusedNorm.apply(x, weight)
    try:
        yield
    finally:
        F.rms_norm = own


@contextlib.contextmanager
def pretending(is_gpu: bool, precision: str) -> Iterator[None]:
    """Fake tensors, with the kernels and the autocast of a device."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        if is_gpu:
            stack.enter_context(gpu_kernels())
        if precision in kinds:
            stack.enter_context(torch.autocast("cpu", kinds[precision]))
        yield


def affine(value: Callable[..., tuple[int, ...]], wanted: tuple[int, ...], start: int = 2) -> tuple[int, ...]:
    """`value(*wanted)`, each of whose entries is affine in each argument from `start` on, out of values at small arguments."""
    base = tuple(min(want, start) for want in wanted)
    result = list(value(*base))
    origin = tuple(result)
    for index, want in enumerate(wanted):
        if want > base[index]:
            step = value(*(b + (k == index) for k, b in enumerate(base)))
            for k, at_origin in enumerate(origin):
                result[k] += (want - base[index]) * (step[k] - at_origin)
    return tuple(result)
