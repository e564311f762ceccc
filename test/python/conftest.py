"""Shared by all Python tests: one thread, so that results and times do not depend on the machine's load."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where torch.compile keeps what it has made; otherwise, in the folder for temporary files for good.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parents[2] / ".pytest_cache" / "torchinductor"))

import random
from typing import Any

import pytest
import torch

from multiscale.model.config import ModelConfig

torch.set_num_threads(1)

LONGEST = (
    *("test_api_fuzz", "test_vqa_server", "test_train", "test_sessions_restart", "test_vqa_training", "test_export"),
    *("test_stream", "test_cuda_export", "test_train_processes"),
)
"""Files that begin before the others, so that no worker has long to go when the other is done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


KINDS = ("mamba1", "mamba2", "transformer", "gru")


def random_block(rng: random.Random, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    kind, position = rng.choice(kinds), rng.choice(["fixed", "rope", None])
    common = {"block_type": kind, "pos_emb_type": position}
    if kind == "transformer":
        heads = {"attn_head_dims": rng.choice([16, 24, 32]), "attn_num_heads": rng.choice([1, 2, 3])}
        return {**common, **heads, "attn_use_rot_embs": rng.random() < 0.6, "ff_multiplier": rng.choice([2, 3])}
    if kind in ("mamba1", "mamba2"):
        return {**common, "d_state": 8, "d_conv": rng.choice([3, 4]), "expand": 2, "headdim": 16}
    return common


def random_config(seed: int, kinds: tuple[str, ...] = KINDS) -> ModelConfig:
    """A small hierarchy of 1 to 4 stages, of odd sizes."""
    rng = random.Random(seed)
    stages = 1 + seed % 4
    lens = [rng.choice([6, 9])] + [rng.choice([2, 3, 4, 5]) for _ in range(stages - 1)]
    return ModelConfig.from_params(
        {
            "num_tokens": rng.choice([256, 257, 260]),
            "pad_token_id": 0,
            "hidden_dims": [rng.choice([32, 40, 48, 64]) for _ in range(stages)],
            "seq_lens": [40] if stages == 1 else lens,
            "num_layers": [rng.choice([1, 2]) for _ in range(stages)],
            "block": [random_block(rng, kinds) for _ in range(stages)],
        }
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
