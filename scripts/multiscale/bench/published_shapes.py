"""The published 360 M shapes (arXiv 2502.14553) with random weights, and text to feed them."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import torch

from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

WIDTH = 1024
HEAD_WIDTH = 64
MAMBA2: dict[str, Any] = {"block_type": "mamba2", "d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64}
TRANSFORMER: dict[str, Any] = {
    "block_type": "transformer",
    "attn_head_dims": HEAD_WIDTH,
    "attn_use_rot_embs": True,
    "ff_multiplier": 2,
    "pos_emb_type": "fixed",
}
SHAPES: dict[str, tuple[list[int], list[int], list[dict[str, Any]]]] = {
    "2d-st": ([1024, 8], [25, 21], [MAMBA2, TRANSFORMER]),
    "2d-ss": ([1024, 8], [28, 24], [MAMBA2, MAMBA2]),
    "3d-stt": ([8192, 16, 8], [9, 8, 8], [MAMBA2, TRANSFORMER, TRANSFORMER]),
}
"""Sequence lengths, layers, blocks; from the most global stage to the local one."""


def shape_config(name: str, layers_divisor: int = 1, width: int = WIDTH) -> ModelConfig:
    """A published shape, or a smaller model like it. `width` is a multiple of 64."""
    lens, layers, blocks = SHAPES[name]
    heads = width // HEAD_WIDTH
    return ModelConfig.from_params(
        {
            "num_tokens": 256,
            "pad_token_id": 0,
            "hidden_dims": [width] * len(lens),
            "seq_lens": lens,
            "num_layers": [max(1, count // layers_divisor) for count in layers],
            "block": [{**b, "attn_num_heads": heads} if b["block_type"] == "transformer" else b for b in blocks],
        }
    )


def random_model(config: ModelConfig, seed: int) -> MultiscaleByteModel:
    """PyTorch's own initial weights, but for a head that is as sure of itself as a trained model's."""
    torch.manual_seed(seed)
    model = MultiscaleByteModel(config).eval()
    with torch.no_grad():
        model.to_logits.weight *= 4
    return model


def text_like(num_bytes: int, seed: int) -> bytes:
    """Words of lower-case letters with spaces, about as frequent as English ones."""
    generator = np.random.default_rng(seed)
    letters = np.frombuffer(string.ascii_lowercase.encode(), np.uint8)
    weights = 1 / np.arange(1, 27)
    order = generator.permutation(letters)
    words: list[bytes] = []
    size = 0
    while size < num_bytes:
        word = generator.choice(order, generator.integers(1, 10), p=weights / weights.sum()).tobytes()
        words.append(word)
        size += len(word) + 1
    return b" ".join(words)[:num_bytes].ljust(num_bytes)
