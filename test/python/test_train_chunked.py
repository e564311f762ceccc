"""Training in chunks: the same loss and gradients as whole, and activations that do not grow with the context."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import random_config
from torch import Tensor

from multiscale.model.network import MultiscaleByteModel
from multiscale.train.chunked import Chunking, chunked_loss, slices
from multiscale.train.config import TrainConfig

TRAIN = {"target_elements": 1, "batch_size": 1, "learning_rate": 1.0}


def whole_loss(model: MultiscaleByteModel, ids: Tensor, mask: Tensor | None) -> Tensor:
    """`model.loss` without its rounding to float32."""
    ignored = model.config.pad_token_id
    losses = F.cross_entropy(
        model.aligned_logits(ids).flatten(0, 1), ids.flatten(), ignore_index=ignored, reduction="none"
    )
    losses = losses if mask is None else losses * mask.flatten()
    return losses.sum() / (losses != 0).sum()


def gradients(model: MultiscaleByteModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("seed", range(9))
def test_loss_and_gradients_are_those_of_the_whole(seed: int) -> None:
    model = MultiscaleByteModel(random_config(seed)).double().train()
    length = min(model.config.context_length, 61) - seed % 3
    ids = torch.randint(0, model.config.num_tokens, (2, length))
    ids[:, 5] = model.config.pad_token_id
    mask = torch.rand(2, length, dtype=torch.float64).round() * 0.7 if seed % 2 else None
    expected = whole_loss(model, ids, mask)
    expected_gradients = gradients(model, expected)
    for tokens, embed_bytes in ((1, 1), (17, 20)):
        chunking = Chunking.of(model.config, TrainConfig(**TRAIN, chunk_tokens=tokens, embed_chunk_bytes=embed_bytes))
        loss = chunked_loss(model, ids, chunking, mask)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        actual = gradients(model, loss * 1.0)
        assert actual.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            difference = (actual[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
            assert difference <= 1e-9, name
        with torch.no_grad():
            torch.testing.assert_close(chunked_loss(model, ids, chunking, mask), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chunks_by_number_are_those_of_the_config(seed: int) -> None:
    config = random_config(seed)
    counts = [2 + k for k in range(config.num_stages - 1)]
    model = MultiscaleByteModel(config.model_copy(update={"train_checkpoint_chunks": counts})).double().train()
    ids = torch.randint(1, 256, (2, min(config.context_length, 61)))
    chunking = Chunking.of(model.config, TrainConfig(**TRAIN))
    assert chunking.counts == tuple(counts)
    expected = gradients(model, whole_loss(model, ids, None))
    actual = gradients(model, chunked_loss(model, ids, chunking))
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_chunks_cover_everything_once() -> None:
    for total, count in ((1, 5), (7, 3), (8, 8), (10, 1)):
        parts = slices(total, count)
        assert [k for part in parts for k in range(total)[part]] == list(range(total))
        assert len(parts) == min(total, count)
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_autocast_and_dropout_work_in_chunks() -> None:
    """With bfloat16 the loss is that of the whole; weights cast for one chunk do not tie it to the next one."""
    model = MultiscaleByteModel(random_config(6)).train()
    ids = torch.randint(1, 256, (1, model.config.context_length))
    chunking = Chunking.of(model.config, TrainConfig(**TRAIN, chunk_tokens=8, embed_chunk_bytes=8))
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = model.loss(ids), chunked_loss(model, ids, chunking)
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=0)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss = chunked_loss(model, ids, chunking)
        found = gradients(model, loss)
    with torch.autocast("cpu", torch.bfloat16):
        whole = model.loss(ids)
    wanted = gradients(model, whole)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 0.1 * gradient.norm() + 1e-3, name


def test_frozen_parameters_get_no_gradient() -> None:
    model = MultiscaleByteModel(random_config(2)).train()
    model.to_logits.weight.requires_grad_(False)
    model.token_embs_rev[0].embedding.weight.requires_grad_(False)
    ids = torch.randint(1, 256, (1, model.config.context_length))
    found = gradients(model, chunked_loss(model, ids, Chunking((9, 9), None, 16)))
    assert "to_logits.weight" not in found
    assert "to_logits.bias" in found
