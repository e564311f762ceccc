"""Accuracy by kind of question, with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from multiscale.vqa.clevr.families import KINDS
from multiscale.vqa.data.blocks import Block


@dataclass(frozen=True)
class Share:
    right: int
    count: int

    @property
    def value(self) -> float:
        return self.right / self.count if self.count else math.nan

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's interval of 95 %."""
        if self.count == 0:
            return 0.0, 1.0
        n, p = self.count, self.value
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def shares(block: Block, answers: list[str]) -> dict[str, Share]:
    """By kind, and over `all`. Raises ValueError if there is not one answer for every question."""
    if len(answers) != len(block.answers):
        raise ValueError(f"{len(answers)} answers for {len(block.answers)} questions")
    right = np.array([given == wanted for given, wanted in zip(answers, block.answers, strict=True)])
    result = {
        kind: Share(int(right[block.kind == k].sum()), int((block.kind == k).sum())) for k, kind in enumerate(KINDS)
    }
    return result | {"all": Share(int(right.sum()), len(right))}


def table(results: dict[str, dict[str, Share]]) -> str:
    """Markdown: one row for every model, percent with the half-width of the interval."""
    columns = [*KINDS, "all"]
    lines = ["| | " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, by_kind in results.items():
        cells = [_cell(by_kind[column]) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    counts = next(iter(results.values()))
    lines.append("| questions | " + " | ".join(str(counts[column].count) for column in columns) + " |")
    return "\n".join(lines)


def _cell(share: Share) -> str:
    if share.count == 0:
        return "–"
    low, high = share.interval()
    return f"{100 * share.value:.1f} ({100 * low:.1f}–{100 * high:.1f})"
