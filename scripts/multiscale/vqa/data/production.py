"""Many shards at once, written by workers while a model already trains on the first."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from multiscale.vqa.clevr.bulk import draw_attempts, first_visible, training_pixels, visible_scenes
from multiscale.vqa.clevr.scenes import Scenes
from multiscale.vqa.data.blocks import Block
from multiscale.vqa.data.generated import generated_block
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.data.shards import read_block, shard_path, write_shard


def generate_shards(folder: Path, plan: ShardPlan, device: str, workers: int) -> None:
    """Shards that exist are kept. On the CPU the `workers` processes do everything; else this one renders on `device`."""
    plan.write(folder)
    todo = [index for index in range(plan.count) if not shard_path(folder, index).exists()]
    with one_thread_each(workers) as pool:
        if device == "cpu":
            written = [pool.submit(_generate_shard, folder, plan, index) for index in todo]
        else:
            written = _render_here(pool, folder, plan, todo, device, 2 * workers)
        for future in written:
            future.result()


def one_thread_each(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


def _render_here(
    pool: ProcessPoolExecutor, folder: Path, plan: ShardPlan, todo: list[int], device: str, ahead: int
) -> list[Future[None]]:
    """Draws the scenes of `ahead` shards in advance; packs behind."""
    drawn: dict[int, Future[Scenes]] = {}
    written = []
    for place, index in enumerate(todo):
        for later in todo[place : place + ahead]:
            if later not in drawn:
                drawn[later] = pool.submit(draw_attempts, plan.seed, later * plan.images, plan.images, 0)
        scenes = first_visible(drawn[index].result(), plan.seed, index * plan.images, plan.images, device)
        drawn[index] = None  # type: ignore[assignment]
        written.append(pool.submit(_pack_scenes, folder, plan, index, scenes, _pixels(plan, index, scenes, device)))
    return written


def _generate_shard(folder: Path, plan: ShardPlan, index: int) -> None:
    scenes = visible_scenes(plan.seed, index * plan.images, plan.images)
    _pack_scenes(folder, plan, index, scenes, _pixels(plan, index, scenes, "cpu"))


def _pixels(plan: ShardPlan, index: int, scenes: Scenes, device: str) -> np.ndarray:
    image = plan.layout.image
    return training_pixels(scenes, image.width, image.height, image.crop, device, plan.seed + index).cpu().numpy()


def _pack_scenes(folder: Path, plan: ShardPlan, index: int, scenes: Scenes, pixels: np.ndarray) -> None:
    block = generated_block(scenes, pixels, plan.layout.image, plan.per_image, (plan.seed, index), plan.simple)
    write_shard(folder, plan, index, block)


def pack_block(folder: Path, plan: ShardPlan, block: Block, workers: int) -> None:
    """Shards out of one large block; `plan.images` each, as many as the plan says."""
    plan.write(folder)
    with one_thread_each(workers) as pool:
        parts = ((index, block.part(index * plan.images, plan.images)) for index in range(plan.count))
        for future in [pool.submit(write_shard, folder, plan, index, part) for index, part in parts]:
            future.result()


def repack_shards(source: Path, folder: Path, plan: ShardPlan, workers: int) -> None:
    """The same images and questions in another layout. Raises ValueError where the images' size differs."""
    old, new = ShardPlan.read(source).layout.image, plan.layout.image
    if (old.width, old.height, old.crop) != (new.width, new.height, new.crop):
        raise ValueError(f"{source}: its images are cropped or sized otherwise than the new shards'")
    plan.write(folder)
    with one_thread_each(workers) as pool:
        for future in [pool.submit(_repack, source, folder, plan, index) for index in range(plan.count)]:
            future.result()


def _repack(source: Path, folder: Path, plan: ShardPlan, index: int) -> None:
    if not shard_path(folder, index).exists():
        write_shard(folder, plan, index, read_block(source, index).thinned(plan.per_image + plan.simple))
