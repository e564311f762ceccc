"""PyTorch's cached decode, the baseline of benchmarks, gives what the full forward gives."""

from __future__ import annotations

import pytest
import torch

from multiscale.bench.cached_decode import CachedDecoder
from multiscale.bench.graph_decode import sample_top_p
from multiscale.bench.published_shapes import random_model, shape_config
from multiscale.model.config import ModelConfig


def small_config(name: str) -> ModelConfig:
    return shape_config(name, layers_divisor=8, width=64)


@pytest.mark.parametrize(("name", "num_bytes"), [("2d-st", 50), ("3d-stt", 300)])
def test_logits_are_those_of_the_full_forward(name: str, num_bytes: int) -> None:
    model = random_model(small_config(name), 3).double()
    ids = torch.randint(1, 256, (2, num_bytes), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        weights = {key: value.double() for key, value in model.state_dict().items()}
        decoder = CachedDecoder(weights, model.config, rows=2)
        steps = torch.stack([decoder.feed(ids[:, t]) for t in range(num_bytes)], 1)
        # The SSM's state and rotary tables are float32.
        torch.testing.assert_close(steps, model(ids), rtol=0, atol=2e-5)


def test_other_stages_are_refused() -> None:
    model = random_model(small_config("2d-ss"), 0)
    with pytest.raises(ValueError, match="stage 1: no cached decode for mamba2"):
        CachedDecoder(model.state_dict(), model.config)


def test_top_p_samples_the_fewest_ids_that_reach_it() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log().expand(20_000, 4)
    shares = torch.bincount(sample_top_p(logits, 0.7), minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0, 2 / 3, 0, 1 / 3]), rtol=0, atol=0.02)
    assert set(sample_top_p(logits[:100], 1e-9).tolist()) == {1}
