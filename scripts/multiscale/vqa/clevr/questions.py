"""Questions for scenes, with the balance rules of CLEVR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from multiscale.vqa.clevr.drafting import Draft, NoChoiceError
from multiscale.vqa.clevr.families import FAMILIES, Family
from multiscale.vqa.clevr.programs import Program, SceneIndex, answer_word, is_degenerate
from multiscale.vqa.clevr.scenes import Scenes
from multiscale.vqa.layout import MAX_QUESTION_BYTES

IMAGES_PER_BLOCK = 250
"""Balance is kept, and counters start anew, over this many images; blocks are independent of each other."""
TRIES_PER_FAMILY = 5
MIN_QUESTION_BYTES = 18
ALL_FAMILIES = range(len(FAMILIES))
SIMPLE_FAMILIES = [index for index, family in enumerate(FAMILIES) if family.name == "zero_hop"]
"""Questions about things by what they look like: no relation, no comparison."""


@dataclass(frozen=True)
class Question:
    image: int
    """Row of the scene."""
    text: str
    program: Program
    answer: str
    family: int
    """Index into `FAMILIES`."""


class AnswerBalance:
    """How often each answer was given, per family: common answers are refused until others catch up."""

    def __init__(self, answers: tuple[str, ...]):
        self.counts = dict.fromkeys(answers, 0)

    def accepts(self, answer: str) -> bool:
        """Refused above 1.1 times the second most frequent answer's count, or 5 times max(median, 5)."""
        ordered = sorted(self.counts.values())
        count = self.counts[answer]
        return count <= 1.1 * ordered[-2] and count <= 5 * max(ordered[len(ordered) // 2], 5)

    def add(self, answer: str) -> None:
        self.counts[answer] += 1


def write_questions(
    scenes: Scenes, per_image: int, seed: tuple[int, ...], families: Sequence[int] = ALL_FAMILIES
) -> Iterator[Question]:
    """`per_image` questions, each of another family, for every scene of one block (at most `IMAGES_PER_BLOCK`).

    Families that were used least come first. An image for which too few families find a question gets fewer. Where more
    questions are wanted than there are `families` (indexes into `FAMILIES`), families are tried again.
    """
    rng = Random(repr(seed))
    balances = [AnswerBalance(family.answers) for family in FAMILIES]
    used = [0] * len(FAMILIES)
    for image in range(len(scenes)):
        count = int(scenes.count[image])
        scene = SceneIndex(scenes.attributes[image, :count], scenes.centers[image, :count])
        order = sorted(families, key=lambda f: (used[f], rng.random()))
        texts: set[str] = set()
        for family in order * -(-per_image // len(order)):
            if len(texts) == per_image:
                break
            written = _try_family(scene, FAMILIES[family], balances[family], rng)
            if written is None or written[0] in texts:
                continue
            text, program, answer = written
            texts.add(text)
            balances[family].add(answer)
            used[family] += 1
            yield Question(image, text, program, answer, family)


def _try_family(
    scene: SceneIndex, family: Family, balance: AnswerBalance, rng: Random
) -> tuple[str, Program, str] | None:
    for _ in range(TRIES_PER_FAMILY):
        draft = Draft(scene, rng)
        try:
            text = family.write(draft)
        except NoChoiceError:
            continue
        value = draft.values[-1]
        answer = answer_word(value)
        fits = value is not None and MIN_QUESTION_BYTES <= len(text) <= MAX_QUESTION_BYTES
        if fits and balance.accepts(answer) and not is_degenerate(scene, draft.program):
            return text, draft.program, answer
    return None
