"""Blocks of generated scenes, for training in bulk."""

from __future__ import annotations

import numpy as np

from multiscale.vqa.clevr import camera
from multiscale.vqa.clevr.bulk import training_pixels, visible_scenes
from multiscale.vqa.clevr.families import FAMILIES, KINDS
from multiscale.vqa.clevr.questions import SIMPLE_FAMILIES, write_questions
from multiscale.vqa.clevr.scenes import Scenes
from multiscale.vqa.clevr.vocabulary import ATTRIBUTES
from multiscale.vqa.data.blocks import Block
from multiscale.vqa.layout import ANSWER_IDS, ImageLayout, VqaLayout
from multiscale.vqa.preprocess import encode_pixels


def generated_block(
    scenes: Scenes, pixels: np.ndarray, layout: ImageLayout, per_image: int, seed: tuple[int, ...], simple: int = 0
) -> Block:
    """`per_image` questions about every scene and `simple` ones without relations, and the lists of objects."""
    questions = list(write_questions(scenes, per_image, seed))
    if simple:
        questions += write_questions(scenes, simple, (*seed, 1), SIMPLE_FAMILIES)
        questions.sort(key=lambda question: question.image)
    return Block(
        pixels,
        np.array([q.image for q in questions]),
        [q.text for q in questions],
        [q.answer for q in questions],
        np.array([KINDS.index(FAMILIES[q.family].kind) for q in questions]),
        [object_list(scenes, row, layout) for row in range(len(scenes))],
    )


def vqa_prompts(layout: VqaLayout, images: int = 4, seed: int = 0) -> list[list[int]]:
    """Prompts of generated questions, one for each of a few images: what a bundle's precision is judged on."""
    scenes, image = visible_scenes(seed, 0, images), layout.image
    pixels = training_pixels(scenes, image.width, image.height, image.crop, "cpu", seed).numpy()
    block = generated_block(scenes, pixels, image, 1, (seed,))
    contents = [encode_pixels(pixels[k], image) for k in block.image]
    return [layout.prompt(content, q) for content, q in zip(contents, block.questions, strict=True)]


def object_list(scenes: Scenes, row: int, layout: ImageLayout) -> bytes:
    """What is where, from left to right: records of 7 bytes with a blank between them.

    A record is column and row of the object's centre in the model's image (32 + value), the answer bytes of its size, colour,
    material and shape, and a comma. With patches of 8 bytes every object is one patch.
    """
    count = int(scenes.count[row])
    pixels = camera.project(scenes.camera[row], scenes.centers[row, :count])[:, :2]
    share = (pixels / [camera.WIDTH, camera.HEIGHT] - layout.crop) / (1 - 2 * layout.crop)
    cells = np.clip(share * [layout.width, layout.height], 0, [layout.width - 1, layout.height - 1]).astype(int)
    records = []
    for k in np.lexsort((cells[:, 1], cells[:, 0])):
        words = [values[i] for values, i in zip(ATTRIBUTES.values(), scenes.attributes[row, k], strict=True)]
        letters = [ANSWER_IDS[word] for word in words]
        records.append(bytes([32 + cells[k, 0], 32 + cells[k, 1], *letters]) + b",")
    return b" ".join(records)
