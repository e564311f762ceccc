"""Causal attention of many short sequences on a GPU, in one kernel each way.

The local stage attends within patches: 9 or 26 tokens, and hundreds of thousands of sequences. General kernels work on tiles of
64 or 128 queries, most of which are empty then. Here a program takes one head of one sequence; all of it is in registers, and the
way back computes the probabilities again.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

LONGEST = 32
"""Tokens of a sequence, at most."""
HEAD_DIMS = (16, 32, 64, 128)


def fits(q: Tensor) -> bool:
    """Whether `attend` takes q (n, H, T, d)."""
    return triton is not None and q.is_cuda and q.shape[2] <= LONGEST and q.shape[3] in HEAD_DIMS


if triton is not None:

    @triton.jit
    def _load(base, n, h, rows, columns, length, stride_n, stride_h, stride_t):
        at = base + n.to(tl.int64) * stride_n + h * stride_h + rows[:, None] * stride_t + columns[None, :]
        return tl.load(at, mask=rows[:, None] < length, other=0.0)

    @triton.jit
    def _store(base, value, n, h, rows, columns, length, stride_n, stride_h, stride_t):
        at = base + n.to(tl.int64) * stride_n + h * stride_h + rows[:, None] * stride_t + columns[None, :]
        tl.store(at, value, mask=rows[:, None] < length)

    @triton.jit
    def _probabilities(q, k, rows, length, scale, precision: tl.constexpr, tile: tl.constexpr):
        columns = tl.arange(0, tile)
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] < length)
        scores = tl.where(seen, scores, float("-inf"))
        powers = tl.exp(scores - tl.max(scores, 1)[:, None])
        return powers / tl.sum(powers, 1)[:, None]

    @triton.jit
    def _forward(
        q_at, k_at, v_at, out_at, heads, length, scale,
        q_n, q_h, q_t, k_n, k_h, k_t, v_n, v_h, v_t, o_n, o_h, o_t,
        precision: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
    ):  # fmt: skip
        n, h = tl.program_id(0) // heads, tl.program_id(0) % heads
        rows, columns = tl.arange(0, tile), tl.arange(0, width)
        q = _load(q_at, n, h, rows, columns, length, q_n, q_h, q_t)
        k = _load(k_at, n, h, rows, columns, length, k_n, k_h, k_t)
        v = _load(v_at, n, h, rows, columns, length, v_n, v_h, v_t)
        p = _probabilities(q, k, rows, length, scale, precision, tile)
        out = tl.dot(p.to(v.dtype), v, input_precision=precision)
        _store(out_at, out.to(q.dtype), n, h, rows, columns, length, o_n, o_h, o_t)

    @triton.jit
    def _backward(
        q_at, k_at, v_at, do_at, dq_at, dk_at, dv_at, heads, length, scale,
        q_n, q_h, q_t, k_n, k_h, k_t, v_n, v_h, v_t, do_n, do_h, do_t, dq_n, dq_h, dq_t,
        precision: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
    ):  # fmt: skip
        n, h = tl.program_id(0) // heads, tl.program_id(0) % heads
        rows, columns = tl.arange(0, tile), tl.arange(0, width)
        q = _load(q_at, n, h, rows, columns, length, q_n, q_h, q_t)
        k = _load(k_at, n, h, rows, columns, length, k_n, k_h, k_t)
        v = _load(v_at, n, h, rows, columns, length, v_n, v_h, v_t)
        d_out = _load(do_at, n, h, rows, columns, length, do_n, do_h, do_t)
        p = _probabilities(q, k, rows, length, scale, precision, tile)
        dv = tl.dot(tl.trans(p.to(v.dtype)), d_out, input_precision=precision)
        dp = tl.dot(d_out, tl.trans(v), input_precision=precision)
        ds = (p * (dp - tl.sum(p * dp, 1)[:, None]) * scale).to(q.dtype)
        dq = tl.dot(ds, k, input_precision=precision)
        dk = tl.dot(tl.trans(ds), q, input_precision=precision)
        _store(dq_at, dq.to(q.dtype), n, h, rows, columns, length, dq_n, dq_h, dq_t)
        _store(dk_at, dk.to(q.dtype), n, h, rows, columns, length, dq_n, dq_h, dq_t)
        _store(dv_at, dv.to(q.dtype), n, h, rows, columns, length, dq_n, dq_h, dq_t)


def _settings(q: Tensor) -> dict[str, object]:
    """`ieee`: float32 products in full precision, unless TF32 is allowed for all of them."""
    exact = q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    tile = 16 if q.shape[2] <= 16 else 32
    return {
        "precision": "ieee" if exact else "tf32",
        "tile": tile,
        "width": q.shape[3],
        "num_warps": 2 if tile == 32 else 1,
    }


def _token_major(like: Tensor) -> Tensor:
    """(n, H, T, d) whose memory is (n, T, H, d): the layout that what follows reads."""
    n, heads, length, width = like.shape
    return like.new_empty(n, length, heads, width).transpose(1, 2)


@torch.library.custom_op("multiscale::short_attention", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention: q, k, v (n, H, T ≤ 32, d) of one type → (n, H, T, d)."""
    out = _token_major(q)
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    n, heads, length, width = q.shape
    strides = [s for t in (q, k, v, out) for s in t.stride()[:3]]
    _forward[(n * heads,)](q, k, v, out, heads, length, width**-0.5, *strides, **_settings(q))
    return out


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _token_major(q)


@torch.library.custom_op("multiscale::short_attention_backward", mutates_args=())
def attend_backward(q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, d_out = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v, d_out))
    gradients = tuple(_token_major(q) for _ in range(3))
    n, heads, length, width = q.shape
    strides = [s for t in (q, k, v, d_out, gradients[0]) for s in t.stride()[:3]]
    _backward[(n * heads,)](q, k, v, d_out, *gradients, heads, length, width**-0.5, *strides, **_settings(q))
    return gradients


@attend_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _token_major(q), _token_major(q), _token_major(q)


def _keep(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: object, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return attend_backward(*ctx.saved_tensors, d_out)


attend.register_autograd(_differentiate, setup_context=_keep)
