"""From the file of an image to the bytes that a model sees. The server does the same (`src/vqa`), byte for byte.

1. Decode JPEG, PNG or WebP (the first frame), colour profiles and gamma ignored, and turn it as its EXIF orientation says.
   16-bit channels keep their high byte; CMYK becomes RGB by r = (255 - c)(255 - k) / 255; what is transparent lies on white.
2. Crop floor(extent * crop) pixels on each of the four sides.
3. Resize with Pillow's Lanczos filter to width x height: rows first, rounded to bytes, then columns. (Left to itself, Pillow
   takes the columns of some images first, and which ones depends on its version.)
4. Planar order: channel, row, column.
5. Optionally `quantise` to a few levels; or write it as a JPEG file, whose bytes the model reads.

`image_content` does all of it.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, UnidentifiedImageError

from multiscale.vqa.aligned_jpeg import aligned_jpeg
from multiscale.vqa.layout import ImageLayout

FORMATS = ("JPEG", "PNG", "WEBP")
WIDTH, HEIGHT, CROP = 62, 41, 0.1
WHITE = 255
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image_content(data: bytes, layout: ImageLayout) -> bytes:
    """From a file to the bytes of its segment. Raises ValueError for what is no whole JPEG, PNG or WebP file."""
    return encode_pixels(preprocess_image(data, layout.width, layout.height, layout.crop), layout)


def encode_pixels(pixels: np.ndarray, layout: ImageLayout) -> bytes:
    """Step 5 for planar pixels, uint8 (3, height, width)."""
    if layout.mode == "jpeg":
        if layout.block_bytes:
            return aligned_jpeg(pixels, layout.quality, layout.block_bytes)
        return encode_jpeg(pixels, layout.quality, layout.restart_blocks)
    return (pixels if layout.levels is None else quantise(pixels, layout.levels)).tobytes()


def encode_jpeg(pixels: np.ndarray, quality: int, restart_blocks: int) -> bytes:
    """Baseline, 4:2:0, standard Huffman tables. `pixels`: planar; a restart marker follows `restart_blocks` units of 16 x 16."""
    file, image = io.BytesIO(), Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0", restart_marker_blocks=restart_blocks)
    return file.getvalue()


def preprocess_image(data: bytes, width: int = WIDTH, height: int = HEIGHT, crop: float = CROP) -> np.ndarray:
    """uint8 (3, height, width). Raises ValueError for what is no whole JPEG, PNG or WebP file."""
    return preprocess_pixels(decode_image(data), width, height, crop)


def preprocess_pixels(rgb: np.ndarray, width: int = WIDTH, height: int = HEIGHT, crop: float = CROP) -> np.ndarray:
    """Steps 2 to 4 for an upright image, uint8 (rows, columns, 3)."""
    top, left = (math.floor(extent * crop) for extent in rgb.shape[:2])
    cropped = Image.fromarray(rgb[top : rgb.shape[0] - top, left : rgb.shape[1] - left])
    narrowed = cropped.resize((width, cropped.height), Image.Resampling.LANCZOS)
    resized = narrowed.resize((width, height), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def quantise(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Every value (uint8) becomes the mid-point of its bin of `levels` equal ones."""
    bins = pixels.astype(np.int64) * levels // 256
    return (((2 * bins + 1) * 128) // levels).astype(np.uint8)


def decode_image(data: bytes) -> np.ndarray:
    """Step 1: uint8 (rows, columns, 3). Raises ValueError for what is no whole JPEG, PNG or WebP file."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        orientation, stored_as = _orientation(image), _raw_mode(image)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"image: cannot be decoded: {error}") from None
    rgb = _to_rgb(image, stored_as)
    turn = _TURNS.get(orientation)
    return rgb if turn is None else np.asarray(Image.fromarray(rgb).transpose(turn))


def _orientation(image: Image.Image) -> int:
    """Of the EXIF data in front of the pixels; 1 where there is none."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, OSError):
        return 1


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name of the pixels in the file, such as L;2 for grey of 2 bits; empty where it keeps none."""
    tile = getattr(image, "tile", None)
    return tile[0][3] if tile and isinstance(tile[0][3], str) else ""


def _to_rgb(image: Image.Image, stored_as: str) -> np.ndarray:
    key = image.info.get("transparency")
    if key is not None and "16" in stored_as:
        raise ValueError("image: a 16-bit PNG with a transparent colour is not supported")
    if image.mode == "I;16":
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, -1)
    if key is None and image.mode not in ("LA", "PA", "RGBA"):
        return np.asarray(image.convert("RGB"))
    if image.mode in ("1", "L"):
        grey = np.asarray(image.convert("L"))
        return _over_white(np.repeat(grey[..., None], 3, -1), np.where(grey == _grey_key(key, stored_as), 0, WHITE))
    rgba = np.asarray(image.convert("RGBA"))
    return _over_white(rgba[..., :3], rgba[..., 3])


def _grey_key(key: int, stored_as: str) -> int:
    """The transparent grey as it is decoded. Pillow leaves it unscaled where a pixel has 2 or 4 bits."""
    return key * {"L;2": 85, "L;4": 17}.get(stored_as, 1)


def _over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight alpha (rows, columns), 0-255; rounded to the nearest."""
    share = alpha[..., None].astype(np.int64)
    return ((rgb * share + WHITE * (255 - share) + 127) // 255).astype(np.uint8)
