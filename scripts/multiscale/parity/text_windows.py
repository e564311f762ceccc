"""Prompts cut from a text file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_WINDOWS, WINDOW_BYTES = 8, 512


def text_windows(path: Path, longest: int) -> list[list[int]]:
    """Windows spread evenly over a file, of 512 bytes or `longest` if that is less. Raises ValueError for a short file."""
    content, size = path.read_bytes(), min(WINDOW_BYTES, longest)
    if len(content) < size:
        raise ValueError(f"{path} has {len(content)} bytes, at least {size} are needed")
    starts = np.linspace(0, len(content) - size, NUM_WINDOWS).astype(int)
    return [list(content[start : start + size]) for start in starts]
