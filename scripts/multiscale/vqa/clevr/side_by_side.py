"""Annotated images beside renderings of their annotations, both as a model sees them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from multiscale.vqa.clevr.bulk import training_pixels
from multiscale.vqa.clevr.scenes import scenes_from_json
from multiscale.vqa.layout import ImageLayout
from multiscale.vqa.preprocess import preprocess_image

ENLARGED = 4
COLUMNS = 4
GAP = 6


def write_sheet(path: Path, scenes_file: Path, images: Path, limit: int) -> str:
    """A PNG of pairs, the image on the left; returns how far apart their pixels are. The lamps' jitter is not annotated.

    Raises ValueError if none of the images is there.
    """
    entries = [e for e in json.loads(scenes_file.read_text())["scenes"] if (images / e["image_filename"]).is_file()]
    entries = entries[:limit]
    if not entries:
        raise ValueError(f"{images} holds none of the images of {scenes_file}")
    layout = ImageLayout()
    size = layout.width, layout.height, layout.crop
    given = np.stack([preprocess_image((images / e["image_filename"]).read_bytes(), *size) for e in entries])
    scenes = scenes_from_json(entries)
    drawn = np.concatenate(
        [training_pixels(scenes[k : k + 1], *size, "cpu", seed=k).numpy() for k in range(len(entries))]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    _sheet(given, drawn).save(path)
    apart = np.abs(given.astype(int) - drawn).mean((1, 2, 3))
    return f"{len(entries)} pairs, {apart.mean():.1f} levels of 255 apart (from {apart.min():.1f} to {apart.max():.1f})"


def _sheet(given: np.ndarray, drawn: np.ndarray) -> Image.Image:
    pairs = np.concatenate([given, drawn], 3).transpose(0, 2, 3, 1).repeat(ENLARGED, 1).repeat(ENLARGED, 2)
    _, height, width, _ = pairs.shape
    rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (width + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    for k, pair in enumerate(pairs):
        row, column = divmod(k, COLUMNS)
        sheet.paste(Image.fromarray(pair), (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet
