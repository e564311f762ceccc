"""Weight-only quantisation to 8 bits, in the layout of ONNX Runtime's MatMulNBits."""

from __future__ import annotations

import numpy as np

ZERO_POINT = 128


def block_size_for(rows: int) -> int | None:
    """64 where it divides K, else 32, else None: larger blocks lose ONNX Runtime's independence of the number of rows."""
    return next((size for size in (64, 32) if rows % size == 0), None)


def quantize_blocks(matrix: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, N) float → uint8 (N, K/block, block) and float32 scales (N, K/block); symmetric, by the block's largest value."""
    columns = matrix.T.reshape(matrix.shape[1], -1, block).astype(np.float32)
    scales = np.abs(columns).max(-1) / 127
    safe = np.where(scales == 0, 1, scales)
    values = np.clip(np.rint(columns / safe[..., None]), -127, 127) + ZERO_POINT
    return values.astype(np.uint8), scales.astype(np.float32)


def dequantize_blocks(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Inverse layout: (N, K/block, block), (N, K/block) → (K, N) float32."""
    columns = (values.astype(np.float32) - ZERO_POINT) * scales.reshape(values.shape[:2])[..., None]
    return columns.reshape(values.shape[0], -1).T.copy()
