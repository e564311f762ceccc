"""JPEG files whose blocks can be read one by one: the same image as libjpeg's file, in an order and at places a model can learn.

In the usual file a block's bits begin anywhere, depend on the block before (of which they code the difference), and those of
colour lie behind those of brightness. Here (ITU-T T.81 allows all of it in a baseline file, every decoder reads it)

- each component has a scan of its own: first all of Y, then Cb, then Cr, the latter two at half the resolution;
- a restart marker follows every block, so that it codes its own mean and begins at a whole byte;
- fill bytes (0xFF) before markers let every block begin at a multiple of `block_bytes`: a block has one such place, or as many
  as it needs with its marker; every row of blocks has one place more than blocks, for one that needs two.

All components use the standard Huffman tables of brightness. Coefficients are libjpeg's for 4:2:0.
"""

from __future__ import annotations

import io
import re
from functools import cache

import numpy as np
from PIL import Image

MARKER = 2
"""Bytes of a marker."""
FILL = b"\xff"
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


def aligned_jpeg(pixels: np.ndarray, quality: int, block_bytes: int) -> bytes:
    """`pixels`: planar RGB, uint8 (3, height, width). The first block begins at block_bytes - 1, behind a start id."""
    luminance, chrominance = _quantisation(quality)
    height, width = pixels.shape[1:]
    file = _header(width, height, luminance, chrominance)
    for number, plane in enumerate(_planes(pixels)):
        scan = _segment(0xDA, bytes([1, number + 1, 0, 0, 63, 0]))
        file += FILL * (-(len(file) + len(scan) + 1) % block_bytes) + scan
        for row in _block_rows(plane, chrominance if number else luminance, block_bytes):
            file += row
    return file + b"\xff\xd9"


def _block_rows(plane: np.ndarray, table: list[int], block_bytes: int) -> list[bytes]:
    """The filled entropy-coded rows of a plane of whole blocks. Behind the last block there are fill bytes for a marker."""
    columns, rows = plane.shape[1] // 8, plane.shape[0] // 8
    blocks = _entropy_coded(plane, table)
    places = [-(-(len(block) + MARKER) // block_bytes) for block in blocks]
    for last in range(columns - 1, len(blocks), columns):
        places[last] += max(0, columns + 1 - sum(places[last - columns + 1 : last + 1]))
    filled = [
        block + FILL * (place * block_bytes - MARKER - len(block)) + bytes([0xFF, 0xD0 + index % 8])
        for index, (block, place) in enumerate(zip(blocks, places, strict=True))
    ]
    filled[-1] = filled[-1][:-MARKER] + FILL * MARKER
    return [b"".join(filled[row * columns : (row + 1) * columns]) for row in range(rows)]


def _entropy_coded(plane: np.ndarray, table: list[int]) -> list[bytes]:
    """libjpeg's bits of every block."""
    file = io.BytesIO()
    Image.fromarray(plane).save(file, "JPEG", qtables=[table], restart_marker_blocks=1)
    data = file.getvalue()
    scan = data.index(b"\xff\xda") + MARKER
    return _RESTART.split(data[scan + int.from_bytes(data[scan : scan + 2], "big") : -MARKER])


def _planes(pixels: np.ndarray) -> list[np.ndarray]:
    """Y, Cb and Cr as libjpeg computes them, in whole blocks: the last column and row are repeated."""
    r, g, b = pixels.astype(np.int32)
    y = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    cb = (32768 * b - 11059 * r - 21709 * g + (128 << 16) + 32767) >> 16
    cr = (32768 * r - 27439 * g - 5329 * b + (128 << 16) + 32767) >> 16
    return [_extended(y, 8, 8), *(_extended(_halved(_extended(c, 16, 2)), 8, 8) for c in (cb, cr))]


def _extended(plane: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """uint8, a multiple of so many columns and rows."""
    more = (0, -plane.shape[0] % rows), (0, -plane.shape[1] % columns)
    return np.pad(plane, more, "edge").astype(np.uint8)


def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of two by two samples, rounded down and up in turn along a row."""
    wide = plane.astype(np.int32)
    sums = wide[::2, ::2] + wide[::2, 1::2] + wide[1::2, ::2] + wide[1::2, 1::2]
    return (sums + 1 + np.arange(sums.shape[1]) % 2) >> 2


@cache
def _quantisation(quality: int) -> tuple[list[int], list[int]]:
    """libjpeg's tables, in rows."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization  # type: ignore[attr-defined]
    return list(tables[0]), list(tables[1])


@cache
def _huffman_segments() -> bytes:
    """The standard tables of brightness, as libjpeg writes them."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG")
    data = file.getvalue()
    return data[data.index(b"\xff\xc4") : data.index(b"\xff\xda")]


def _header(width: int, height: int, luminance: list[int], chrominance: list[int]) -> bytes:
    zigzag = _zigzag()
    tables = [bytes([k, *(table[i] for i in zigzag)]) for k, table in enumerate((luminance, chrominance))]
    components = bytes([1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
            *(_segment(0xDB, table) for table in tables),
            _segment(0xC0, b"\x08" + size + b"\3" + components),
            _huffman_segments(),
            _segment(0xDD, (1).to_bytes(2, "big")),
        ]
    )


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@cache
def _zigzag() -> list[int]:
    """Place in rows of each coefficient in zigzag order."""
    cells = [(x + y, x if (x + y) % 2 else -x, 8 * y + x) for y in range(8) for x in range(8)]
    return [place for *_, place in sorted(cells, key=lambda cell: (cell[0], -cell[1]))]
