"""What a folder of shards holds: written beside them, read by whatever uses them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiscale.vqa.clevr.questions import IMAGES_PER_BLOCK
from multiscale.vqa.data.rows import LOSSES
from multiscale.vqa.layout import VqaLayout

INFO = "info.json"
MIN_ALIGN = 3
"""The answer's segment, start id, answer and end id, has to be one patch."""
MAX_PATCHES = 32_767


@dataclass(frozen=True)
class ShardPlan:
    """What a folder of shards holds."""

    layout: VqaLayout
    count: int
    """Shards."""
    seed: int
    patches: int = 1151
    """Room of a row."""
    scored: int = 40
    """Most patches of a row with bytes to score."""
    per_image: int = 12
    """Questions about an image, in CLEVR's mixture."""
    simple: int = 0
    """Further questions about an image, all of them without relations (`SIMPLE_FAMILIES`)."""
    told: int = 0
    """Of how many questions of a row their own bytes are learned beside the answer."""
    images: int = IMAGES_PER_BLOCK
    """In a shard."""
    lists: bool = False
    """Whether the list of objects is a branch as well."""
    loss: str = "answer"
    """One of `LOSSES`."""

    def __post_init__(self) -> None:
        if self.layout.align < MIN_ALIGN:
            raise ValueError(f"align: {self.layout.align}, patches must have {MIN_ALIGN} bytes or more, for an answer")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: {self.loss!r} is none of {', '.join(LOSSES)}")
        if self.loss == "all" and self.scored < self.patches:
            raise ValueError(f"scored: {self.scored} is less than the {self.patches} patches, all of which are scored")
        if not 1 <= self.patches <= MAX_PATCHES:
            raise ValueError(f"patches: {self.patches} is not in 1 … {MAX_PATCHES}")

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "layout": self.layout.to_manifest()}

    def write(self, folder: Path) -> None:
        """Raises ValueError if the folder holds shards of another plan (other than more or fewer of them)."""
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / INFO).exists():
            there = {**ShardPlan.read(folder).to_json(), "count": self.count}
            if there != self.to_json() and any(folder.glob("shard-*.npz")):
                raise ValueError(f"{folder} holds other shards: give another --out or remove them")
        (folder / INFO).write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> ShardPlan:
        """`path`: a folder of shards or its info.json. Raises ValueError."""
        file = path if path.is_file() else path / INFO
        if not file.is_file():
            raise ValueError(f"{path} holds no shards: it has no {INFO}")
        try:
            info = json.loads(file.read_text())
            return cls(**{**info, "layout": VqaLayout.from_manifest(info["layout"])})
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} describes no shards: {error}") from None
