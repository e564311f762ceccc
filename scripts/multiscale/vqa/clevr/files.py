"""Writes a split in CLEVR's own layout: images/, scenes/, questions/."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from multiscale.vqa.clevr import camera
from multiscale.vqa.clevr.bulk import visible_scenes
from multiscale.vqa.clevr.families import FAMILIES
from multiscale.vqa.clevr.programs import program_to_json
from multiscale.vqa.clevr.questions import IMAGES_PER_BLOCK, write_questions
from multiscale.vqa.clevr.render import render
from multiscale.vqa.clevr.scenes import Scenes, scene_to_json, scenes_from_json

QUESTIONS_PER_IMAGE = 10
_ANTIALIASING = 2
"""Samples per pixel of a file, in each direction."""
_IMAGES_PER_TASK = 10
"""On the CPU, where the workers render."""


def image_name(split: str, index: int) -> str:
    return f"CLEVR_{split}_{index:06d}.png"


def write_split(folder: Path, split: str, count: int, seed: int, device: str, workers: int, per_image: int) -> int:
    """Returns the number of questions. A split is a pure function of (seed, split, count, per_image).

    On the CPU the `workers` processes render; on another device this one does.
    """
    own_seed = [seed, *split.encode()]
    key = int(np.random.SeedSequence(own_seed).generate_state(1)[0])
    for kind in ("images", "scenes", "questions"):
        (folder / kind / (split if kind == "images" else "")).mkdir(parents=True, exist_ok=True)
    blocks = [(first, min(IMAGES_PER_BLOCK, count - first)) for first in range(0, count, IMAGES_PER_BLOCK)]
    scenes, questions = [], []
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        drawn = [pool.submit(visible_scenes, key, *block) for block in blocks]
        written, rendered = [], []
        for (first, _), future in zip(blocks, drawn, strict=True):
            block = future.result()
            scenes += [
                scene_to_json(block, r, split, first + r, image_name(split, first + r)) for r in range(len(block))
            ]
            written.append(pool.submit(question_entries, block, split, first, per_image, key))
            size = _IMAGES_PER_TASK if device == "cpu" else len(block)
            for row in range(0, len(block), size):
                task = (folder / "images" / split, block[row : row + size], split, first + row, device, key)
                if device == "cpu":
                    rendered.append(pool.submit(write_images, *task))
                else:
                    write_images(*task)
        for future in rendered:
            future.result()
        for future in written:
            questions += future.result()
    for number, entry in enumerate(questions):
        entry["question_index"] = number
    info = {"split": split, "license": "MIT", "version": "mblm-server", "date": "generated"}
    _write_json(folder / "scenes" / f"CLEVR_{split}_scenes.json", {"info": info, "scenes": scenes})
    _write_json(folder / "questions" / f"CLEVR_{split}_questions.json", {"info": info, "questions": questions})
    return len(questions)


def question_entries(scenes: Scenes, split: str, first: int, per_image: int, seed: int) -> list[dict[str, Any]]:
    """Entries of `questions.json` for one block of scenes, whose first image has the number `first`."""
    entries = []
    for q in write_questions(scenes, per_image, (seed, first)):
        name = image_name(split, first + q.image)
        entries.append(
            {
                "split": split,
                "image_filename": name,
                "image_index": first + q.image,
                "image": name.removesuffix(".png"),
                "question": q.text,
                "program": program_to_json(q.program),
                "answer": q.answer,
                "question_family_index": q.family,
                "question_family": FAMILIES[q.family].name,
            }
        )
    return entries


@torch.no_grad()
def write_images(folder: Path, scenes: Scenes, split: str, first: int, device: str, seed: int) -> None:
    """480x320 PNG files."""
    width, height = camera.WIDTH, camera.HEIGHT
    for row in range(len(scenes)):
        box = (0.0, 0.0, float(width), float(height))
        size = (_ANTIALIASING * width, _ANTIALIASING * height)
        fine = render(scenes[row : row + 1], box, *size, device, seed + first + row)
        pixels = torch.nn.functional.avg_pool2d(fine, _ANTIALIASING)[0]
        array = (pixels * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        Image.fromarray(array).save(folder / image_name(split, first + row))


def ask_scenes(folder: Path, scenes_file: Path, images: Path, split: str, per_image: int, seed: int) -> int:
    """Questions about annotated images that exist, such as real ones: links the images, writes scenes and questions."""
    entries = [e for e in json.loads(scenes_file.read_text())["scenes"] if (images / e["image_filename"]).is_file()]
    if not entries:
        raise ValueError(f"{images} holds none of the images of {scenes_file}")
    scenes = scenes_from_json(entries)
    target = folder / "images" / split
    target.mkdir(parents=True, exist_ok=True)
    questions: list[dict[str, Any]] = []
    for first in range(0, len(entries), IMAGES_PER_BLOCK):
        questions += question_entries(scenes[first : first + IMAGES_PER_BLOCK], split, first, per_image, seed)
    for number, question in enumerate(questions):
        name = entries[question["image_index"]]["image_filename"]
        question |= {"image_filename": name, "image": name.removesuffix(".png"), "question_index": number}
    for entry in entries:
        (target / entry["image_filename"]).write_bytes((images / entry["image_filename"]).read_bytes())
    for kind, content in (("scenes", entries), ("questions", questions)):
        (folder / kind).mkdir(exist_ok=True)
        _write_json(folder / kind / f"CLEVR_{split}_{kind}.json", {"info": {"split": split}, kind: content})
    return len(questions)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
