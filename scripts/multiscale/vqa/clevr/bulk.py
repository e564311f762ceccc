"""Training images in bulk: rendered at up to three samples per final pixel in each direction, then reduced.

A single file is rendered at 480x320 and goes through `preprocess`; for many thousands of training images that is too slow.
Here only the part inside the crop is rendered, for 62x41 on a grid of 186x123, and reduced by the same Lanczos filter in floats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from multiscale.vqa.clevr import camera
from multiscale.vqa.clevr.render import all_visible, render
from multiscale.vqa.clevr.scenes import MAX_OBJECTS, MIN_OBJECTS, Scenes, random_scenes

SAMPLES = 3
"""Most samples per final pixel, in each direction; not more than a file of 480x320 has."""
ATTEMPTS = 3
"""Scenes drawn at once for each image, of which the first with visible objects is taken."""


def draw_attempts(seed: int, first: int, count: int, attempt: int, attempts: int = ATTEMPTS) -> Scenes:
    """`attempts` scenes for each of `count` images, attempt by attempt. Every attempt of an image has as many objects."""
    images = range(first, first + count)
    numbers = [int(np.random.default_rng((seed, i)).integers(MIN_OBJECTS, MAX_OBJECTS + 1)) for i in images]
    seeds = [(seed, i, a) for a in range(attempt, attempt + attempts) for i in images]
    return random_scenes(seeds, np.array(numbers * attempts))


def first_visible(drawn: Scenes, seed: int, first: int, count: int, device: str = "cpu") -> Scenes:
    """Of `draw_attempts(seed, first, count, 0)`, each image's first scene in which every object is visible."""
    visible = all_visible(drawn, device).reshape(-1, count)
    chosen = drawn[visible.argmax(0) * count + np.arange(count)]
    rows = [chosen[i : i + 1] for i in range(count)]
    for image in np.flatnonzero(~visible.any(0)):
        attempt = len(visible)
        while True:
            scene = draw_attempts(seed, first + int(image), 1, attempt, 1)
            if all_visible(scene, device)[0]:
                break
            attempt += 1
        rows[image] = scene
    return Scenes.concatenate(rows)


def visible_scenes(seed: int, first: int, count: int, device: str = "cpu") -> Scenes:
    """The scenes of images first … first+count-1: a pure function of (seed, image)."""
    return first_visible(draw_attempts(seed, first, count, 0), seed, first, count, device)


@torch.no_grad()
def training_pixels(scenes: Scenes, width: int, height: int, crop: float, device: str, seed: int) -> Tensor:
    """uint8 (B, 3, height, width)."""
    left, top = math.floor(camera.WIDTH * crop), math.floor(camera.HEIGHT * crop)
    box = (left, top, camera.WIDTH - left, camera.HEIGHT - top)
    samples = max(1, min(SAMPLES, round((camera.WIDTH - 2 * left) / width)))
    fine = render(scenes, box, samples * width, samples * height, device, seed)
    rows, columns = (lanczos(samples * n, n).to(device) for n in (height, width))
    return ((rows @ fine @ columns.T) * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def lanczos(size: int, target: int) -> Tensor:
    """Pillow's Lanczos reduction as a matrix (target, size)."""
    scale = size / target
    centers = (torch.arange(target) + 0.5) * scale
    x = (torch.arange(size) + 0.5 - centers[:, None]) / scale
    weights = torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)
    return weights / weights.sum(1, keepdim=True)
