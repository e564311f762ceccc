"""Memory that LocalPatch needs for itself."""

from __future__ import annotations


def patch_scratch_bytes(width: int, hidden: int, num_layers: int, vocabulary: int, length: int) -> tuple[int, int]:
    """Of a call, and beside it of each of its rows (`local_patch_scratch_bytes` of `native/ops.h`)."""
    blocks = width // 8
    positions = 9 if length <= 8 else 33
    exchanged = 8 + 8 * vocabulary + 16 * positions * blocks + 16 * (width + hidden + width * (2 * num_layers + 1))
    return 4096, exchanged + 48 * blocks * num_layers * positions
