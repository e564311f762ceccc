"""Attention of short sequences: the kernel where there is a GPU, and when it is used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multiscale.model.blocks import short_attention
from multiscale.model.blocks.transformer import TransformerBlock

SHAPES = [(300, 3, 26, 64), (70, 16, 9, 64), (5, 2, 32, 32), (9, 4, 5, 128), (1, 1, 1, 16)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_outputs_and_gradients_are_those_of_attention(
    shape: tuple[int, ...], kind: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    n, heads, length, width = shape
    inputs = [torch.randn(n, length, heads, width, device="cuda", dtype=kind).transpose(1, 2) for _ in range(4)]
    q, k, v = (t.requires_grad_() for t in inputs[:3])
    assert short_attention.fits(q)
    out = short_attention.attend(q, k, v)
    gradients = torch.autograd.grad(out, (q, k, v), inputs[3])
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    expected = F.scaled_dot_product_attention(*wide, is_causal=True)
    expected_gradients = torch.autograd.grad(expected, wide, inputs[3].double())
    for got, right in zip((out, *gradients), (expected, *expected_gradients), strict=True):
        # One token attends to itself alone: gradients of queries and keys are zero.
        assert (got.double() - right).norm() <= tolerance * max(right.norm().item(), 1.0)


def test_longer_sequences_and_the_cpu_have_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not short_attention.fits(torch.zeros(1, 1, 9, 64))
    monkeypatch.setattr(short_attention, "triton", object())
    on_gpu = type("OnGpu", (), {"is_cuda": True, "shape": (1, 1, 9, 64)})
    assert short_attention.fits(on_gpu)
    for shape in ((1, 1, short_attention.LONGEST + 1, 64), (1, 1, 9, 48)):
        assert not short_attention.fits(type("OnGpu", (), {"is_cuda": True, "shape": shape}))


def test_dropout_is_not_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    calls: list[torch.Size] = []
    block = TransformerBlock(attn_head_dims=8, attn_num_heads=2, attn_use_rot_embs=True, attn_dropout=0.5)
    stage, x = block.build(16, 2), torch.randn(3, 5, 16)
    expected = stage.eval()(x)
    monkeypatch.setattr(short_attention, "fits", lambda q: True)
    monkeypatch.setattr(short_attention, "attend", attend)
    torch.testing.assert_close(stage(x), expected)
    assert calls == [torch.Size([3, 2, 5, 8])] * 2
    stage.train()(x)
    assert len(calls) == 2
