"""Transformer layers. Unrolled over a patch they keep nothing: keys, values and the shifted tokens are values of the graph."""

from __future__ import annotations

from functools import partial

import numpy as np

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import Norm, Residual, StepAt

NORM = Norm.CLAMP


def emit_transformer(c: BlockContext, r: Residual, at: StepAt) -> Residual:
    for layer in range(c.num_layers):
        prefix = c.prefix(layer)
        qkv_weight = f"{prefix}0.to_q.weight+{prefix}0.to_kv.weight"
        r, qkv = _shifted_linear(c, r, at, layer, "shift_attn", prefix + "0.norm.g", qkv_weight)
        attended = _patch_attention(c, qkv, layer) if c.is_local else _cached_attention(c, qkv, at, layer)
        r = c.form.linear_add(r, attended, prefix + "0.to_out.weight")
        gain, weight, bias = (prefix + name for name in ("1.0.g", "1.1.weight", "1.1.bias"))
        r, hidden = _shifted_linear(c, r, at, layer, "shift_ff", gain, weight, bias, gelu=True)
        r = c.form.linear_add(r, hidden, prefix + "1.4.weight", prefix + "1.4.bias")
    return r


def _shifted_linear(
    c: BlockContext,
    r: Residual,
    at: StepAt,
    layer: int,
    kind: str,
    gain: str,
    weight: str,
    bias: str = "",
    gelu: bool = False,
) -> tuple[Residual, str]:
    """The product of the normalised input, half of whose channels come from the previous token."""
    g, name = c.form.graph, c.after_start_name(layer, kind)
    if not c.is_local:
        initial = g.derived(name, lambda: c.after_start(layer, kind)[0])
        state = g.state(layer, kind, "float32", c.after_start(layer, kind).shape[1:])
        r, h = c.form.shift_norm(r, gain, state, initial, at)
        return r, c.form.linear(h, weight, bias, gelu)
    before = c.memory.get((layer, kind))
    prev = before[-1] if before else g.derived(f"{name}#row", lambda: c.after_start(layer, kind))
    r, y = c.form.norm_linear(r, gain, NORM, weight, prev, bias, gelu)
    c.remember(layer, kind, r.x)
    return r, y


def _patch_attention(c: BlockContext, qkv: str, layer: int) -> str:
    inputs = [*_start_token(c, layer), *rotary_tables(c), *c.remember(layer, "qkv", qkv)]
    return c.form.graph.op("PatchAttention", inputs)


def _cached_attention(c: BlockContext, qkv: str, at: StepAt, layer: int) -> str:
    g, block = c.form.graph, c.block
    shape = (block.attn_num_heads, c.capacity, block.attn_head_dims)
    caches = [g.state(layer, kind, g.work.dtype, shape, axis=1) for kind in ("key", "value")]
    inputs = [qkv, *caches, *_start_token(c, layer), *rotary_tables(c), at.slot, at.position]
    return g.op("CachedAttention", inputs)


def _start_token(c: BlockContext, layer: int) -> list[str]:
    """The start token's key and value (H, d)."""
    g = c.form.graph
    return [
        g.derived(c.after_start_name(layer, kind), partial(start_token, c, layer, kind), g.work)
        for kind in ("key", "value")
    ]


def start_token(c: BlockContext, layer: int, kind: str) -> np.ndarray:
    """The start token's `key` or `value` (H, d)."""
    return _unpadded(c.after_start(layer, kind)[:, 0], c.block.attn_head_dims)


def _unpadded(heads: np.ndarray, dim: int) -> np.ndarray:
    """Undoes what the CPU's attention needs: each half of a head's channels is followed by zeros (see `_pad_halves`)."""
    half = heads.shape[-1] // 2
    return np.concatenate([heads[:, : dim // 2], heads[:, half : half + dim // 2]], 1)


def rotary_tables(c: BlockContext) -> list[str]:
    """cos and sin (1 + capacity, d/2), the start token being position 0; the identity without rotary embeddings."""
    g = c.form.graph

    def table(function: np.ufunc) -> np.ndarray:
        frequencies = np.zeros(c.block.attn_head_dims // 2, np.float32)
        if c.block.attn_use_rot_embs:
            frequencies = g.file.weights[f"stage_models.{c.stage}.rotary_emb.inv_freq"].astype(np.float32)
        return function(np.outer(np.arange(c.capacity + 1, dtype=np.float32), frequencies))

    return [g.derived(f"stage{c.stage}.rotary.{f.__name__}", partial(table, f)) for f in (np.cos, np.sin)]
