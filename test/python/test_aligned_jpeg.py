"""JPEG files whose blocks begin at multiples of some bytes: what decoders make of them, and where their blocks are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from multiscale.vqa.aligned_jpeg import aligned_jpeg
from multiscale.vqa.layout import ImageLayout, VqaLayout
from multiscale.vqa.preprocess import encode_jpeg, encode_pixels

SIZES = [(41, 62), (128, 192), (1, 1), (8, 8), (17, 9), (9, 70), (64, 48)]


def picture(rows: int, columns: int, seed: int, roughness: float) -> np.ndarray:
    """Planar: slopes and edges with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns] / max(rows, columns)
    planes = np.stack([200 * x + 40 * k * (y > 0.4) for k in range(3)]) + roughness * rng.normal(
        size=(3, rows, columns)
    )
    return np.clip(planes, 0, 255).astype(np.uint8)


def pixels_of(file: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(file))
    image.load()
    return np.asarray(image)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("quality", [1, 12, 75, 95])
def test_shows_the_very_pixels_of_the_usual_file(rows: int, columns: int, quality: int) -> None:
    for seed, (roughness, block_bytes) in enumerate([(0, 8), (5, 3), (60, 8), (60, 64)]):
        pixels = picture(rows, columns, seed, roughness)
        usual, aligned = encode_jpeg(pixels, quality, 0), aligned_jpeg(pixels, quality, block_bytes)
        assert np.array_equal(pixels_of(usual), pixels_of(aligned))


def test_blocks_lie_where_a_patch_begins() -> None:
    """A block that changes changes its own patch of the sequence and no other."""
    layout = VqaLayout(align=8, image=ImageLayout(mode="jpeg", width=64, height=32, restart_blocks=1, block_bytes=8))
    pixels = np.full((3, 32, 64), 128, np.uint8)

    def patches(content: bytes) -> np.ndarray:
        return np.array(layout.image_segment(content)).reshape(-1, 8)

    before = patches(encode_pixels(pixels, layout.image))
    first = len(before) - 1 - 4 * 9 - 2 * (2 * 5) - 2 * 2  # the last patch, the blocks' and the scans' own
    for row, column in ((0, 0), (2, 5), (3, 7)):
        brighter = pixels.copy()
        brighter[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 60
        after = patches(encode_pixels(brighter, layout.image))
        changed = np.flatnonzero((before != after).any(1))
        assert changed.tolist() == [first + 9 * row + column]


def test_a_block_of_many_bytes_moves_only_its_row() -> None:
    pixels = np.full((3, 32, 64), 128, np.uint8)
    pixels[:, 8:16, 16:24] = np.random.default_rng(0).integers(0, 256, (1, 8, 8))
    layout = ImageLayout(mode="jpeg", width=64, height=32, quality=30, restart_blocks=1, block_bytes=16)
    calm, rough = encode_pixels(np.full_like(pixels, 128), layout), encode_pixels(pixels, layout)
    assert len(calm) == len(rough)
    changed = np.flatnonzero(np.frombuffer(calm, np.uint8) != np.frombuffer(rough, np.uint8))
    data = len(calm) - 2 - 16 * (4 * 9 + 2 * (2 * 5) + 2)
    assert data + 16 * 11 <= changed.min()
    assert changed.max() < data + 16 * 18


def test_settings_that_make_no_sense_are_named() -> None:
    image = {"mode": "jpeg", "width": 62, "height": 41, "crop": 0.1, "quality": 12, "restart_blocks": 1}
    assert VqaLayout.from_manifest({"image": image}).image.block_bytes == 0
    with pytest.raises(ValueError, match=r"vqa\.image\.block_bytes: .*must be 0 or at least 3"):
        VqaLayout.from_manifest({"image": {**image, "block_bytes": 2}})
    with pytest.raises(ValueError, match=r"vqa\.image\.block_bytes: .*needs restart_blocks 1"):
        VqaLayout.from_manifest({"image": {**image, "restart_blocks": 2, "block_bytes": 8}})
    assert "block_bytes" not in ImageLayout().to_manifest()
