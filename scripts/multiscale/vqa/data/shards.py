"""Shards: packed rows on disk, one file for a block of images, written by workers while a model already trains on them."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from multiscale.vqa.clevr.bulk import draw_attempts, first_visible, training_pixels
from multiscale.vqa.clevr.questions import IMAGES_PER_BLOCK
from multiscale.vqa.clevr.scenes import Scenes
from multiscale.vqa.data.blocks import Block
from multiscale.vqa.data.generated import generated_block
from multiscale.vqa.data.rows import Row, image_first_row, question_first_row, stack_rows
from multiscale.vqa.layout import ANSWER_IDS, VqaLayout
from multiscale.vqa.preprocess import encode_pixels

INFO = "info.json"


@dataclass(frozen=True)
class ShardPlan:
    """What a folder of shards holds."""

    layout: VqaLayout
    count: int
    """Shards."""
    seed: int
    patches: int = 1280
    """Room of a row."""
    scored: int = 40
    per_image: int = 24
    """Questions about an image."""
    images: int = IMAGES_PER_BLOCK
    """In a shard."""
    lists: bool = True
    """Whether the list of objects is a branch as well."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INFO).write_text(json.dumps({**self.__dict__, "layout": self.layout.to_manifest()}, indent=2))

    @classmethod
    def read(cls, folder: Path) -> ShardPlan:
        path = folder / INFO
        if not path.is_file():
            raise ValueError(f"{folder} holds no shards: it has no {INFO}")
        info = json.loads(path.read_text())
        return cls(**{**info, "layout": VqaLayout.from_manifest(info["layout"])})


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.npz"


def generate_shards(folder: Path, plan: ShardPlan, device: str, workers: int) -> None:
    """Renders on `device`; `workers` processes draw scenes, write questions and pack. Shards that exist are kept."""
    plan.write(folder)
    todo = [index for index in range(plan.count) if not shard_path(folder, index).exists()]
    image, images = plan.layout.image, plan.images
    drawn: dict[int, Future[Scenes]] = {}
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        written = []
        for place, index in enumerate(todo):
            for later in todo[place : place + 2 * workers]:
                if later not in drawn:
                    drawn[later] = pool.submit(draw_attempts, plan.seed, later * images, images, 0)
            scenes = first_visible(drawn[index].result(), plan.seed, index * images, images, device)
            drawn[index] = None  # type: ignore[assignment]
            pixels = training_pixels(scenes, image.width, image.height, image.crop, device, plan.seed + index)
            written.append(pool.submit(_generate_shard, folder, plan, index, scenes, pixels.cpu().numpy()))
        for future in written:
            future.result()


def _generate_shard(folder: Path, plan: ShardPlan, index: int, scenes: Scenes, pixels: np.ndarray) -> None:
    block = generated_block(scenes, pixels, plan.layout.image, plan.per_image, (plan.seed, index))
    write_shard(folder, plan, index, block)


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
        )
    temporary.replace(path)


def _rows(plan: ShardPlan, block: Block, image: int, rng: np.random.Generator) -> list[Row]:
    layout, content = plan.layout, encode_pixels(block.pixels[image], plan.layout.image)
    numbers, asked = block.asked(image)
    order = rng.permutation(len(asked))
    numbers, asked = numbers[order], [asked[i] for i in order]
    if layout.order == "question_image_question_answer":
        return [
            question_first_row(layout, content, one, int(n), plan.patches)
            for n, one in zip(numbers, asked, strict=True)
        ]
    listed = block.listed[image] if plan.lists and block.listed is not None else None
    row = image_first_row(layout, content, listed, asked, plan.patches, plan.scored)
    question = np.where(row.question >= 0, np.append(numbers, -1)[row.question], -1).astype(np.int16)
    return [Row(row.ids, row.branch, row.scored, row.weights, question)]


def read_shard(folder: Path, index: int, wait_seconds: float = 120) -> dict[str, np.ndarray]:
    """Waits for a shard that is still to be written. Raises ValueError if it does not come."""
    path, until = shard_path(folder, index), time.monotonic() + wait_seconds
    while not path.exists():
        if time.monotonic() > until:
            raise ValueError(f"{path} did not appear within {wait_seconds:.0f} s")
        time.sleep(0.1)
    with np.load(path) as arrays:
        return dict(arrays)
