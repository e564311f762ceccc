"""Optimizer, learning-rate schedule and weight averaging."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from multiscale.train.config import TrainConfig

# Scales, biases and recurrence parameters have no reason to shrink; embeddings are looked up, not multiplied.
_NO_DECAY = ("A_log", "D", "dt_bias", "start_tokens", "embedding", "pos_embs")


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= 2 and not any(part in name for part in _NO_DECAY)
        (decayed if is_matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.adam_betas, eps=1e-8, fused=fused)


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
