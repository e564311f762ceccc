"""Compares a bundle with the PyTorch model it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from multiscale.export.incremental_runner import IncrementalRunner
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

MAX_LOGPROB_ERROR = 1e-4
"""fp32 differs from PyTorch by rounding only: the largest accepted |Δ log-prob| of any id at any position."""
MAX_DIVERGENCE = {"fp16": 1e-4, "int8": 5e-3}
"""Reduced precision changes weights: the largest accepted mean KL divergence from the original model, in bits per byte."""


@dataclass(frozen=True)
class Comparison:
    """How far a bundle is from the model."""

    max_logprob_error: float
    """Over every id whose log-probability is above -10 in either (nats)."""
    mean_divergence: float
    """KL(model ‖ bundle), bits per byte."""

    def is_acceptable(self, precision: str) -> bool:
        if precision == "fp32":
            return self.max_logprob_error <= MAX_LOGPROB_ERROR
        return self.mean_divergence <= MAX_DIVERGENCE[precision]

    def describe(self, precision: str) -> str:
        limits = {"fp32": f"|Δ log-prob| ≤ {MAX_LOGPROB_ERROR:g}"}
        limit = limits.get(precision) or f"divergence ≤ {MAX_DIVERGENCE[precision]:g}"
        return (
            f"worst |Δ log-prob| {self.max_logprob_error:.2e}, mean divergence {self.mean_divergence:.2e} bits per byte "
            f"(accepted: {limit})"
        )


def awkward_lengths(config: ModelConfig) -> list[int]:
    """0, 1, and one less, equal and one more than every stage's step, and several steps; bounded by the context."""
    lengths = {0, 1, 2}
    for stage in range(config.num_stages):
        step = config.bytes_per_step(stage)
        for multiple in (1, 2, 3):
            lengths |= {multiple * step - 1, multiple * step, multiple * step + 1}
    limit = min(config.context_length, 4 * config.bytes_per_step(0) + 64)
    return sorted(length for length in lengths if 0 <= length <= limit)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def forward_logits(model: MultiscaleByteModel) -> Callable[[list[int]], np.ndarray]:
    """ids → logits after each of them (L, V); for no ids (1, V)."""

    @torch.no_grad()
    def run(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids], dtype=torch.long))[0].numpy()

    return run


def compare(folder: Path, reference: Callable[[list[int]], np.ndarray], prompts: list[list[int]]) -> Comparison:
    """Compares every position of every prompt with `reference` (ids → logits after each of them).

    Each prompt is fed twice: byte by byte, and with its whole steps prefilled in chunks of three.
    """
    runner, worst, divergences = IncrementalRunner(folder), 0.0, []
    for ids in prompts:
        expected = log_softmax(reference(ids))
        for actual, wanted in ((_feed_all(runner, ids), expected), _feed_prefilled(runner, ids, expected)):
            divergences.append(float((np.exp(wanted) * (wanted - actual)).sum(-1).mean() / np.log(2)))
            worst = max(worst, float(np.abs(np.maximum(actual, -10) - np.maximum(wanted, -10)).max()))
    return Comparison(worst, float(np.mean(divergences)))


def _feed_all(runner: IncrementalRunner, ids: list[int]) -> np.ndarray:
    runner.reset()
    return log_softmax(np.stack([runner.feed(byte) for byte in ids] if ids else [runner.initial_logits]))


def _feed_prefilled(runner: IncrementalRunner, ids: list[int], expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs after the bytes that prefill leaves over, and the expected ones at the same positions."""
    if not ids:
        return expected, expected
    runner.reset()
    taken = runner.prefill(ids, 3)
    return log_softmax(np.stack([runner.feed(byte) for byte in ids[taken:]])), expected[taken:]


def random_prompts(config: ModelConfig, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    low = 1 if config.pad_token_id == 0 else 0
    high = min(config.num_tokens, 256)
    return [generator.integers(low, high, length).tolist() for length in awkward_lengths(config)]
