"""A block: some images and everything that is asked about them, in memory."""

from __future__ import annotations

import functools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiscale.vqa.clevr.families import KINDS
from multiscale.vqa.clevr.programs import program_from_json
from multiscale.vqa.layout import ImageLayout
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

    def thinned(self, per_image: int) -> Block:
        """At most so many questions about every image, the first of them."""
        first = np.searchsorted(self.image, self.image)
        kept = np.flatnonzero(np.arange(len(self.image)) - first < per_image)
        questions, answers = ([texts[i] for i in kept] for texts in (self.questions, self.answers))
        return Block(self.pixels, self.image[kept], questions, answers, self.kind[kept], self.listed)

    def part(self, first: int, count: int) -> Block:
        """`count` images and what is asked about them."""
        kept = np.flatnonzero((self.image >= first) & (self.image < first + count))
        place = slice(first, first + count)
        return Block(
            self.pixels[place],
            self.image[kept] - first,
            [self.questions[i] for i in kept],
            [self.answers[i] for i in kept],
            self.kind[kept],
            None if self.listed is None else self.listed[place],
        )


def kind_of(last_function: str) -> str:
    """One of `KINDS`, by the function that makes a program's answer."""
    if last_function in ("exist", "count"):
        return last_function
    if last_function in ("equal_integer", "less_than", "greater_than"):
        return "compare_integer"
    return "compare_attribute" if last_function.startswith("equal_") else "query_attribute"


def read_clevr(
    folder: Path, split: str, limit: int | None = None, layout: ImageLayout | None = None, workers: int = 1
) -> Block:
    """The first `limit` images of a split of CLEVR, in its own layout, with their questions.

    `layout` says how images are cropped and sized (default: as published); `workers` processes do it. Raises ValueError.
    """
    path = folder / "questions" / f"CLEVR_{split}_questions.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no CLEVR folder: it has no {path.relative_to(folder)}")
    entries = json.loads(path.read_text())["questions"]
    if not entries:
        raise ValueError(f"{path} has no questions")
    if "answer" not in entries[0]:
        raise ValueError(f"{path}: its questions have no answers")
    names = sorted({entry["image_filename"] for entry in entries})[:limit]
    row = {name: k for k, name in enumerate(names)}
    entries = sorted((e for e in entries if e["image_filename"] in row), key=lambda e: row[e["image_filename"]])
    files = [folder / "images" / split / name for name in names]
    read = functools.partial(_read_image, layout or ImageLayout())
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            pixels = list(pool.map(read, files, chunksize=64))
    else:
        pixels = [read(file) for file in files]
    return Block(
        np.stack(pixels),
        np.array([row[e["image_filename"]] for e in entries]),
        [e["question"] for e in entries],
        [e["answer"] for e in entries],
        np.array([KINDS.index(kind_of(program_from_json(e["program"])[-1].function)) for e in entries]),
    )


def _read_image(layout: ImageLayout, file: Path) -> np.ndarray:
    try:
        return preprocess_image(file.read_bytes(), layout.width, layout.height, layout.crop)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
