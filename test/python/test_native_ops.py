"""Every operator of the reference library against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_op import run_op
from torch import Tensor

from multiscale.export.cuda.runner import PATCH_ROW, ROW_LOGITS

SUFFIX = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
WORK_TYPES = pytest.mark.parametrize("work", list(SUFFIX), ids=list(SUFFIX.values()))
CLAMP, EPSILON = 0, 1


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def piece(x: Tensor, position: int, steps: int) -> Tensor:
    """Steps of (R, T, W) as the rows of a call."""
    return x[:, position : position + steps].flatten(0, 1).contiguous()


def near(actual: Tensor, expected: Tensor, work: torch.dtype = torch.float32) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=TOLERANCE[work], atol=TOLERANCE[work])


def op(kind: str, work: torch.dtype, inputs: dict[str, Tensor | None], outputs: dict[str, Any], **attributes: int):
    results = run_op(f"{kind}_{SUFFIX[work]}", inputs, outputs, **attributes)
    return results[0] if len(results) == 1 else results


def normed(x: Tensor, norm: int, gain: Tensor) -> Tensor:
    x = x.double()
    squares = x.square().mean(-1, keepdim=True)
    divisor = squares.sqrt().clamp(min=1e-8) if norm == CLAMP else (squares + 1e-5).sqrt()
    return x / divisor * gain.double()


def shifted(x: Tensor, prev: Tensor | None) -> Tensor:
    half = x.shape[-1] // 2
    return x if prev is None else torch.cat((x[..., :half], prev[..., half:].expand_as(x[..., half:])), -1)


def interleaved_rope(x: Tensor, positions: Tensor) -> Tensor:
    dim = x.shape[-1]
    angles = positions[:, None].double() * 10_000 ** (-torch.arange(0, dim, 2).double() / dim)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


# ---- numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_read_and_written_as_it_is(work: torch.dtype) -> None:
    numbers = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(work)
    finite = numbers[~numbers.isnan()].view(-1, 1)
    copy, rows = torch.zeros_like(finite), ints(*range(len(finite)))
    op("StoreRows", work, {"src": finite, "dst": copy, "row": rows}, {"done": (torch.int32, (1,))})
    assert torch.equal(copy.view(torch.int16), finite.view(torch.int16))
    y = op("BiasGelu", work, {"x": finite, "bias": torch.zeros(1)}, {"y": (work, tuple(finite.shape))})
    assert torch.equal(y[finite > 9].view(torch.int16), finite[finite > 9].view(torch.int16))


@pytest.mark.parametrize("work", [torch.float16, torch.bfloat16])
def test_products_of_16_bit_numbers_are_rounded_to_nearest_even(work: torch.dtype) -> None:
    """A product of two such numbers is exact in float32, so that only its rounding is seen: ties, subnormals, overflow."""
    random = np.random.default_rng(0)
    rows = [torch.from_numpy(random.integers(0, 65536, 8).astype(np.uint16)).view(work) for _ in range(400)]
    w = torch.from_numpy(random.integers(0, 65536, 64).astype(np.uint16)).view(work).view(-1, 1)
    w = w.nan_to_num(1.5, 2.0, -2.0)
    for x in rows:
        x = x.nan_to_num(1.0, 3.0, -3.0).view(-1, 1)
        y = op("Linear", work, {"x": x, "w": w}, {"y": (work, (8, 64))})
        assert torch.equal(y, (x.float() * w.float().T).to(work))


def test_nan_stays_nan() -> None:
    for work in SUFFIX:
        y = op(
            "Linear",
            work,
            {"x": torch.full((1, 2), torch.nan, dtype=work), "w": torch.ones(1, 2, dtype=work)},
            {"y": (work, (1, 1))},
        )
        assert y.isnan().all()


# ---- inputs ---------------------------------------------------------------------------------------------------


@WORK_TYPES
def test_embed_patch(work: torch.dtype) -> None:
    table = torch.randn(7, 6).to(work)
    ids = torch.randint(7, (5, 3), dtype=torch.int32)
    gain, beta = torch.randn(18), torch.randn(18)
    y = op("EmbedPatch", work, {"ids": ids, "table": table, "gain": gain, "beta": beta}, {"y": (work, (5, 18))})
    flat = table[ids.long()].flatten(1).double()
    near(y, F.layer_norm(flat, (18,), gain.double(), beta.double()), work)


@WORK_TYPES
@pytest.mark.parametrize("position_embedding", ["table", "rope", None])
@pytest.mark.parametrize("has_contexts", [True, False])
def test_stage_input(work: torch.dtype, position_embedding: str | None, has_contexts: bool) -> None:
    D, children, positions, slots = 8, 6, ints(0, 3), ints(2, 0)
    e = torch.randn(6, D).to(work)
    bias, gain, beta = torch.randn(3, D)
    table = torch.randn(7, D) if position_embedding == "table" else None
    contexts = torch.randn(3, children * D).to(work) if has_contexts else None
    x = op(
        "StageInput",
        work,
        {
            **{"e": e, "bias": bias, "gain": gain, "beta": beta, "position": positions, "slot": slots},
            **{"pos_table": table, "contexts": contexts},
        },
        {"x": (torch.float32, (6, D))},
        rope=int(position_embedding == "rope"),
    )
    at = torch.tensor([0, 1, 2, 3, 4, 5])
    expected = F.layer_norm(e.double() + bias, (D,), gain.double(), beta.double())
    if position_embedding == "table":
        expected = expected + table[at]
    if position_embedding == "rope":
        expected = interleaved_rope(expected, at)
    if has_contexts:
        vectors = contexts.view(3, children, D).double()
        expected = expected + torch.cat((vectors[2, 0:3], vectors[0, 3:6]))
    near(x, expected)


@WORK_TYPES
@pytest.mark.parametrize("position_embedding", ["table", "rope", None])
def test_local_input(work: torch.dtype, position_embedding: str | None) -> None:
    D, children, position = 8, 4, 2
    table, contexts = torch.randn(9, D).to(work), torch.randn(3, children * D).to(work)
    pos_table = torch.randn(children, D) if position_embedding == "table" else None
    ids, slots = ints(8, 0, 3), ints(1, 2, 0)
    x = op(
        "LocalInput",
        work,
        {"ids": ids, "slot": slots, "table": table, "contexts": contexts, "pos_table": pos_table},
        {"x": (torch.float32, (3, D))},
        position=position,
        rope=int(position_embedding == "rope"),
    )
    expected = table[ids.long()].double()
    if position_embedding == "table":
        expected = expected + pos_table[position]
    if position_embedding == "rope":
        expected = interleaved_rope(expected, torch.full((3,), position))
    near(x, expected + contexts.view(3, children, D)[slots.long(), position])


# ---- products -------------------------------------------------------------------------------------------------


@WORK_TYPES
@pytest.mark.parametrize("norm", [CLAMP, EPSILON])
@pytest.mark.parametrize("gelu", [0, 1])
@pytest.mark.parametrize("prev_rows", [0, 1, 3])
def test_norm_linear(work: torch.dtype, norm: int, gelu: int, prev_rows: int) -> None:
    x, gain, w = torch.randn(3, 10), torch.randn(10), torch.randn(5, 10).to(work)
    bias = torch.randn(5) if gelu else None
    prev = torch.randn(prev_rows, 10) if prev_rows else None
    inputs = {"x": x, "gain": gain, "w": w, "bias": bias, "prev": prev}
    y = op("NormLinear", work, inputs, {"y": (work, (3, 5))}, norm=norm, gelu=gelu)
    expected = normed(shifted(x, prev), norm, gain) @ w.double().T
    near(y, F.gelu(expected + bias) if gelu else expected, work)


def test_clamped_norm_of_nothing_is_nothing() -> None:
    inputs = {"x": torch.zeros(1, 4), "gain": torch.ones(4), "w": torch.ones(2, 4)}
    assert op("NormLinear", torch.float32, inputs, {"y": (torch.float32, (1, 2))}, norm=CLAMP).tolist() == [[0, 0]]


@WORK_TYPES
@pytest.mark.parametrize("gelu", [0, 1])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear(work: torch.dtype, gelu: int, has_bias: bool) -> None:
    x, w = torch.randn(8, 7).to(work), torch.randn(5, 7).to(work)
    bias = torch.randn(5) if has_bias else None
    y = op("Linear", work, {"x": x, "w": w, "bias": bias}, {"y": (work, (8, 5))}, gelu=gelu)
    expected = F.linear(x.double(), w.double(), bias.double() if has_bias else None)
    near(y, F.gelu(expected) if gelu else expected, work)


@WORK_TYPES
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_add(work: torch.dtype, has_bias: bool) -> None:
    x, w, residual = torch.randn(2, 7).to(work), torch.randn(5, 7).to(work), torch.randn(2, 5)
    bias = torch.randn(5) if has_bias else None
    inputs = {"x": x, "w": w, "residual": residual, "bias": bias}
    y = op("LinearAdd", work, inputs, {"y": (torch.float32, (2, 5))})
    near(y, residual + F.linear(x.double(), w.double(), bias.double() if has_bias else None))


@WORK_TYPES
def test_bias_gelu(work: torch.dtype) -> None:
    x, bias = torch.randn(9, 6).to(work), torch.randn(6)
    near(op("BiasGelu", work, {"x": x, "bias": bias}, {"y": (work, (9, 6))}), F.gelu(x.double() + bias), work)


# ---- norms ----------------------------------------------------------------------------------------------------


@WORK_TYPES
@pytest.mark.parametrize("norm", [CLAMP, EPSILON])
@pytest.mark.parametrize("has_delta", [True, False])
@pytest.mark.parametrize("prev_rows", [0, 1, 9])
def test_add_norm(work: torch.dtype, norm: int, has_delta: bool, prev_rows: int) -> None:
    x, gain = torch.randn(9, 10), torch.randn(10)
    delta, bias = (torch.randn(9, 10).to(work), torch.randn(10)) if has_delta else (None, None)
    prev = torch.randn(prev_rows, 10) if prev_rows else None
    inputs = {"x": x, "gain": gain, "delta": delta, "bias": bias, "prev": prev}
    total, h = op("AddNorm", work, inputs, {"sum": (torch.float32, (9, 10)), "h": (work, (9, 10))}, norm=norm)
    expected = x.double() + delta + bias if has_delta else x.double()
    near(total, expected)
    near(h, normed(shifted(expected, prev), norm, gain), work)


@WORK_TYPES
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("has_delta", [True, False])
def test_shift_norm(work: torch.dtype, steps: int, has_delta: bool) -> None:
    """Row 0 starts a sequence, row 1 goes on with one; slot 1 belongs to nobody."""
    x, gain, state, initial = torch.randn(2 * steps, 10), torch.randn(10), torch.randn(3, 10), torch.randn(10)
    delta, bias = (torch.randn(2 * steps, 10).to(work), torch.randn(10)) if has_delta else (None, None)
    before = state.clone()
    total, h = op(
        "ShiftNorm",
        work,
        {
            **{"x": x, "gain": gain, "state": state, "initial": initial, "slot": ints(2, 0), "position": ints(0, 5)},
            **{"delta": delta, "bias": bias},
        },
        {"sum": (torch.float32, tuple(x.shape)), "h": (work, tuple(x.shape))},
    )
    expected = x.double() + delta + bias if has_delta else x.double()
    near(total, expected)
    by_row = expected.view(2, steps, 10)
    prev = torch.cat((torch.stack((initial, before[0]))[:, None], by_row[:, :-1]), 1)
    near(h, normed(shifted(by_row, prev), CLAMP, gain).flatten(0, 1), work)
    near(state[[2, 0]], by_row[:, -1])
    assert torch.equal(state[1], before[1])


@WORK_TYPES
def test_gated_norm(work: torch.dtype) -> None:
    y, u, gain = torch.randn(4, 6), torch.randn(4, 11).to(work), torch.randn(6)
    h = op("GatedNorm", work, {"y": y, "u": u, "gain": gain}, {"h": (work, (4, 6))})
    near(h, normed(y * F.silu(u[:, :6].double()), EPSILON, gain), work)


# ---- attention ------------------------------------------------------------------------------------------------


def rotary_tables(rows: int, d: int, rotary: bool) -> tuple[Tensor, Tensor]:
    if not rotary:
        return torch.ones(rows, d // 2), torch.zeros(rows, d // 2)
    angles = torch.arange(rows)[:, None] * 10_000 ** (-torch.arange(0, d, 2) / d)
    return angles.cos(), angles.sin()


def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.double().chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def full_attention(start_k: Tensor, start_v: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """qkv (B, T, 3, H, d) after a start token → (B, T, H·d), all at once."""
    q, k, v = (part.transpose(1, 2).double() for part in qkv.unbind(2))
    T = q.shape[2]
    q, k = (rotate_half(part, cos[1 : T + 1], sin[1 : T + 1]) for part in (q, k))
    k, v = (
        torch.cat((start.double()[:, None].expand(len(part), -1, -1, -1), part), 2)
        for start, part in ((start_k, k), (start_v, v))
    )
    mask = torch.ones(T, T + 1, dtype=torch.bool).tril(1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


@WORK_TYPES
@pytest.mark.parametrize("rotary", [True, False])
def test_patch_attention(work: torch.dtype, rotary: bool) -> None:
    B, H, d, P = 3, 2, 6, 5
    start_k, start_v = torch.randn(2, H, d).to(work)
    qkv = torch.randn(P, B, 3 * H * d).to(work)
    cos, sin = rotary_tables(P + 1, d, rotary)
    expected = full_attention(start_k, start_v, qkv.transpose(0, 1).unflatten(-1, (3, H, d)), cos, sin)
    for count in range(1, P + 1):
        y = op(
            "PatchAttention",
            work,
            {
                **{"start_k": start_k, "start_v": start_v, "cos": cos, "sin": sin},
                **{f"qkv_{j + 1}": qkv[j] for j in range(count)},
            },
            {"y": (work, (B, H * d))},
        )
        near(y, expected[:, count - 1], work)


@WORK_TYPES
@pytest.mark.parametrize("rotary", [True, False])
def test_cached_attention(work: torch.dtype, rotary: bool) -> None:
    """Two sequences in pieces of 1, 3 and 2 steps. What their caches hold beyond is never read; other slots are left alone."""
    H, d, capacity, slots = 2, 6, 8, 3
    start_k, start_v = torch.randn(2, H, d).to(work)
    qkv = torch.randn(2, 6, 3 * H * d).to(work)
    cos, sin = rotary_tables(capacity + 1, d, rotary)
    k_cache, v_cache = torch.full((2, slots, H, capacity, d), torch.nan).to(work).unbind()
    k_cache, v_cache = k_cache.contiguous(), v_cache.contiguous()
    parts = []
    for position, steps in ((0, 1), (1, 3), (4, 2)):
        y = op(
            "CachedAttention",
            work,
            {
                "qkv": piece(qkv, position, steps),
                **{"k_cache": k_cache, "v_cache": v_cache, "start_k": start_k, "start_v": start_v},
                **{"cos": cos, "sin": sin, "slot": ints(2, 0), "position": ints(position, position)},
            },
            {"y": (work, (2 * steps, H * d))},
        )
        parts.append(y.view(2, steps, -1))
    by_head = qkv.unflatten(-1, (3, H, d))
    near(torch.cat(parts, 1), full_attention(start_k, start_v, by_head, cos, sin), work)
    assert torch.equal(v_cache[[2, 0], :, :6], by_head[:, :, 2].transpose(1, 2))
    near(k_cache[[2, 0], :, :6], rotate_half(by_head[:, :, 1].transpose(1, 2), cos[1:7], sin[1:7]), work)
    assert v_cache[1].isnan().all()
    assert v_cache[:, :, 6:].isnan().all()


# ---- Mamba-2 --------------------------------------------------------------------------------------------------


@WORK_TYPES
@pytest.mark.parametrize("taps", [2, 4])
def test_causal_conv(work: torch.dtype, taps: int) -> None:
    """Pieces of 1 and 5 steps: shorter and longer than the state. Slot 0 belongs to nobody."""
    W, C, offset = 11, 5, 3
    u = torch.randn(2, 6, W).to(work)
    w, b, initial = torch.randn(C, taps), torch.randn(C), torch.randn(taps - 1, C)
    state = torch.full((3, taps - 1, C), torch.nan)
    parts = []
    for position, steps in ((0, 1), (1, 5)):
        y = op(
            "CausalConv",
            work,
            {
                "u": piece(u, position, steps),
                **{"w": w, "b": b, "state": state, "initial": initial},
                **{"slot": ints(1, 2), "position": ints(position, position)},
            },
            {"y": (torch.float32, (2 * steps, C))},
            offset=offset,
        )
        parts.append(y.view(2, steps, C))
    x = torch.cat((initial.expand(2, -1, -1), u[..., offset : offset + C]), 1).double()
    expected = F.conv1d(x.transpose(1, 2), w[:, None].double(), b.double(), groups=C).transpose(1, 2)
    near(torch.cat(parts, 1), F.silu(expected))
    near(state[1:], x[:, -(taps - 1) :])
    assert state[0].isnan().all()


@WORK_TYPES
def test_ssm_scan(work: torch.dtype) -> None:
    H, P, N, W, dt_offset = 3, 4, 5, 9, 2
    xbc, u = torch.randn(2, 6, H * P + 2 * N), (3 * torch.randn(2, 6, W)).to(work)
    u[0, 0, dt_offset] = 30  # softplus is the identity there
    dt_bias, a, d = torch.randn(H), -torch.rand(H) - 0.1, torch.randn(H)
    initial, state = torch.randn(H, N, P), torch.full((3, H, N, P), torch.nan)
    parts = []
    for position, steps in ((0, 2), (2, 1), (3, 3)):
        y = op(
            "SsmScan",
            work,
            {
                "xbc": piece(xbc, position, steps),
                "u": piece(u, position, steps),
                **{"dt_bias": dt_bias, "a": a, "d": d, "state": state, "initial": initial},
                **{"slot": ints(0, 2), "position": ints(position, position)},
            },
            {"y": (torch.float32, (2 * steps, H * P))},
            dt_offset=dt_offset,
        )
        parts.append(y.view(2, steps, H * P))
    x, B, C = xbc.double().split([H * P, N, N], -1)
    x = x.unflatten(-1, (H, P))
    dt = F.softplus(u[..., dt_offset : dt_offset + H].double() + dt_bias)
    h, expected = initial.double().expand(2, -1, -1, -1), []
    for t in range(6):
        decay = torch.exp(dt[:, t] * a)[..., None, None]
        h = decay * h + torch.einsum("bh,bn,bhp->bhnp", dt[:, t], B[:, t], x[:, t])
        expected.append(torch.einsum("bhnp,bn->bhp", h, C[:, t]) + d[:, None] * x[:, t])
    near(torch.cat(parts, 1), torch.stack(expected, 1).flatten(2))
    near(state[[0, 2]], h)
    assert state[1].isnan().all()


# ---- rows -----------------------------------------------------------------------------------------------------


@WORK_TYPES
def test_store_rows(work: torch.dtype) -> None:
    src, dst = torch.randn(2, 5).to(work), torch.randn(4, 5).to(work)
    before = dst.clone()
    done = op("StoreRows", work, {"src": src, "dst": dst, "row": ints(3, 0)}, {"done": (torch.int32, (1,))})
    assert done.tolist() == [1]
    assert torch.equal(dst[[3, 0]], src)
    assert torch.equal(dst[1:3], before[1:3])


def test_store_rows_of_nothing() -> None:
    src, dst = torch.empty(0, 5), torch.ones(4, 5)
    done = op("StoreRows", torch.float32, {"src": src, "dst": dst, "row": ints()}, {"done": (torch.int32, (1,))})
    assert done.tolist() == [1]


# ---- Sample: its rule is compared with the server's in test/sampling/sample-op.test.ts ---------------------------


class SampleCall:
    def __init__(self, logits: Tensor, steps: int):
        B, V = logits.shape
        self.logits, self.rows = logits, np.zeros(B, PATCH_ROW)
        self.rows["slot"] = np.arange(B)[::-1]
        self.rows["top_p"] = self.rows["repetition"] = 1
        self.forced = torch.zeros(B, steps, dtype=torch.int32)
        self.bias = torch.zeros(B, V, dtype=torch.float64)
        self.counts, self.id_flags = torch.zeros(B, V, dtype=torch.int32), torch.zeros(B, V, dtype=torch.uint8)
        self.cursor, self.ids = torch.full((B,), -7, dtype=torch.int32), torch.full((B, steps), -7, dtype=torch.int32)
        self.logits_out = torch.zeros(B, steps, V)

    def inputs(self) -> dict[str, Tensor]:
        rows = torch.from_numpy(self.rows.view(np.int32).reshape(-1, 32))
        return {
            **{"logits": self.logits, "rows": rows, "forced": self.forced, "bias": self.bias, "counts": self.counts},
            **{"id_flags": self.id_flags, "cursor": self.cursor, "ids_out": self.ids, "logits_out": self.logits_out},
        }

    def run(self, step: int) -> list[int]:
        return run_op("Sample", self.inputs(), {"next": (torch.int32, (len(self.rows),))}, step=step)[0].tolist()


def test_sample_counts_what_it_chose_and_nothing_that_is_forced() -> None:
    call = SampleCall(torch.tensor([[0.0, 3, 1], [5, 0, 0]]), steps=2)
    call.rows["num_forced"], call.forced[:] = [0, 1], 2
    call.rows["flags"] = [ROW_LOGITS, 0]
    assert call.run(0) == [1, 2]
    assert call.run(1) == [1, 0]
    assert call.ids.tolist() == [[1, 1], [2, 0]]
    assert call.counts.tolist() == [[1, 0, 0], [0, 2, 0]]  # row 0 has slot 1
    assert call.id_flags.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert torch.equal(call.logits_out[0], call.logits[:1].expand(2, -1))
    assert call.logits_out[1].abs().sum() == 0


def test_sample_reports_what_no_id_can_be_chosen_from_until_the_patch_ends() -> None:
    nan, inf = torch.nan, torch.inf
    call = SampleCall(torch.tensor([[0, nan], [inf, 0], [-inf, -inf], [0, 1], [nan, nan]]), steps=3)
    call.rows["flags"] = [0, 0, 0, 8, 8]  # ROW_DISALLOWED
    call.id_flags[:2] = 2  # ID_DISALLOWED: slots 0 and 1 are rows 4 and 3
    assert call.run(0) == [0] * 5
    assert call.ids[:, 0].tolist() == [-1, -1, -1, -2, -2]
    call.logits[:] = 0
    call.rows["num_forced"] = 0
    call.rows["flags"] = 0
    assert call.run(1) == [0] * 5
    assert call.ids[:, 1].tolist() == [-1, -1, -1, -2, -2]
    assert (call.counts == 0).all()


# ---- what is refused ------------------------------------------------------------------------------------------

X, GAIN, W = torch.zeros(3, 8), torch.zeros(8), torch.zeros(5, 8)
QKV, TABLE = torch.zeros(3, 48), torch.zeros(4, 4)
START = torch.zeros(2, 8)
ATTENTION = {"start_k": START, "start_v": START, "cos": TABLE, "sin": TABLE}
CACHE = {"k": torch.zeros(2, 2, 3, 8), "v": torch.zeros(2, 2, 3, 8), **ATTENTION, "slot": ints(0), "position": ints(0)}
CONV = {"u": X, "w": torch.zeros(6, 4), "b": torch.zeros(6), "state": torch.zeros(2, 3, 6)}
CONV |= {"initial": torch.zeros(3, 6), "slot": ints(1), "position": ints(0)}
SCAN = {"xbc": torch.zeros(3, 14), "u": X, "dt_bias": torch.zeros(3), "a": torch.zeros(3), "d": torch.zeros(3)}
SCAN |= {"state": torch.zeros(2, 3, 4, 2), "initial": torch.zeros(3, 4, 2), "slot": ints(1), "position": ints(0)}
STAGE = {"e": X, "bias": GAIN, "gain": GAIN, "beta": GAIN, "position": ints(0), "slot": ints(0)}
LOCAL = {"ids": ints(0), "slot": ints(1), "table": W, "contexts": torch.zeros(2, 32)}
SHIFT = {"x": X, "gain": GAIN, "state": torch.zeros(2, 8), "initial": GAIN, "slot": ints(0), "position": ints(0)}

REFUSED = [
    ("NormLinear", {"x": X, "gain": GAIN[1:], "w": W}, "input gain has shape [7], must be [K] with K = 8"),
    ("NormLinear", {"x": X[0], "gain": GAIN, "w": W}, "input x has shape [8], must be [M, K]"),
    ("NormLinear", {"x": X, "gain": GAIN, "w": W, "bias": GAIN}, "input bias has shape [8], must be [N] with N = 5"),
    ("NormLinear", {"x": X, "gain": GAIN, "w": W, "bias": None, "prev": X[:2]}, "input prev: p must be 1 or M"),
    ("NormLinear", {"x": X.repeat(3, 1), "gain": GAIN, "w": W}, "input x: M must be at most 8"),
    ("Linear", {"x": X, "w": W[:, 1:].contiguous()}, "input w has shape [5, 7], must be [N, K] with N = 5, K = 8"),
    ("Linear", {"x": X.repeat(3, 1), "w": W}, "input x: M must be at most 8"),
    ("LinearAdd", {"x": X, "w": W, "residual": X}, "input residual has shape [3, 8], must be [M, N] with M = 3, N = 5"),
    ("LinearAdd", {"x": X.repeat(3, 1), "w": W, "residual": torch.zeros(9, 5)}, "input x: M must be at most 8"),
    ("AddNorm", {"x": X, "gain": GAIN, "delta": W}, "input delta has shape [5, 8], must be [M, K] with M = 3, K = 8"),
    ("ShiftNorm", {**SHIFT, "slot": ints(0, 1), "position": ints(0, 0)}, "input slot: M must be a multiple of R"),
    ("ShiftNorm", {**SHIFT, "position": ints(0, 0)}, "input position has shape [2], must be [R] with R = 1"),
    ("ShiftNorm", {**SHIFT, "slot": ints(2)}, "input slot holds 2, must be at least 0 and below 2"),
    ("BiasGelu", {"x": X, "bias": GAIN[1:]}, "input bias has shape [7], must be [N] with N = 8"),
    (
        "EmbedPatch",
        {"ids": ints(0, 1)[None], "table": W, "gain": GAIN, "beta": GAIN},
        "input gain: K must be S·D",
    ),
    (
        "EmbedPatch",
        {"ids": ints(-1)[None], "table": W, "gain": GAIN, "beta": GAIN},
        "input ids holds -1, must be at least 0 and below 5",
    ),
    ("StageInput", {**STAGE, "pos_table": X[:2]}, "input position holds 0, must be at least 0 and below 0"),
    (
        "StageInput",
        {**STAGE, "pos_table": None, "contexts": torch.zeros(1, 20)},
        "input contexts: W must be a multiple of D",
    ),
    (
        "StageInput",
        {**STAGE, "slot": ints(1), "pos_table": None, "contexts": torch.zeros(1, 24)},
        "input slot holds 1, must be at least 0 and below 1",
    ),
    (
        "LocalInput",
        {**LOCAL, "contexts": torch.zeros(2, 16)},
        "input contexts: W / D must be above the attribute position",
    ),
    ("LocalInput", {**LOCAL, "pos_table": X[:2]}, "input pos_table: N must be above the attribute position"),
    ("LocalInput", {**LOCAL, "slot": ints(2)}, "input slot holds 2, must be at least 0 and below 2"),
    ("LocalInput", {**LOCAL, "ids": ints(5)}, "input ids holds 5, must be at least 0 and below 5"),
    ("PatchAttention", {**ATTENTION, "qkv": QKV[:, 1:].contiguous()}, "input qkv: W must be 3·H·d"),
    (
        "PatchAttention",
        {**ATTENTION, **dict.fromkeys("abcd", QKV)},
        "input cos: N must be above the number of inputs qkv",
    ),
    (
        "PatchAttention",
        {**ATTENTION, "a": QKV, "b": QKV[:2]},
        "input qkv has shape [2, 48], must be [B, W] with B = 3, W = 48",
    ),
    ("PatchAttention", {**ATTENTION, "cos": X, "sin": X, "qkv": QKV}, "input cos: h must be d/2"),
    (
        "CachedAttention",
        {"qkv": QKV, **CACHE, "position": ints(1)},
        "input position holds 1, must be at least 0 and below 1",
    ),
    ("CachedAttention", {"qkv": QKV, **CACHE, "slot": ints(-1)}, "input slot holds -1, must be at least 0 and below 2"),
    (
        "CachedAttention",
        {"qkv": QKV, **CACHE, "v": torch.zeros(2, 2, 4, 8)},
        "input v_cache has shape [2, 2, 4, 8], must be [S, H, C, d] with S = 2, H = 2, C = 3, d = 8",
    ),
    ("CausalConv", {**CONV, "u": X[:, :7].contiguous()}, "input u: W must reach offset + C"),
    ("CausalConv", {**CONV, "w": torch.zeros(6, 5)}, "input state: t must be K − 1, at least 1"),
    ("CausalConv", {**CONV, "slot": ints(2)}, "input slot holds 2, must be at least 0 and below 2"),
    ("SsmScan", {**SCAN, "xbc": torch.zeros(3, 15)}, "input xbc: K must be H·P + 2·N"),
    ("SsmScan", {**SCAN, "u": X[:, :4].contiguous()}, "input u: W must reach dt_offset + H"),
    ("SsmScan", {**SCAN, "slot": ints(-2)}, "input slot holds -2, must be at least 0 and below 2"),
    ("GatedNorm", {"y": X, "u": X[:, :7].contiguous(), "gain": GAIN}, "input u: W must be at least D"),
    ("StoreRows", {"src": X, "dst": W, "row": ints(0, 1)}, "input row has shape [2], must be [M] with M = 3"),
    ("StoreRows", {"src": X, "dst": W, "row": ints(0, 1, 5)}, "input row holds 5, must be at least 0 and below 5"),
]
ATTRIBUTES = {"NormLinear": ["norm"], "AddNorm": ["norm"], "LocalInput": ["position"], "CausalConv": ["offset"]}
ATTRIBUTES |= {"SsmScan": ["dt_offset"], "Sample": ["step"]}
VALUES = {"norm": 0, "position": 2, "offset": 2, "dt_offset": 2}
OUTPUTS = {"AddNorm": ["sum", "h"], "ShiftNorm": ["sum", "h"], "GatedNorm": ["h"], "StoreRows": ["done"]}
FLOAT_OUTPUT = (torch.float32, (1, 1))


@pytest.mark.parametrize(("kind", "inputs", "message"), REFUSED, ids=[f"{kind}: {text}" for kind, _, text in REFUSED])
def test_a_wrong_argument_is_named(kind: str, inputs: dict[str, Tensor | None], message: str) -> None:
    is_done = kind == "StoreRows"
    outputs = dict.fromkeys(OUTPUTS.get(kind, ["y"]), (torch.int32, (1,)) if is_done else FLOAT_OUTPUT)
    attributes = {name: VALUES[name] for name in ATTRIBUTES.get(kind, [])}
    with pytest.raises(Exception) as caught:  # noqa: PT011 — ONNX Runtime's errors have no common type
        run_op(f"{kind}_f32", inputs, outputs, **attributes)
    assert f"{kind}_f32: {message}" in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in ATTRIBUTES.items() for name in names])
def test_a_missing_attribute_is_named(kind: str, name: str) -> None:
    inputs = {
        "NormLinear": {"x": X, "gain": GAIN, "w": W},
        "AddNorm": {"x": X, "gain": GAIN},
        "LocalInput": LOCAL,
        "CausalConv": CONV,
        "SsmScan": SCAN,
        "Sample": SampleCall(X, 2).inputs(),
    }[kind]
    output = (torch.int32, (3,)) if kind == "Sample" else FLOAT_OUTPUT
    full_name = kind if kind == "Sample" else f"{kind}_f32"
    with pytest.raises(Exception, match=f"{full_name}: attribute {name} is missing"):
        run_op(full_name, inputs, dict.fromkeys(OUTPUTS.get(kind, ["y"]), output))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.zeros(3, 31, dtype=torch.int32)}, "input rows: Y must be 32"),
        (
            {"counts": torch.zeros(3, 7, dtype=torch.int32)},
            "input counts has shape [3, 7], must be [S, V] with S = 3, V = 8",
        ),
        (
            {"forced": torch.zeros(3, 1, dtype=torch.int32)},
            "input ids_out has shape [3, 2], must be [B, P] with B = 3, P = 1",
        ),
        ({"rows": torch.full((3, 32), 3, dtype=torch.int32)}, "input rows holds 3, must be at least 0 and below 3"),
    ],
)
def test_sample_names_a_wrong_argument(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run_op("Sample", {**SampleCall(X, 2).inputs(), **change}, {"next": (torch.int32, (3,))}, step=1)
    assert f"Sample: {message}" in str(caught.value)


def test_sample_refuses_a_step_beyond_the_patch() -> None:
    with pytest.raises(Exception, match="Sample: input forced: P must be above the attribute step"):
        SampleCall(X.clone(), 2).run(2)


# ---- LocalPatch: what it gives is compared with the graph of single operators in test_cuda_export.py --------------


def local_patch_inputs(rows: int = 2, layers: int = 2) -> dict[str, Tensor]:
    """Width 8, two heads of 4, feed-forward 16, patches of 3 bytes, 5 ids."""
    shapes = {"w_qkv": (24, 8), "w_out": (8, 8), "w_1": (16, 8), "w_2": (8, 16)}
    table = SampleCall(torch.zeros(rows, 5), 3).inputs()
    inputs: dict[str, Tensor] = {
        "first": torch.zeros(rows, dtype=torch.int32),
        "slot": torch.arange(rows, dtype=torch.int32),
        "table": torch.ones(5, 8),
        "contexts": torch.ones(rows, 24),
        "pos_table": torch.ones(3, 8),
        "vectors": torch.ones(layers, 56),
        "starts": torch.ones(layers, 2, 2, 4),
        "cos": torch.ones(4, 2),
        "sin": torch.zeros(4, 2),
        "gain": torch.ones(8),
        "head": torch.ones(5, 8),
        "head_bias": torch.zeros(5),
    }
    names = ("rows", "forced", "bias", "counts", "id_flags", "cursor", "ids_out", "logits_out")
    inputs |= {name: table[name] for name in names}
    inputs["scratch"] = torch.zeros(1 << 20, dtype=torch.uint8)
    for layer in range(layers):
        inputs |= {f"{layer}.{name}": 0.1 * torch.ones(shape) for name, shape in shapes.items()}
    return inputs


LOCAL_PATCH_REFUSED = [
    ({"1.w_2": torch.ones(16, 8)}, "input matrices: they must be [3·H·d, D], [D, H·d], [F, D], [D, F] for each layer"),
    ({"1.w_2": None}, "input matrices: there must be 4·L, of at most 32 layers"),
    ({"scratch": torch.zeros(100, dtype=torch.uint8)}, "input scratch: Z must be at least local_patch_scratch_bytes"),
    ({"contexts": torch.ones(2, 16)}, "input contexts: W must be a multiple of D, at least P·D"),
    ({"pos_table": torch.ones(2, 8)}, "input pos_table: N must be at least P"),
    ({"vectors": torch.ones(2, 40)}, "input vectors: X must be above 5·D"),
    ({"starts": torch.ones(2, 1, 2, 4)}, "input starts: s must be 2"),
    ({"cos": torch.ones(3, 2), "sin": torch.ones(3, 2)}, "input cos: h must be d/2, R above P"),
    ({"first": torch.tensor([0, 5], dtype=torch.int32)}, "input first holds 5, must be at least 0 and below 5"),
    ({"slot": torch.tensor([0, 2], dtype=torch.int32)}, "input slot holds 2, must be at least 0 and below 2"),
]


def test_local_patch_forces_what_it_is_told() -> None:
    inputs = local_patch_inputs()
    inputs["rows"][:, 2] = 3  # num_forced
    inputs["forced"][:] = torch.tensor([[1, 2, 3], [4, 0, 2]])
    (done,) = run_op("LocalPatch_f32", inputs, {"done": (torch.int32, (2,))})
    assert inputs["ids_out"].tolist() == [[1, 2, 3], [4, 0, 2]]
    assert done.tolist() == [3, 2]


@pytest.mark.parametrize(("change", "message"), LOCAL_PATCH_REFUSED, ids=[text for _, text in LOCAL_PATCH_REFUSED])
def test_local_patch_names_a_wrong_argument(change: dict[str, Tensor | None], message: str) -> None:
    inputs = {name: value for name, value in {**local_patch_inputs(), **change}.items() if value is not None}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run_op("LocalPatch_f32", inputs, {"done": (torch.int32, (2,))})
    assert f"LocalPatch_f32: {message}" in str(caught.value)


def test_local_patch_takes_at_most_8_rows() -> None:
    with pytest.raises(Exception, match="LocalPatch_f32: input rows: B must be at most 8"):
        run_op("LocalPatch_f32", local_patch_inputs(9), {"done": (torch.int32, (9,))})


# ---- MambaStep: the same -------------------------------------------------------------------------------------------


def mamba_step_inputs(rows: int = 2, layers: int = 2) -> dict[str, Tensor]:
    """Width 8, four heads of 4, three channels of state, convolutions of 4 taps over 22 channels, five slots."""
    shapes = {
        "in_proj": (48, 8),
        "out_proj": (8, 16),
        "conv_state": (5, 3, 22),
        "conv_initial": (3, 22),
        "ssm_state": (5, 4, 3, 4),
        "ssm_initial": (4, 3, 4),
    }
    inputs = {
        "x": torch.ones(rows, 8),
        "slot": torch.arange(rows, dtype=torch.int32),
        "position": torch.zeros(rows, dtype=torch.int32),
        "vectors": torch.ones(layers, 8 + 5 * 22 + 3 * 4 + 16),
        "scratch": torch.zeros(1 << 20, dtype=torch.uint8),
    }
    for layer in range(layers):
        inputs |= {f"{layer}.{name}": 0.1 * torch.ones(shape) for name, shape in shapes.items()}
    return inputs


MAMBA_STEP_REFUSED = [
    ({"1.ssm_initial": None}, "input layers: there must be 6·L, of at most 32 layers"),
    ({"0.in_proj": torch.ones(48)}, "input layers: number 0 must have 2 dimensions, number 2 3, number 4 4"),
    (
        {"1.out_proj": torch.ones(8, 15)},
        "input layers: they must be [W, D], [D, H·P], [S, taps − 1, C], [taps − 1, C], [S, H, N, P], [H, N, P] for each layer",
    ),
    (
        {"1.ssm_state": torch.ones(5, 4, 3, 4, dtype=torch.float16)},
        "input layers: they must be [W, D], [D, H·P], [S, taps − 1, C], [taps − 1, C], [S, H, N, P], [H, N, P] for each layer",
    ),
    (
        {"0.in_proj": torch.ones(41, 8)},
        "input layers: the convolution must have H·P + 2·N channels, in_proj W ≥ H·P + C + H",
    ),
    ({"vectors": torch.ones(2, 40)}, "input vectors: X must be D + (taps + 1)·C + 3·H + H·P"),
    ({"scratch": torch.zeros(100, dtype=torch.uint8)}, "input scratch: Z must be at least mamba_step_scratch_bytes"),
    ({"slot": torch.tensor([0, 5], dtype=torch.int32)}, "input slot holds 5, must be at least 0 and below 5"),
]


@pytest.mark.parametrize(("change", "message"), MAMBA_STEP_REFUSED, ids=range(len(MAMBA_STEP_REFUSED)))
def test_mamba_step_names_a_wrong_argument(change: dict[str, Tensor | None], message: str) -> None:
    inputs = {name: value for name, value in {**mamba_step_inputs(), **change}.items() if value is not None}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run_op("MambaStep_f32", inputs, {"y": (torch.float32, (2, 8))})
    assert f"MambaStep_f32: {message}" in str(caught.value)


def test_mamba_step_takes_at_most_8_rows() -> None:
    with pytest.raises(Exception, match="MambaStep_f32: input x: B must be at most 8"):
        run_op("MambaStep_f32", mamba_step_inputs(9), {"y": (torch.float32, (9, 8))})


def test_mamba_step_changes_the_states_of_its_slots_alone() -> None:
    inputs = mamba_step_inputs() | {"slot": torch.tensor([4, 1], dtype=torch.int32)}
    (y,) = run_op("MambaStep_f32", inputs, {"y": (torch.float32, (2, 8))})
    assert torch.equal(y[0], y[1])
    assert not torch.equal(y, inputs["x"])
    for layer in range(2):
        for kind in ("conv_state", "ssm_state"):
            state = inputs[f"{layer}.{kind}"]
            assert [slot for slot in range(5) if not (state[slot] == 0.1).all()] == [1, 4]
