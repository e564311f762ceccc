"""Answers of models to a test set, in a file: with their questions, so that they are not taken for another set's."""

from __future__ import annotations

import json
from pathlib import Path

from multiscale.vqa.data.blocks import Block


def write_answers(path: Path, block: Block, answers: dict[str, list[str]]) -> None:
    """`answers`: by the model's name, one for every question."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"questions": block.questions, "answers": answers}) + "\n")


def read_answers(path: Path, block: Block) -> dict[str, list[str]]:
    """The answers to the questions of a block, which may be the first ones of the file's. Raises ValueError otherwise."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.keys() != {"questions", "answers"}:
        raise ValueError(f"{path} holds no answers (scripts/train_baselines.py writes them)")
    count = len(block.questions)
    if content["questions"][:count] != block.questions:
        raise ValueError(f"{path} answers the questions of another data set")
    return {name: given[:count] for name, given in content["answers"].items()}
