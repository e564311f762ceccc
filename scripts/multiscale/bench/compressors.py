"""General-purpose compressors, the yardstick beside a model's bits per byte."""

from __future__ import annotations

import lzma


def compressed_bits_per_byte(content: bytes) -> dict[str, float]:
    """Bits per byte of `xz -9` and, where the package is installed, `zstd -19 --ultra`."""
    sizes = {"xz -9": len(lzma.compress(content, preset=9))}
    try:
        import zstandard
    except ImportError:
        pass
    else:
        sizes["zstd -19 --ultra"] = len(zstandard.ZstdCompressor(level=19).compress(content))
    return {name: 8 * size / len(content) for name, size in sizes.items()}
