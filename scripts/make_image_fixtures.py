#!/usr/bin/env python3
"""Writes images of every kind that the server takes, and the bytes that `preprocess_image` makes of them.

    python scripts/make_image_fixtures.py --out test/.images

`expected.json` lists the files; `expected.bin` has their bytes, 3 x 41 x 62 each, in the same order. `encoded.json` has small
pictures and the JPEG files that `encode_pixels` makes of them, in base64.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile

from multiscale.vqa.layout import ImageLayout
from multiscale.vqa.preprocess import encode_pixels, preprocess_image

SIZES = [(1, 1), (1, 9), (3, 2), (5, 300), (400, 7), (40, 61), (41, 62), (52, 78), (53, 79), (97, 131), (320, 480)]
"""Rows and columns."""
ORIENTATION = 0x0112
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
"""First row and column of each pass, and the steps between its rows and columns."""

Named = tuple[str, bytes]


def picture(rng: np.random.Generator, rows: int, columns: int, channels: int = 3) -> np.ndarray:
    """Waves, noise, or hard stripes from 0 to 255, on which a sharpening filter overshoots."""
    y, x = np.mgrid[0:rows, 0:columns]
    kind = rng.integers(3)
    if kind == 0:
        waves = [np.sin(x / rng.uniform(2, 40) + k) + np.cos(y / rng.uniform(2, 40) - k) for k in range(channels)]
        values = np.stack(waves, -1) * 60 + 128 + rng.normal(0, 8, (rows, columns, channels))
    elif kind == 1:
        values = rng.integers(0, 256, (rows, columns, channels)).astype(float)
    else:
        period = int(rng.integers(2, 30))
        values = np.stack([255.0 * ((x + k * y) // period % 2) for k in range(channels)], -1)
    return np.clip(values, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def exif(orientation: int, endian: str = "<") -> bytes:
    data = Image.Exif()
    data.endian = endian
    data[ORIENTATION] = orientation
    return data.tobytes()


def jpegs(rng: np.random.Generator) -> Iterator[Named]:
    for rows, columns in SIZES:
        image = Image.fromarray(picture(rng, rows, columns))
        for quality, sampling in itertools.product((5, 40, 75, 95, 100), ("4:4:4", "4:2:2", "4:2:0")):
            options = {"progressive": bool(rng.integers(2)), "optimize": bool(rng.integers(2))}
            options |= {"restart_marker_blocks": int(rng.integers(0, 5))}
            name = f"{rows}x{columns}-q{quality}-{sampling.replace(':', '')}.jpg"
            yield name, encoded(image, "JPEG", quality=quality, subsampling=sampling, **options)
        yield f"{rows}x{columns}-411.jpg", encoded(image, "JPEG", subsampling="4:1:1")
        yield f"{rows}x{columns}-rgb.jpg", encoded(image, "JPEG", keep_rgb=True)
        yield f"{rows}x{columns}-grey.jpg", encoded(image.convert("L"), "JPEG", quality=80)
        cmyk = encoded(Image.fromarray(picture(rng, rows, columns, 4), "CMYK"), "JPEG", quality=90, subsampling=2)
        yield f"{rows}x{columns}-cmyk.jpg", cmyk
        at = cmyk.index(b"Adobe") + 11  # the marker's colour transform: none, or YCCK
        yield f"{rows}x{columns}-ycck.jpg", cmyk[:at] + b"\x02" + cmyk[at + 1 :]
    image = Image.fromarray(picture(rng, 50, 70))
    for orientation, endian in itertools.product(range(10), "<>"):
        name = f"exif{orientation}-{'big' if endian == '>' else 'little'}.jpg"
        yield name, encoded(image, "JPEG", exif=exif(orientation, endian))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield "profile.jpg", encoded(image, "JPEG", icc_profile=profile)
    yield "then-a-zip.jpg", encoded(image, "JPEG") + b"PK\x03\x04" + bytes(100)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, colour_type: int, bits: int, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """`samples`: (rows, columns, channels) of `bits` bits; `extra`: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour_type, 0, 0, int(interlaced))
    passes = [samples[r::rs, c::cs] for r, c, rs, cs in ADAM7] if interlaced else [samples]
    lines = b"".join(b"\0" + packed(row, bits) for part in passes if part.size for row in part)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def packed(row: np.ndarray, bits: int) -> bytes:
    if bits >= 8:
        return row.astype(">u2" if bits == 16 else "u1").tobytes()
    return np.packbits(np.unpackbits(row.astype("u1").reshape(-1, 1), axis=1)[:, 8 - bits :]).tobytes()


def pngs(rng: np.random.Generator) -> Iterator[Named]:
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    kinds = [(colour, bits) for colour, all_bits in depths.items() for bits in all_bits]
    for (colour, bits), interlaced in itertools.product(kinds, (False, True)):
        for rows, columns in ((1, 1), (7, 5), (60, 90), (131, 97)):
            samples = rng.integers(0, 2**bits, (rows, columns, PNG_CHANNELS[colour]))
            name = f"{rows}x{columns}-type{colour}-{bits}bit{'-interlaced' * interlaced}"
            palette = png_chunk(b"PLTE", rng.integers(0, 256, 3 * 2**bits).astype("u1").tobytes())
            extra = palette if colour == 3 else b""
            yield f"{name}.png", png(samples, colour, bits, interlaced, extra)
            if colour == 3:
                alphas = rng.integers(0, 256, max(1, 2**bits - 1)).astype("u1").tobytes()
                yield f"{name}-alphas.png", png(samples, colour, bits, interlaced, extra + png_chunk(b"tRNS", alphas))
            elif colour in (0, 2) and bits <= 8:
                clear = png_chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())
                yield f"{name}-clear.png", png(samples, colour, bits, interlaced, extra + clear)
    image = Image.fromarray(picture(rng, 50, 70))
    for orientation in range(1, 9):
        yield f"exif{orientation}.png", encoded(image, "PNG", exif=exif(orientation))
    samples = np.asarray(image)
    yield "gamma.png", png(samples, 2, 8, extra=png_chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield "background.png", png(samples, 2, 8, extra=png_chunk(b"bKGD", bytes(6)))
    frames = [Image.fromarray(picture(rng, 50, 70)) for _ in range(3)]
    yield "animated.png", encoded(image, "PNG", save_all=True, append_images=frames)
    yield (
        "profile.png",
        encoded(image, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()),
    )


def webps(rng: np.random.Generator) -> Iterator[Named]:
    for rows, columns in SIZES:
        image = Image.fromarray(picture(rng, rows, columns))
        clear = Image.fromarray(picture(rng, rows, columns, 4), "RGBA")
        for quality in (10, 80, 100):
            yield f"{rows}x{columns}-q{quality}.webp", encoded(image, "WEBP", quality=quality)
            yield f"{rows}x{columns}-q{quality}-alpha.webp", encoded(clear, "WEBP", quality=quality)
        yield f"{rows}x{columns}-lossless.webp", encoded(image, "WEBP", lossless=True)
        yield f"{rows}x{columns}-lossless-alpha.webp", encoded(clear, "WEBP", lossless=True, exact=True)
    image = Image.fromarray(picture(rng, 50, 70))
    for orientation in range(1, 9):
        yield f"exif{orientation}.webp", encoded(image, "WEBP", exif=exif(orientation))
    frames = [Image.fromarray(picture(rng, 50, 70, 4), "RGBA") for _ in range(3)]
    yield "animated.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def encoded_pictures(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    sizes = [(41, 62), (41, 62), (1, 1), (8, 8), (17, 33), (24, 40), (9, 70), (33, 9)]
    for (rows, columns), quality, restart_blocks in itertools.product(sizes, (1, 25, 50, 75, 95), (0, 1, 3)):
        pixels = np.ascontiguousarray(picture(rng, rows, columns).transpose(2, 0, 1))
        options = {"quality": quality, "restart_blocks": restart_blocks}
        yield encoded_picture(pixels, ImageLayout(mode="jpeg", **options))
    sizes += [(128, 192), (16, 16), (7, 65)]
    for (rows, columns), quality, block_bytes in itertools.product(sizes, (1, 12, 50, 95), (3, 8, 16)):
        pixels = np.ascontiguousarray(picture(rng, rows, columns).transpose(2, 0, 1))
        options = {"quality": quality, "restart_blocks": 1, "block_bytes": block_bytes}
        yield encoded_picture(pixels, ImageLayout(mode="jpeg", **options))


def encoded_picture(pixels: np.ndarray, layout: ImageLayout) -> dict[str, Any]:
    return {
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "quality": layout.quality,
        "restartBlocks": layout.restart_blocks,
        "blockBytes": layout.block_bytes,
        "rgb": base64.b64encode(pixels.tobytes()).decode(),
        "file": base64.b64encode(encode_pixels(pixels, layout)).decode(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    ImageFile.MAXBLOCK = 2**20  # a progressive JPEG is written in one piece
    rng = np.random.default_rng(11)
    names, pixels = [], []
    for name, content in itertools.chain(jpegs(rng), pngs(rng), webps(rng)):
        (out / name).write_bytes(content)
        names.append(name)
        pixels.append(preprocess_image(content))
    (out / "encoded.json").write_text(json.dumps(list(encoded_pictures(rng))))
    (out / "expected.bin").write_bytes(np.stack(pixels).tobytes())
    (out / "expected.json").write_text(json.dumps(names))
    print(f"{len(names)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
