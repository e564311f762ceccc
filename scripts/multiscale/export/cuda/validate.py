"""What the work type costs: the device's graphs, run with the reference operators, against PyTorch in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multiscale.export.cuda.cpu_graph import REFERENCE_LIBRARY
from multiscale.export.cuda.runner import CudaGraphRunner
from multiscale.export.cuda.work_type import WorkType
from multiscale.export.validate import log_softmax
from multiscale.model.network import MultiscaleByteModel

MAX_LOGPROB_ERROR = 1e-4
"""float32 differs by rounding only: the largest accepted |Δ log-prob| of any id at any position."""
MAX_DIVERGENCE = {WorkType.FP16: 1e-3, WorkType.BF16: 2e-2}
"""The largest accepted mean KL divergence from the float64 model, in bits per byte."""
NUM_ROWS = 8
LARGE_BYTES, SMALL_BYTES = 512, 32
"""Bytes of a prompt that are fed one by one; the small form's products are slow on the CPU."""
FLOOR = -10.0
"""Log-probs below are taken as equal: no one sees such ids."""


@dataclass(frozen=True)
class Accuracy:
    max_logprob_error: float
    """Over all ids whose log-probability is above -10 in either, nats."""
    mean_logprob_error: float
    mean_divergence: float
    """KL(float64 ‖ device), bits per byte."""
    greedy_agreement: float
    """Share of the positions at which the most probable id is the same."""
    num_positions: int

    def is_acceptable(self, work: WorkType) -> bool:
        if work is WorkType.FP32:
            return self.max_logprob_error <= MAX_LOGPROB_ERROR
        return self.mean_divergence <= MAX_DIVERGENCE[work]

    def describe(self, work: WorkType) -> str:
        limits = {WorkType.FP32: f"|Δ log-prob| ≤ {MAX_LOGPROB_ERROR:g}"}
        limit = limits.get(work) or f"divergence ≤ {MAX_DIVERGENCE[work]:g}"
        return (
            f"CUDA {work.value} against float64: |Δ log-prob| max {self.max_logprob_error:.2e}, "
            f"mean {self.mean_logprob_error:.2e}; mean divergence {self.mean_divergence:.2e} bits per byte; greedy bytes "
            f"agree at {100 * self.greedy_agreement:.2f} % of {self.num_positions} positions (accepted: {limit})"
        )

    def to_manifest(self, prompts: str) -> dict[str, Any]:
        return {
            "prompts": prompts,
            "max_abs_logprob_error": self.max_logprob_error,
            "mean_abs_logprob_error": self.mean_logprob_error,
            "mean_divergence_bits_per_byte": self.mean_divergence,
            "greedy_agreement": self.greedy_agreement,
            "positions": self.num_positions,
        }


def measure(
    folder: Path, model: MultiscaleByteModel, prompts: list[list[int]], library: Path = REFERENCE_LIBRARY
) -> Accuracy:
    """The large form byte by byte and with the whole steps of stage 0 prefilled; the small form on the first bytes."""
    exact, runner = copy.deepcopy(model).double(), CudaGraphRunner(folder, NUM_ROWS, library)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    prompts = [ids for ids in prompts if ids]
    for first in range(0, len(prompts), NUM_ROWS):
        rows = prompts[first : first + NUM_ROWS]
        expected = [_exact_log_probs(exact, ids) for ids in rows]
        actual = runner.logits([ids[:LARGE_BYTES] for ids in rows], "large")
        actual += runner.logits([ids[:SMALL_BYTES] for ids in rows], "small")
        for logits, wanted in zip(actual, expected * 2, strict=True):
            pairs.append((log_softmax(logits), wanted[: len(logits)]))
        for ids, wanted in zip(rows, expected, strict=True):
            (logits,) = runner.logits([ids], "large", chunk=max(3, len(ids) // 64))
            pairs.append((log_softmax(logits), wanted[-len(logits) :]))
    return summarize(*(np.concatenate(part) for part in zip(*pairs, strict=True)))


@torch.no_grad()
def _exact_log_probs(exact: MultiscaleByteModel, ids: list[int]) -> np.ndarray:
    """float64 (L, V)"""
    return torch.log_softmax(exact(torch.tensor([ids]))[0], -1).numpy()


def summarize(actual: np.ndarray, expected: np.ndarray) -> Accuracy:
    """Log-probs of N positions, (N, V)."""
    errors = np.abs(np.maximum(actual, FLOOR) - np.maximum(expected, FLOOR))
    seen = np.maximum(actual, expected) > FLOOR
    return Accuracy(
        max_logprob_error=float(errors.max()),
        mean_logprob_error=float(errors[seen].mean()),
        mean_divergence=float((np.exp(expected) * (expected - actual)).sum(-1).mean() / np.log(2)),
        greedy_agreement=float((actual.argmax(-1) == expected.argmax(-1)).mean()),
        num_positions=len(actual),
    )
