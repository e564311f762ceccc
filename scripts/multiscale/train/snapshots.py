"""Weights of a run in half precision, in small files: for taking them off a machine that will be gone."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from multiscale.model.checkpoint import save_parts

MAX_PART_BYTES = 15 * 2**20


class Snapshots:
    """A folder with the latest weights, `step-<number>`; the one before is removed once the next is whole."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Tensor], step: int) -> None:
        """Matrices in float16; vectors, such as norms and rotary frequencies, as they are."""
        half = {name: t.half() if t.dim() > 1 and t.is_floating_point() else t for name, t in state.items()}
        target = self._folder / f"step-{step:08d}"
        temporary = target.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        temporary.mkdir()
        save_parts(temporary, half, MAX_PART_BYTES)
        temporary.rename(target)
        for other in self._folder.glob("step-*"):
            if other != target:
                shutil.rmtree(other)
