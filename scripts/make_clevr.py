#!/usr/bin/env python3
"""Makes visual questions in the format of CLEVR: scenes, rendered images, questions with programs, answers.

    python scripts/make_clevr.py files --out data/clevr --split val --images 1000
    python scripts/make_clevr.py shards --out data/shards --shards 320 --device cuda
    python scripts/make_clevr.py pack --data CLEVR_v1.0 --split train --out data/shards-real
    python scripts/make_clevr.py ask --scenes CLEVR_train_scenes.json --images FOLDER --out data/real --split real

`files` writes CLEVR's own folders. `shards` writes training data for scripts/train.py (data set `vqa`) without the detour over
files: it renders on the GPU where there is one and can run while a model already trains on the first shards. `pack` makes such
shards out of CLEVR's folders, real or generated. `ask` writes questions about annotated images that exist.
The same seed gives the same scenes and questions; pixels may differ by a level between devices.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from multiscale.vqa.clevr.files import QUESTIONS_PER_IMAGE, ask_scenes, write_split
from multiscale.vqa.data.blocks import Block, read_clevr
from multiscale.vqa.data.shards import ShardPlan, generate_shards, write_shard
from multiscale.vqa.layout import SPECIAL_IDS, ImageLayout, SpecialIds, VqaLayout


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    files = tasks.add_parser("files", help="a split in CLEVR's own layout")
    files.add_argument("--images", type=int, required=True, help="how many")
    shards = tasks.add_parser("shards", help="training data, straight from the generator")
    shards.add_argument("--shards", type=int, required=True, help="how many, of 250 images each")
    shards.add_argument(
        "--no-lists", action="store_true", help="leave out the lists of objects, train on questions alone"
    )
    pack = tasks.add_parser("pack", help="training data out of CLEVR's folders")
    pack.add_argument("--data", type=Path, required=True, help="CLEVR folder")
    pack.add_argument("--limit-images", type=int, help="read only this many images")
    ask = tasks.add_parser("ask", help="questions about annotated images")
    ask.add_argument("--scenes", type=Path, required=True, help="scenes.json")
    ask.add_argument("--images", type=Path, required=True, help="folder of the images")
    for task in (files, shards, pack, ask):
        task.add_argument("--out", type=Path, required=True, help="folder to write")
        task.add_argument("--seed", type=int, default=0)
        task.add_argument("--per-image", type=int, default=24 if task in (shards, pack) else QUESTIONS_PER_IMAGE)
    for task in (files, pack, ask):
        task.add_argument("--split", default="train", help="name of the split (default: train)")
    for task in (files, shards):
        task.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        task.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    for task in (shards, pack):
        _add_layout(task)
    return parser.parse_args()


def _add_layout(task: argparse.ArgumentParser) -> None:
    task.add_argument("--order", choices=("image-first", "published"), default="image-first")
    task.add_argument("--mode", choices=("pixels", "jpeg"), default="pixels")
    task.add_argument("--levels", type=int, help="levels of a pixel's channel (default: all 256)")
    task.add_argument("--quality", type=int, default=75, help="of JPEG files")
    task.add_argument("--restart-blocks", type=int, default=0, help="JPEG: blocks between restart markers")
    task.add_argument("--align", type=int, default=8, help="bytes of a patch")
    task.add_argument("--special-ids", choices=tuple(SPECIAL_IDS), default="in_range")
    task.add_argument("--patches", type=int, default=1279, help="room of a row, in patches")


def plan_of(arguments: argparse.Namespace, count: int, images: int, lists: bool) -> ShardPlan:
    order = "image_question_answer" if arguments.order == "image-first" else "question_image_question_answer"
    image = ImageLayout(
        mode=arguments.mode,
        levels=arguments.levels,
        quality=arguments.quality,
        restart_blocks=arguments.restart_blocks,
    )
    special = SpecialIds(**SPECIAL_IDS[arguments.special_ids])
    layout = VqaLayout(order=order, align=arguments.align, image=image, special_ids=special)
    return ShardPlan(
        layout,
        count,
        arguments.seed,
        patches=arguments.patches,
        scored=1 if order != "image_question_answer" else 40,
        per_image=arguments.per_image,
        images=images,
        lists=lists and order == "image_question_answer",
    )


def pack_clevr(arguments: argparse.Namespace) -> int:
    block = read_clevr(arguments.data, arguments.split, arguments.limit_images)
    size = min(250, len(block))
    count = len(block) // size
    plan = plan_of(arguments, count, size, lists=False)
    plan.write(arguments.out)
    for index in range(count):
        write_shard(arguments.out, plan, index, _part(block, index * size, size))
    print(
        f"wrote {count} shards of {size} images to {arguments.out}; {len(block) - count * size} images were left over"
    )
    return 0


def _part(block: Block, first: int, size: int) -> Block:
    kept = [i for i, image in enumerate(block.image) if first <= image < first + size]
    questions, answers = [block.questions[i] for i in kept], [block.answers[i] for i in kept]
    return Block(block.pixels[first : first + size], block.image[kept] - first, questions, answers, block.kind[kept])


def main() -> int:
    arguments = parse_arguments()
    try:
        for name in ("images", "shards", "per_image", "workers"):
            value = getattr(arguments, name, 1)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"--{name.replace('_', '-')}: {value} is not at least 1")
        if arguments.task == "pack":
            return pack_clevr(arguments)
        if arguments.task == "shards":
            plan = plan_of(arguments, arguments.shards, 250, lists=not arguments.no_lists)
            generate_shards(arguments.out, plan, arguments.device, arguments.workers)
            print(f"wrote {arguments.shards} shards to {arguments.out}")
        elif arguments.task == "ask":
            paths = arguments.out, arguments.scenes, arguments.images
            count = ask_scenes(*paths, arguments.split, arguments.per_image, arguments.seed)
            print(f"wrote {count} questions to {arguments.out}")
        else:
            facts = arguments.split, arguments.images, arguments.seed, arguments.device, arguments.workers
            count = write_split(arguments.out, *facts, arguments.per_image)
            print(f"wrote {arguments.images} images and {count} questions to {arguments.out}")
    except (ValueError, OSError) as error:
        print(f"make_clevr.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
