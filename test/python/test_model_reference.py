"""Our model against the reference package, the outside oracle."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from conftest import random_config

from multiscale.model.checkpoint import load_checkpoint, save_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mblm import MBLM, MBLMModelConfig, MBLMReturnType

# The reference's Mamba-2 needs CUDA; where it is missing it builds Mamba-1.
REFERENCE_KINDS = ("mamba1", "transformer")
SEEDS = range(16)


def reference_for(config: ModelConfig) -> MBLM:
    return MBLM(MBLMModelConfig(**config.to_yaml_dict())).eval()


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_and_loss_equal_the_reference(seed: int) -> None:
    config = random_config(seed, REFERENCE_KINDS)
    reference, ours = reference_for(config), MultiscaleByteModel(config).eval()
    ours.load_state_dict(reference.state_dict())
    length = min(config.context_length - seed % 2, 61)
    ids, mask = torch.randint(0, config.num_tokens, (2, length)), torch.rand(2, length).round()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), reference(ids, return_type=MBLMReturnType.LOGITS), atol=1e-5, rtol=1e-5)
        for loss_mask in (None, mask):
            expected = reference(ids, return_type=MBLMReturnType.LOSS, loss_mask=loss_mask)
            torch.testing.assert_close(ours.loss(ids, loss_mask), expected, atol=1e-5, rtol=1e-5)
        empty = ids[:, :0]
        torch.testing.assert_close(
            ours(empty), reference(empty, return_type=MBLMReturnType.LOGITS), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gradients_equal_the_reference(seed: int) -> None:
    config = random_config(seed, REFERENCE_KINDS)
    reference, ours = reference_for(config), MultiscaleByteModel(config).eval()
    ours.load_state_dict(reference.state_dict())
    ids = torch.randint(1, 256, (2, min(config.context_length, 31)))
    ours.loss(ids).backward()
    reference(ids, return_type=MBLMReturnType.LOSS).backward()
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        if expected[name].grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_checkpoints_load_both_ways(seed: int, tmp_path) -> None:
    config = random_config(seed, REFERENCE_KINDS)
    reference, ours = reference_for(config), MultiscaleByteModel(config)
    torch.save({"MODEL": reference.state_dict(), "LOSS": 1.0}, tmp_path / "reference.pth")
    loaded = load_checkpoint(tmp_path / "reference.pth", config)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), reference.state_dict().values(), strict=True)
    )
    save_checkpoint(tmp_path / "ours.pth", ours, 2.0)
    reference.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True)["MODEL"], strict=True)


def test_names_from_before_mblm_0_4_load(tmp_path) -> None:
    config = random_config(1, REFERENCE_KINDS)
    model = MultiscaleByteModel(config)
    legacy = {
        name.replace("token_embs_rev.0.embedding", "token_embs_rev.0")
        .replace(".embedding.weight", ".0.weight")
        .replace("._post.3", ".4")
        .replace("._post.2", ".3")
        .replace("._post.1", ".2"): tensor
        for name, tensor in model.state_dict().items()
    }
    assert "token_embs_rev.0.weight" in legacy
    assert "token_embs_rev.1.3.bias" in legacy
    save_checkpoint(tmp_path / "legacy.pth", legacy, 1.0)
    loaded = load_checkpoint(tmp_path / "legacy.pth", config)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_mamba_kind_is_told_by_the_weights_not_the_config(tmp_path) -> None:
    config = random_config(0, ("mamba1",))
    save_checkpoint(tmp_path / "m.pth", MultiscaleByteModel(config), 1.0)
    block = {**config.blocks[0].model_dump(), "block_type": "mamba2"}
    mislabelled = ModelConfig.from_params({**config.to_yaml_dict(), "block": [block]})
    assert load_checkpoint(tmp_path / "m.pth", mislabelled).config.blocks[0].block_type == "mamba1"


def test_a_checkpoint_that_does_not_fit_names_the_weight(tmp_path) -> None:
    config = random_config(1, ("transformer",))
    save_checkpoint(tmp_path / "m.pth", MultiscaleByteModel(config), 1.0)
    wider = ModelConfig.from_params({**config.to_yaml_dict(), "num_tokens": config.num_tokens + 1})
    with pytest.raises(ValueError, match=r"to_logits\.weight is"):
        load_checkpoint(tmp_path / "m.pth", wider)


def test_loss_is_the_mean_over_bytes_that_count() -> None:
    config = random_config(1, ("transformer",))
    model = MultiscaleByteModel(config).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0]])  # padding is not counted
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model.aligned_logits(ids)[0, :3], ids[0, :3])
        assert math.isclose(model.loss(ids).item(), losses.item(), rel_tol=1e-5)
