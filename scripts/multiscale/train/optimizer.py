"""Optimizer, learning-rate schedule and weight averaging."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from multiscale.train.config import TrainConfig
from multiscale.train.sharding import gather_state, make_optimizer

# Scales, biases and recurrence parameters have no reason to shrink; embeddings are looked up, not multiplied.
_NO_DECAY = ("A_log", "D", "dt_bias", "start_tokens", "embedding", "pos_embs")


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer | Together:
    """AdamW with decay on matrices only; with `matrix_learning_rate` the stages' matrices are trained by Muon.

    With `shard_optimizer`, their states are divided among the processes.
    """
    orthogonal, decayed, plain = divide_parameters(model, config)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    fused = next(model.parameters()).is_cuda
    settings = {"lr": config.learning_rate, "betas": config.adam_betas, "eps": 1e-8, "fused": fused}
    adam = make_optimizer(torch.optim.AdamW, groups, config.shard_optimizer, **settings)
    if not config.matrix_learning_rate:
        return adam
    settings = {"lr": config.matrix_learning_rate, "weight_decay": config.weight_decay, "work_type": muon_type(fused)}
    muon = make_optimizer(Muon, orthogonal, config.shard_optimizer, **settings)
    for group in muon.param_groups:
        group[RATE_RATIO] = config.matrix_learning_rate / config.learning_rate
    return Together(muon, adam)


def divide_parameters(
    model: nn.Module, config: TrainConfig
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Those that Muon trains, those that AdamW trains with decay, and without."""
    orthogonal, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= 2 and not any(part in name for part in _NO_DECAY)
        if is_matrix and config.matrix_learning_rate and name.startswith("stage_models.") and parameter.dim() == 2:
            orthogonal.append(parameter)
        else:
            (decayed if is_matrix else plain).append(parameter)
    return orthogonal, decayed, plain


RATE_RATIO = "rate_ratio"
"""Of a group of parameters: its learning rate over the schedule's."""
TOGETHER_BYTES = 2**26
"""Of matrices that Muon works on at a time, or one that is larger."""


def muon_type(is_gpu: bool) -> torch.dtype:
    """What Newton and Schulz's iteration is carried out in."""
    return torch.bfloat16 if is_gpu else torch.float32


class Muon(torch.optim.Optimizer):
    """Momentum, made (nearly) orthogonal before it is applied to a matrix (Jordan et al. 2024).

    Updates are scaled to the size that AdamW's usually have (Liu et al. 2025), so that rates and decay mean the same. Matrices of
    one shape are worked on together, at most `TOGETHER_BYTES` of them: what that takes does not grow with the model.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        work_type: torch.dtype = torch.float32,
    ):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._work_type = work_type

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for alike in by_shape.values():
                count = max(1, TOGETHER_BYTES // alike[0].nbytes)
                for first in range(0, len(alike), count):
                    self._update(alike[first : first + count], group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Of one shape."""
        moved = torch.stack(self._moved(parameters, group["momentum"])).to(self._work_type)
        update = orthogonal(moved).to(parameters[0].dtype)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        scale = group["lr"] * 0.2 * math.sqrt(max(parameters[0].shape))
        torch._foreach_add_(parameters, list(update.unbind()), alpha=-scale)

    def _moved(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """The gradients, after Nesterov's momentum."""
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        kept = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(kept, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, kept, momentum))


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N, rows, columns) → about U Vᵀ of each matrix's U S Vᵀ, by Newton and Schulz's iteration."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if is_tall else x


class Together:
    """Several optimizers as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self._optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none)

    def gather_state(self) -> None:
        gather_state(*self._optimizers)

    def state_dict(self) -> dict[str, Any]:
        return {str(index): optimizer.state_dict() for index, optimizer in enumerate(self._optimizers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for index, optimizer in enumerate(self._optimizers):
            optimizer.load_state_dict(state[str(index)])


def learning_rate_at(progress: float, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to the floor. `progress` is the fraction of the run that is done, in [0, 1]."""
    warmup = config.warmup_steps_perc
    if progress < warmup:
        return config.learning_rate * max(progress, 1e-3 * warmup) / warmup
    done = (progress - warmup) / max(1 - warmup, 1e-9)
    floor = config.min_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class WeightAverage:
    """Exponential moving average of the parameters, with the usual warm-up of the decay."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self._source = list(model.parameters())
        self.shadow = [p.detach().clone() for p in self._source]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self._source], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the model's weights with the average; call twice to undo."""
        for parameter, average in zip(self._source, self.shadow, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"steps": self.steps, **{str(i): t for i, t in enumerate(self.shadow)}}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self.steps = int(state["steps"])
        for index, tensor in enumerate(self.shadow):
            tensor.copy_(state[str(index)])
