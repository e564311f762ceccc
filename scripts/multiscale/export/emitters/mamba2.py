"""Mamba-2 stage. The recurrence is LinearAttention's gated rule: q = C, k = B, v = dt·x, decay = dt·A, state in place."""

from __future__ import annotations

import numpy as np

from multiscale.export.emitter_registry import StageInputs, register_emitter
from multiscale.export.graph_builder import CONTRIB, GraphBuilder
from multiscale.model.blocks.mamba2 import Mamba2Block


@register_emitter("mamba2")
def emit_mamba2(b: GraphBuilder, block: Mamba2Block, inputs: StageInputs) -> str:
    residual, hidden = inputs.x, None
    for layer in range(inputs.num_layers):
        prefix = f"{inputs.prefix}layers.{layer}."
        normed, residual = add_and_norm(b, hidden, residual, prefix + "norm.weight")
        hidden = _mixer(b, block, normed, layer, prefix + "mixer.", inputs.dim)
    return add_and_norm(b, hidden, residual, inputs.prefix + "norm_f.weight")[0]


def add_and_norm(b: GraphBuilder, hidden: str | None, residual: str, gain: str) -> tuple[str, str]:
    """(norm(hidden + residual), hidden + residual) in one node."""
    if hidden is None:
        return b.rms_norm(residual, gain, epsilon=1e-5), residual
    normed, total = f"normed.{gain}", f"residual.{gain}"
    outputs = [normed, "", "", total]
    b.nodes("SkipSimplifiedLayerNormalization", [hidden, residual, b.vector(gain)], outputs, CONTRIB, epsilon=1e-5)
    return normed, total


def causal_conv(b: GraphBuilder, x: str, layer: int, prefix: str, channels: int, taps: int) -> str:
    """silu(depthwise causal convolution), (B, T, C)."""
    state = b.state(layer, "conv_state", (taps - 1, channels))
    weights = [b.vector(prefix + "conv1d.weight"), b.vector(prefix + "conv1d.bias")]
    out = f"conv.{layer}"
    outputs = [out, state.present]
    b.nodes("CausalConvWithState", [x, *weights, state.past], outputs, CONTRIB, channels_last=1, activation="silu")
    return out


def _mixer(b: GraphBuilder, block: Mamba2Block, x: str, layer: int, prefix: str, dim: int) -> str:
    inner, n = block.expand * dim, block.d_state
    heads, head_dim = inner // block.headdim, block.headdim
    projected = b.linear(x, prefix + "in_proj.weight")
    z, xbc, dt = b.nodes("Split", [projected, b.ints(inner, inner + 2 * n, heads)], 3, axis=-1)
    xbc = causal_conv(b, xbc, layer, prefix, inner + 2 * n, block.d_conv)
    x, keys, queries = b.nodes("Split", [xbc, b.ints(inner, n, n)], 3, axis=-1)
    dt = b.elementwise("Softplus", b.node("Add", [dt, b.vector(prefix + "dt_bias")]), heads)
    decay = b.node("Mul", [dt, b.derived(prefix + "A_log#neg_exp", -np.exp(b.weights[prefix + "A_log"]))])
    by_head = b.node("Reshape", [x, b.ints(0, 0, heads, head_dim)])
    values = b.node("Mul", [by_head, b.node("Unsqueeze", [dt, b.ints(3)])])
    values = b.node("Reshape", [values, b.ints(0, 0, inner)])
    state = b.state(layer, "ssm_state", (heads, n, head_dim))
    y = f"scan.{layer}"
    b.nodes(
        "LinearAttention",
        [queries, keys, values, state.past, decay],
        [y, state.present],
        CONTRIB,
        q_num_heads=1,
        kv_num_heads=heads,
        update_rule="gated",
        scale=1.0,
    )
    skip = b.derived(f"{prefix}D#repeat{head_dim}", np.repeat(b.weights[prefix + "D"], head_dim))
    y = b.node("Add", [y, b.node("Mul", [x, skip])])
    gated = b.rms_norm(b.node("Mul", [y, b.silu(z)]), prefix + "norm.weight", epsilon=1e-5)
    return b.linear(gated, prefix + "out_proj.weight")
