"""Shards: packed rows on disk, one file for a block of images."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from multiscale.vqa.data.blocks import Block
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.data.rows import Row, image_first_row, question_first_row, stack_rows
from multiscale.vqa.layout import ANSWER_IDS
from multiscale.vqa.preprocess import encode_pixels

log = logging.getLogger("train")
_WORD_OF_ID = {identity: word for word, identity in ANSWER_IDS.items()}


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.npz"


def write_shard(folder: Path, plan: ShardPlan, index: int, block: Block) -> None:
    rng = np.random.default_rng((plan.seed, index))
    rows = [row for image in range(len(block)) for row in _rows(plan, block, image, rng)]
    path = shard_path(folder, index)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(
            file,
            **stack_rows(rows),
            pixels=block.pixels,
            image=block.image.astype(np.int32),
            kind=block.kind.astype(np.int8),
            answer=np.array([ANSWER_IDS[a] for a in block.answers], np.uint8),
            text=np.frombuffer("\n".join(block.questions).encode(), np.uint8),
            listed=np.frombuffer(b"\n".join(block.listed or []), np.uint8),
        )
    temporary.replace(path)


def _rows(plan: ShardPlan, block: Block, image: int, rng: np.random.Generator) -> list[Row]:
    layout, content = plan.layout, encode_pixels(block.pixels[image], plan.layout.image)
    numbers, asked = block.asked(image)
    order = rng.permutation(len(asked))
    numbers, asked = numbers[order], [asked[i] for i in order]
    if layout.order == "question_image_question_answer":
        return [
            question_first_row(layout, content, one, int(n), plan.patches, plan.scored, plan.loss)
            for n, one in zip(numbers, asked, strict=True)
        ]
    listed = block.listed[image] if plan.lists and block.listed is not None else None
    row = image_first_row(layout, content, listed, asked, plan.patches, plan.scored, plan.loss, plan.told)
    question = np.where(row.question >= 0, np.append(numbers, -1)[row.question], -1).astype(np.int16)
    return [Row(row.ids, row.branch, row.scored, row.weights, question)]


def appears(path: Path, seconds: float) -> bool:
    """Waits for a file; whether it is there."""
    if path.exists():
        return True
    log.info("waiting up to %.0f s for %s", seconds, path)
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def read_shard(folder: Path, index: int, wait_seconds: float = 120) -> dict[str, np.ndarray]:
    """Waits for a shard that is still to be written. Raises ValueError if it does not come."""
    path = shard_path(folder, index)
    if not appears(path, wait_seconds):
        raise ValueError(f"{path} did not appear within {wait_seconds:.0f} s")
    with np.load(path) as arrays:
        return dict(arrays)


def read_block(folder: Path, index: int, wait_seconds: float = 120) -> Block:
    """The images and questions that a shard was packed from. Raises ValueError if it does not come."""
    shard = read_shard(folder, index, wait_seconds)
    listed = shard["listed"].tobytes()
    return Block(
        shard["pixels"],
        shard["image"],
        shard["text"].tobytes().decode().split("\n"),
        [_WORD_OF_ID[int(answer)] for answer in shard["answer"]],
        shard["kind"],
        listed.split(b"\n") if listed else None,
    )
