"""Packed training rows: an image and its questions as ids, with what is scored."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from multiscale.model.packed import VOID
from multiscale.vqa.layout import VqaLayout

LIST_WEIGHT = 0.3
"""Weight of a byte of the object list against an answer's."""
QUESTION_WEIGHT = 0.2
"""Weight of a byte of a question that is learned beside its answer."""
LOSSES = ("answer", "all")
"""What is scored: the byte that is the answer; or every segment, each from the byte behind its start id to its end id."""


@dataclass(frozen=True)
class Row:
    """T patches of P bytes, K of them scored (see `model.packed.PackedRows`)."""

    ids: np.ndarray
    """(T, P) uint8, or uint16 where special ids lie above the bytes."""
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
    def __init__(self, layout: VqaLayout, patches: int, scored: int, loss: str):
        self.size, self.scores_all = layout.align, loss == "all"
        kind = np.uint8 if max(layout.special_ids.model_dump().values()) < 256 else np.uint16
        self.ids = np.full((patches, self.size), layout.special_ids.pad, kind)
        self.branch = np.full(patches, VOID, np.int16)
        self.scored = np.full(scored, patches - 1, np.int16)
        self.weights = np.zeros((scored, self.size), np.uint8)
        self.question = np.full(scored, -1, np.int16)
        self.used = self.slots = 0

    def put(self, branch: int, content: list[int]) -> int | None:
        """The patch that it begins with; None if there is no room for it."""
        first, count = self.used, len(content) // self.size
        if first + count > len(self.ids):
            return None
        place = slice(first, first + count)
        self.ids[place] = np.array(content, self.ids.dtype).reshape(count, self.size)
        self.branch[place] = branch
        self.used += count
        return first

    def score_segment(self, first: int, num_bytes: int, weight: float = 1.0) -> None:
        """The `num_bytes` bytes of the segment that begins with patch `first`, and its end id."""
        patches = -(-(num_bytes + 2) // self.size)
        count = min(patches, len(self.scored) - self.slots)
        place = slice(self.slots, self.slots + count)
        self.scored[place] = np.arange(first, first + count)
        weights = np.zeros(patches * self.size, np.uint8)
        weights[: num_bytes + 1] = round(10 * weight)
        self.weights[place] = weights.reshape(patches, self.size)[:count]
        self.slots += count

    def room_for(self, num_bytes: int) -> int:
        """Patches that could still be scored after such a segment."""
        return len(self.scored) - self.slots - -(-(num_bytes + 2) // self.size)

    def score_answer(self, question: int) -> None:
        """The patch that was put last is the answer's segment."""
        self.scored[self.slots], self.question[self.slots] = self.used - 1, question
        self.weights[self.slots, : 2 if self.scores_all else 1] = 10
        self.slots += 1

    def row(self) -> Row:
        return Row(self.ids, self.branch, self.scored, self.weights, self.question)


def image_first_row(
    layout: VqaLayout,
    image: bytes,
    listed: bytes | None,
    asked: list[tuple[str, str]],
    patches: int,
    scored: int,
    loss: str = "answer",
    told: int = 0,
) -> Row:
    """The image, then branches: the list of its objects if there is one, and questions with their answers.

    `patches` and `scored` are the room that there is; questions that do not fit are left out. `loss`: one of `LOSSES`. `told`:
    of how many questions their own bytes are learned as well, as far as there is room.
    Raises ValueError if the image itself does not fit.
    """
    writer = _RowWriter(layout, patches, scored, loss)
    if writer.put(0, layout.image_segment(image)) is None:
        raise ValueError(f"an image of {len(image)} bytes does not fit into {patches} patches of {layout.align}")
    if writer.scores_all:
        writer.score_segment(0, len(image))
    branch = 0
    if listed is not None and (first := writer.put(1, layout.text_segment(listed))) is not None:
        branch = 1
        writer.score_segment(first, len(listed), LIST_WEIGHT)
    for index, (question, answer) in enumerate(asked):
        if writer.slots == scored:
            break
        first = writer.put(branch + 1, [*layout.question_segment(question), *layout.answer_segment(answer)])
        if first is not None:
            branch += 1
            size = len(question.encode())
            if writer.scores_all:
                writer.score_segment(first, size)
            elif index < told and writer.room_for(size) >= len(asked) - index:
                writer.score_segment(first, size, QUESTION_WEIGHT)
            writer.score_answer(index)
    return writer.row()


def question_first_row(
    layout: VqaLayout,
    image: bytes,
    asked: tuple[str, str],
    index: int,
    patches: int,
    scored: int = 1,
    loss: str = "answer",
) -> Row:
    """question · image · question · answer: one question a row. Raises ValueError if that does not fit."""
    writer, (question, answer) = _RowWriter(layout, patches, scored, loss), asked
    said, seen = layout.question_segment(question), layout.image_segment(image)
    if writer.put(0, [*said, *seen, *said, *layout.answer_segment(answer)]) is None:
        raise ValueError(f"an image of {len(image)} bytes and its question do not fit into {patches} patches")
    if writer.scores_all:
        size = len(question.encode())
        writer.score_segment(0, size)
        writer.score_segment(len(said) // layout.align, len(image))
        writer.score_segment((len(said) + len(seen)) // layout.align, size)
    writer.score_answer(index)
    return writer.row()
