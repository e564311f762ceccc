#!/usr/bin/env python3
"""Makes visual questions in the format of CLEVR: scenes, rendered images, questions with programs, answers.

    python scripts/make_clevr.py files --out data/clevr --split val --images 1000
    python scripts/make_clevr.py shards --out data/shards --shards 244 --levels 32
    python scripts/make_clevr.py repack --shards data/shards --out data/shards-jpeg --mode jpeg
    python scripts/make_clevr.py pack --data CLEVR_v1.0 --split train --out data/shards-real --levels 32
    python scripts/make_clevr.py ask --scenes CLEVR_train_scenes.json --images FOLDER --out data/real --split real
    python scripts/make_clevr.py compare --scenes CLEVR_train_scenes.json --images FOLDER --out sheet.png

`files` writes CLEVR's own folders. `shards` writes training data for scripts/train.py (data set `vqa`) without the detour over
files: it renders on the GPU where there is one and can run while a model already trains on the first shards. `repack` writes the
same images and questions in another layout, `pack` makes shards out of CLEVR's folders, real or generated. `ask` writes questions
about annotated images that exist; `compare` draws such images beside renderings of their annotations, as a model sees them.
The same seed gives the same scenes and questions; pixels may differ by a level between devices. What was broken off goes on when
it is called again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from multiscale.arguments import require_at_least, require_device
from multiscale.vqa.clevr.files import QUESTIONS_PER_IMAGE, ask_scenes, write_split
from multiscale.vqa.clevr.questions import IMAGES_PER_BLOCK
from multiscale.vqa.clevr.side_by_side import write_sheet
from multiscale.vqa.data.blocks import read_clevr
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.data.production import generate_shards, pack_block, repack_shards
from multiscale.vqa.data.rows import LOSSES
from multiscale.vqa.layout import SPECIAL_IDS, VqaLayout

ORDERS = {"image-first": "image_question_answer", "published": "question_image_question_answer"}
PATCHES = {
    ("image-first", "pixels"): 1151,
    ("image-first", "jpeg"): 383,
    ("published", "pixels"): 1023,
    ("published", "jpeg"): 255,
}
"""Room of a row for patches of 8 bytes: 12 questions beside the image, or one; a file of quality 75."""
PATCHES_OF_A_SIMPLE_QUESTION = 8
"""Room for each with its answer; 6.5 are used on average."""
PATCHES_OF_A_QUESTION = 13
"""The same of CLEVR's mixture, about as many as are used."""
QUESTIONS_IN_PATCHES = 12
"""Of CLEVR's mixture, that `PATCHES` has room for."""
PATCHES_OF_A_LIST = 16


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    files = tasks.add_parser("files", help="a split in CLEVR's own layout")
    files.add_argument("--images", type=int, required=True, help="how many")
    shards = tasks.add_parser("shards", help="training data, straight from the generator")
    shards.add_argument("--shards", type=int, required=True, help=f"how many, of {IMAGES_PER_BLOCK} images each")
    shards.add_argument("--images-per-shard", type=int, default=IMAGES_PER_BLOCK, help=f"at most {IMAGES_PER_BLOCK}")
    repack = tasks.add_parser("repack", help="the images and questions of shards in another layout")
    repack.add_argument("--shards", type=Path, required=True, help="folder of shards to read")
    repack.add_argument("--limit-shards", type=int, help="repack only this many")
    repack.add_argument(
        "--per-image", type=int, help="keep only this many questions about an image, of CLEVR's mixture"
    )
    pack = tasks.add_parser("pack", help="training data out of CLEVR's folders")
    pack.add_argument("--data", type=Path, required=True, help="CLEVR folder")
    pack.add_argument("--limit-images", type=int, help="read only this many images")
    ask = tasks.add_parser("ask", help="questions about annotated images")
    compare = tasks.add_parser("compare", help="annotated images beside renderings of their annotations")
    compare.add_argument("--limit-images", type=int, default=12, help="how many (default: 12)")
    for task in (ask, compare):
        task.add_argument("--scenes", type=Path, required=True, help="scenes.json")
        task.add_argument("--images", type=Path, required=True, help="folder of the images")
    for task in (files, shards, repack, pack, ask, compare):
        what = "PNG file to write" if task is compare else "folder to write"
        task.add_argument("--out", type=Path, required=True, help=what)
    for task in (files, shards, pack, ask):
        task.add_argument("--seed", type=int, default=0, help="default: 0")
    for task, number in ((files, QUESTIONS_PER_IMAGE), (ask, QUESTIONS_PER_IMAGE), (shards, 12)):
        task.add_argument("--per-image", type=int, default=number, help=f"questions about an image (default: {number})")
    shards.add_argument(
        "--simple", type=int, default=0, help="further questions about an image that name no relation (default: 0)"
    )
    for task in (shards, repack):
        task.add_argument(
            "--told", type=int, default=0, help="questions of a row whose own bytes are learned as well (default: 0)"
        )
    for task in (files, pack, ask):
        task.add_argument("--split", default="train", help="name of the split (default: train)")
    for task in (files, shards):
        task.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="renders the images")
    for task in (files, shards, repack, pack):
        task.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    for task in (shards, repack, pack):
        _add_layout(task, has_lists=task is not pack)
    return parser.parse_args()


def _add_layout(task: argparse.ArgumentParser, has_lists: bool) -> None:
    task.add_argument("--order", choices=tuple(ORDERS), default="image-first", help="of image and question")
    task.add_argument("--mode", choices=("pixels", "jpeg"), default="pixels", help="what stands for an image")
    task.add_argument("--width", type=int, help="of the image that a model sees (default: 62)")
    task.add_argument("--height", type=int, help="(default: 41)")
    task.add_argument("--levels", type=int, help="levels of a pixel's channel (default: all 256)")
    task.add_argument("--quality", type=int, help="of JPEG files (default: 75)")
    task.add_argument("--restart-blocks", type=int, help="JPEG: blocks between restart markers (default: none)")
    task.add_argument(
        "--block-bytes",
        type=int,
        help="JPEG: every block of 8 x 8 begins at a multiple of so many bytes (default: 0, off)",
    )
    task.add_argument("--align", type=int, default=8, help="bytes of a patch (default: 8)")
    task.add_argument("--special-ids", choices=tuple(SPECIAL_IDS), default="in_range", help="default: in_range")
    task.add_argument("--patches", type=int, help="room of a row; questions that do not fit are left out")
    task.add_argument("--loss", choices=LOSSES, default="answer", help="what is learned: answers, or every segment")
    if has_lists:
        task.add_argument(
            "--lists", action="store_true", help="also train on the lists of objects, which baselines do not see"
        )


def layout_of(arguments: argparse.Namespace) -> VqaLayout:
    """Raises ValueError naming every wrong field."""
    image = {"mode": arguments.mode, "levels": arguments.levels}
    for name in ("width", "height", *JPEG_OPTIONS):
        if (value := getattr(arguments, name)) is not None:
            image[name] = value
    other = [name for name in image if name in JPEG_OPTIONS] if arguments.mode == "pixels" else []
    other += ["levels"] if arguments.mode == "jpeg" and arguments.levels is not None else []
    if other:
        raise ValueError(f"--{other[0].replace('_', '-')} means nothing with --mode {arguments.mode}")
    special = SPECIAL_IDS[arguments.special_ids]
    order = ORDERS[arguments.order]
    return VqaLayout.from_manifest({"order": order, "align": arguments.align, "image": image, "special_ids": special})


def plan_of(
    arguments: argparse.Namespace, count: int, images: int, per_image: int, seed: int, simple: int = 0
) -> ShardPlan:
    is_published = arguments.order == "published"
    for name in ("lists", "told"):
        if is_published and getattr(arguments, name, False):
            raise ValueError(f"--{name}: only with --order image-first")
    patches = arguments.patches
    if patches is None:
        patches = PATCHES[arguments.order, arguments.mode]
        if not is_published:
            more = max(0, per_image - QUESTIONS_IN_PATCHES) * PATCHES_OF_A_QUESTION
            patches += -(-(more + simple * PATCHES_OF_A_SIMPLE_QUESTION) // 128) * 128
    told = getattr(arguments, "told", 0)
    scored = PATCHES_OF_A_LIST + 2 * QUESTIONS_IN_PATCHES + max(0, per_image - QUESTIONS_IN_PATCHES) + simple
    scored += told * PATCHES_OF_A_QUESTION
    return ShardPlan(
        layout_of(arguments),
        count,
        seed,
        patches=patches,
        scored=patches if arguments.loss == "all" else 1 if is_published else scored,
        per_image=per_image,
        simple=simple,
        told=told,
        images=images,
        lists=getattr(arguments, "lists", False),
        loss=arguments.loss,
    )


def make_shards(arguments: argparse.Namespace) -> str:
    images = arguments.images_per_shard
    if images > IMAGES_PER_BLOCK:
        raise ValueError(f"--images-per-shard: {images} is more than {IMAGES_PER_BLOCK}")
    plan = plan_of(arguments, arguments.shards, images, arguments.per_image, arguments.seed, arguments.simple)
    generate_shards(arguments.out, plan, arguments.device, arguments.workers)
    return f"{plan.count} shards of {images} images"


def repack(arguments: argparse.Namespace) -> str:
    old = ShardPlan.read(arguments.shards)
    count = min(old.count, arguments.limit_shards or old.count)
    per_image, simple = (old.per_image, old.simple) if arguments.per_image is None else (arguments.per_image, 0)
    plan = plan_of(arguments, count, old.images, per_image, old.seed, simple)
    repack_shards(arguments.shards, arguments.out, plan, arguments.workers)
    return f"{plan.count} shards of {plan.images} images"


def pack(arguments: argparse.Namespace) -> str:
    layout = layout_of(arguments)
    limit, workers = arguments.limit_images, arguments.workers
    block = read_clevr(arguments.data, arguments.split, limit, layout.image, workers)
    size = min(IMAGES_PER_BLOCK, len(block))
    count = len(block) // size
    plan = plan_of(arguments, count, size, len(block.questions) // len(block), arguments.seed)
    pack_block(arguments.out, plan, block, workers)
    return f"{count} shards of {size} images ({len(block) - count * size} images were left over)"


def make_files(arguments: argparse.Namespace) -> str:
    facts = arguments.split, arguments.images, arguments.seed, arguments.device, arguments.workers
    count = write_split(arguments.out, *facts, arguments.per_image)
    return f"{arguments.images} images and {count} questions"


def ask(arguments: argparse.Namespace) -> str:
    paths = arguments.out, arguments.scenes, arguments.images
    return f"{ask_scenes(*paths, arguments.split, arguments.per_image, arguments.seed)} questions"


def compare(arguments: argparse.Namespace) -> str:
    return write_sheet(arguments.out, arguments.scenes, arguments.images, arguments.limit_images)


JPEG_OPTIONS = ("quality", "restart_blocks", "block_bytes")
COUNTS = ["images", "shards", "images_per_shard", "limit_images", "limit_shards", "per_image", "workers", "patches"]
"""Options that have to be at least 1."""
TASKS = {"files": make_files, "shards": make_shards, "repack": repack, "pack": pack, "ask": ask, "compare": compare}


def main() -> int:
    arguments = parse_arguments()
    try:
        require_at_least(1, arguments, *COUNTS)
        require_at_least(0, arguments, "simple", "told")
        require_device(getattr(arguments, "device", "cpu"))
        written = TASKS[arguments.task](arguments)
    except (ValueError, OSError) as error:
        print(f"make_clevr.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.out}: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
