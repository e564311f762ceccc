"""Plots of long contexts: bits per byte by position, and facts remembered by distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def draw_positions(rows: Rows, path: Path) -> None:
    """Rows as of `evaluate.py position`; a point stands in the middle of its bin.

    Below, if contexts of limited length were measured, the bits that they cost: books differ by more than that.
    """
    windows = list(rows[0].get("in_windows", {}))
    figure, (axes, *below) = _new_plot("position in the file, bytes", "bits per byte", panels=2 if windows else 1)
    at = [(max(1, row["from"]) * row["to"]) ** 0.5 if row["from"] else row["to"] / 2 for row in rows]
    axes.plot(at, [row["bits_per_byte"] for row in rows], "o-", color="#1f4e9c", label="from all that was read")
    shades = ("#c2571a", "#8a8a8a", "#3f8f4f", "#8e44ad")
    for index, window in enumerate(windows):
        more = [row["in_windows"][window] - row["bits_per_byte"] for row in rows]
        label = f"from {int(window) // 2:,} to {int(window):,} bytes"
        below[0].plot(at, more, "s--", color=shades[index % len(shades)], label=label)
    for each in (axes, *below):
        each.legend(frameon=False)
    if below:
        below[0].set_ylabel("more bits per byte")
    figure.savefig(path)


def draw_needles(rows: Rows, path: Path) -> None:
    """Rows as of `evaluate.py needle`, with 95 % intervals."""
    figure, (axes,) = _new_plot("bytes from the fact to the answer", "digits right")
    at, shares = [row["distance"] for row in rows], [row["share"] for row in rows]
    below = [max(0.0, row["share"] - row["low"]) for row in rows]
    above = [max(0.0, row["high"] - row["share"]) for row in rows]
    axes.errorbar(at, shares, yerr=[below, above], fmt="o-", color="#1f4e9c", capsize=3, label="digits right")
    axes.axhline(rows[0]["chance"], color="#8a8a8a", linestyle=":", label="chance")
    axes.set_ylim(0, 1.03)
    axes.legend(frameon=False)
    figure.savefig(path)


def _new_plot(x: str, y: str, panels: int = 1) -> tuple[Any, list[Any]]:
    """A figure and its panels, one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3 + 1.5 * panels), dpi=120, layout="constrained")
    rows = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for axes in rows:
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    rows[0].set_ylabel(y)
    rows[-1].set_xlabel(x)
    return figure, list(rows)
