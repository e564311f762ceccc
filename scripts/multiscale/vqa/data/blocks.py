"""A block: some images and everything that is asked about them, in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiscale.vqa.clevr.families import KINDS
from multiscale.vqa.clevr.programs import program_from_json
from multiscale.vqa.preprocess import preprocess_image


@dataclass(frozen=True)
class Block:
    pixels: np.ndarray
    """(N, 3, height, width) uint8."""
    image: np.ndarray
    """(M,): row of each question's image; questions of one image lie together."""
    questions: list[str]
    answers: list[str]
    kind: np.ndarray
    """(M,): index into `KINDS`."""
    listed: list[bytes] | None = None
    """Per image, the list of its objects."""

    def __len__(self) -> int:
        """Images."""
        return len(self.pixels)

    def asked(self, image: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
        """Numbers of an image's questions, and the questions with their answers."""
        numbers = np.flatnonzero(self.image == image)
        return numbers, [(self.questions[i], self.answers[i]) for i in numbers]


def kind_of(last_function: str) -> str:
    """One of `KINDS`, by the function that makes a program's answer."""
    if last_function in ("exist", "count"):
        return last_function
    if last_function in ("equal_integer", "less_than", "greater_than"):
        return "compare_integer"
    return "compare_attribute" if last_function.startswith("equal_") else "query_attribute"


def read_clevr(folder: Path, split: str, limit: int | None = None, width: int = 62, height: int = 41) -> Block:
    """The first `limit` images of a split of CLEVR, in its own layout, with their questions. Raises ValueError."""
    path = folder / "questions" / f"CLEVR_{split}_questions.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no CLEVR folder: it has no {path.relative_to(folder)}")
    entries = json.loads(path.read_text())["questions"]
    if entries and "answer" not in entries[0]:
        raise ValueError(f"{path}: its questions have no answers")
    names = sorted({entry["image_filename"] for entry in entries})[:limit]
    row = {name: k for k, name in enumerate(names)}
    entries = sorted((e for e in entries if e["image_filename"] in row), key=lambda e: row[e["image_filename"]])
    files = [folder / "images" / split / name for name in names]
    pixels = np.stack([preprocess_image(file.read_bytes(), width, height) for file in files])
    return Block(
        pixels,
        np.array([row[e["image_filename"]] for e in entries]),
        [e["question"] for e in entries],
        [e["answer"] for e in entries],
        np.array([KINDS.index(kind_of(program_from_json(e["program"])[-1].function)) for e in entries]),
    )
