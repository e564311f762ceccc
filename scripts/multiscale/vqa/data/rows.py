"""Packed training rows: an image and its questions as ids, with what is scored."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from multiscale.model.packed import VOID
from multiscale.vqa.layout import VqaLayout

LIST_WEIGHT = 0.3
"""Weight of a byte of the object list against an answer's."""


@dataclass(frozen=True)
class Row:
    """T patches of P bytes, K of them scored (see `model.packed.PackedRows`)."""

    ids: np.ndarray
    """(T, P) uint16: special ids may lie above the bytes."""
    branch: np.ndarray
    """(T,) int16."""
    scored: np.ndarray
    """(K,) int16; unused places repeat the last patch, with no weight."""
    weights: np.ndarray
    """(K, P) uint8, in tenths."""
    question: np.ndarray
    """(K,) int16: the question whose answer the patch's second byte is, -1 for none."""


def stack_rows(rows: list[Row]) -> dict[str, np.ndarray]:
    return {f.name: np.stack([getattr(row, f.name) for row in rows]) for f in fields(Row)}


class _RowWriter:
    def __init__(self, layout: VqaLayout, patches: int, scored: int):
        self.size = layout.align
        self.ids = np.full((patches, self.size), layout.special_ids.pad, np.uint16)
        self.branch = np.full(patches, VOID, np.int16)
        self.scored = np.full(scored, patches - 1, np.int16)
        self.weights = np.zeros((scored, self.size), np.uint8)
        self.question = np.full(scored, -1, np.int16)
        self.used = self.slots = 0

    def put(self, branch: int, content: list[int]) -> bool:
        count = len(content) // self.size
        if self.used + count > len(self.ids):
            return False
        place = slice(self.used, self.used + count)
        self.ids[place] = np.array(content, np.uint16).reshape(count, self.size)
        self.branch[place] = branch
        self.used += count
        return True

    def score_answer(self, question: int) -> None:
        """The patch that was put last begins with the answer's start id and the answer."""
        self.scored[self.slots], self.question[self.slots] = self.used - 1, question
        self.weights[self.slots, 0] = 10
        self.slots += 1

    def score_text(self, patches: int, num_bytes: int) -> None:
        """The text segment of `patches` patches that was put last, its end id included."""
        count = min(patches, len(self.scored) - self.slots)
        place = slice(self.slots, self.slots + count)
        self.scored[place] = np.arange(self.used - patches, self.used - patches + count)
        self.weights[place] = round(10 * LIST_WEIGHT)
        if count == patches:
            self.weights[self.slots + count - 1, (num_bytes + 1) % self.size :] = 0
        self.slots += count

    def row(self) -> Row:
        return Row(self.ids, self.branch, self.scored, self.weights, self.question)


def image_first_row(
    layout: VqaLayout, image: bytes, listed: bytes | None, asked: list[tuple[str, str]], patches: int, scored: int
) -> Row:
    """The image, then branches: the list of its objects if there is one, and questions with their answers.

    `patches` and `scored` are the room that there is; questions that do not fit are left out. Raises ValueError if the image
    itself does not fit.
    """
    writer = _RowWriter(layout, patches, scored)
    if not writer.put(0, layout.image_segment(image)):
        raise ValueError(f"an image of {len(image)} bytes does not fit into {patches} patches of {layout.align}")
    branch = 0
    if listed is not None and writer.put(1, segment := layout.text_segment(listed)):
        branch = 1
        writer.score_text(len(segment) // layout.align, len(listed))
    for index, (question, answer) in enumerate(asked):
        if writer.slots == scored:
            break
        if writer.put(branch + 1, [*layout.question_segment(question), *layout.answer_segment(answer)]):
            branch += 1
            writer.score_answer(index)
    return writer.row()


def question_first_row(layout: VqaLayout, image: bytes, asked: tuple[str, str], index: int, patches: int) -> Row:
    """question · image · question · answer: one question a row."""
    writer = _RowWriter(layout, patches, 1)
    if not writer.put(0, layout.sequence(image, *asked)):
        raise ValueError(f"an image of {len(image)} bytes and its question do not fit into {patches} patches")
    writer.score_answer(index)
    return writer.row()
