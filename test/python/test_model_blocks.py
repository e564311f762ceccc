"""Blocks against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import random_config

from multiscale.model.blocks.mamba2 import Mamba2Block
from multiscale.model.blocks.ssd import ssd_chunked, ssd_sequential
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel


def ssd_inputs(length: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    x, dt = torch.randn(2, length, 3, 8), torch.rand(2, length, 3)
    return tuple(t.to(dtype) for t in (x, dt, -4 * torch.rand(3), torch.randn(2, length, 5), torch.randn(2, length, 5)))


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
@pytest.mark.parametrize("chunk", [2, 64])
def test_chunked_scan_is_the_recurrence(length: int, chunk: int) -> None:
    inputs = ssd_inputs(length, torch.float64)
    torch.testing.assert_close(ssd_chunked(*inputs, chunk=chunk), ssd_sequential(*inputs), atol=1e-12, rtol=1e-12)


def test_chunked_scan_crosses_blocks_of_chunks() -> None:
    inputs = ssd_inputs(300, torch.float64)  # 150 chunks: more than one block of the outer scan
    torch.testing.assert_close(ssd_chunked(*inputs, chunk=2), ssd_sequential(*inputs), atol=1e-11, rtol=1e-11)


def test_mamba2_stage_is_a_float64_sequential_recurrence() -> None:
    """The whole stage, written out step by step in float64 from the published equations."""
    stage = Mamba2Block(d_state=16, d_conv=4, expand=2, headdim=16).build(32, 2)
    x = torch.randn(2, 70, 32)
    hidden = x.double()
    for layer in stage.double().layers:
        m = layer.mixer
        u = hidden / (hidden.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
        z, xbc, dt = (u @ m.in_proj.weight.T).split([64, 96, 4], -1)
        padded = F.pad(xbc, (0, 0, 3, 0))
        xbc = F.silu(sum(padded[:, k : k + 70] * m.conv1d.weight[:, 0, k] for k in range(4)) + m.conv1d.bias)
        v, b, c = xbc.split([64, 16, 16], -1)
        v, dt = v.view(2, 70, 4, 16), F.softplus(dt + m.dt_bias)
        y = ssd_sequential(v, dt, -m.A_log.exp(), b, c) + m.D[:, None] * v
        g = y.reshape(2, 70, 64) * F.silu(z)
        hidden = hidden + (g / (g.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * m.norm.weight) @ m.out_proj.weight.T
    expected = hidden / (hidden.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * stage.norm_f.weight
    with torch.no_grad():
        torch.testing.assert_close(stage.float()(x).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mamba1", "mamba2", "transformer", "gru"])
def test_every_stage_is_causal(kind: str) -> None:
    """A later byte never changes an earlier prediction."""
    config = random_config(2, (kind,))
    model = MultiscaleByteModel(config).eval()
    length = min(config.context_length, 40)
    ids = torch.randint(1, 256, (1, length))
    changed = ids.clone()
    changed[0, length // 2] = 255 - changed[0, length // 2]
    with torch.no_grad():
        before, after = model(ids)[0], model(changed)[0]
    assert torch.equal(before[: length // 2], after[: length // 2])
    assert not torch.equal(before[length // 2], after[length // 2])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_activation_checkpointing_keeps_gradients(seed: int) -> None:
    config = random_config(seed)
    chunked = config.model_copy(update={"train_checkpoint_chunks": [3] * (config.num_stages - 1)})
    plain, saved = MultiscaleByteModel(config).train(), MultiscaleByteModel(chunked).train()
    saved.load_state_dict(plain.state_dict())
    ids = torch.randint(1, 256, (2, min(config.context_length, 31)))
    plain.loss(ids).backward()
    saved.loss(ids).backward()
    for (name, a), b in zip(plain.named_parameters(), saved.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seq_lens": [4]}, "seq_lens has 1 entries"),
        ({"num_layers": [1, 0]}, "num_layers"),
        ({"pad_token_id": 999}, "pad_token_id 999"),
        ({"colour": 1}, "params.colour"),
        ({"block": {"block_type": "lstm"}}, "'lstm' is not one of"),
        ({"block": {"d_conv": 4}}, "block_type: missing"),
        ({"block": {"block_type": "gru", "width": 3}}, "block.width"),
        ({"train_checkpoint_chunks": [1, 2, 3]}, "train_checkpoint_chunks needs 1"),
    ],
)
def test_wrong_configs_name_the_key(change: dict, message: str) -> None:
    good = {
        "num_tokens": 256,
        "pad_token_id": 0,
        "hidden_dims": [32, 32],
        "seq_lens": [4, 4],
        "num_layers": [1, 1],
        "block": {"block_type": "gru"},
    }
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        ModelConfig.from_params({**good, **change})
