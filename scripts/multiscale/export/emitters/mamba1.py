"""Mamba-1 stage: LinearAttention with one head per channel, state size N, value size 1 and a decay per channel and state."""

from __future__ import annotations

import math

import numpy as np

from multiscale.export.emitter_registry import StageInputs, register_emitter
from multiscale.export.emitters.mamba2 import causal_conv
from multiscale.export.graph_builder import CONTRIB, GraphBuilder
from multiscale.model.blocks.mamba1 import Mamba1Block


@register_emitter("mamba1")
def emit_mamba1(b: GraphBuilder, block: Mamba1Block, inputs: StageInputs) -> str:
    x = inputs.x
    for layer in range(inputs.num_layers):
        prefix = f"{inputs.prefix}layers.{layer}."
        normed = b.rms_norm(x, prefix + "norm.weight", epsilon=1e-5)
        x = b.node("Add", [_mixer(b, block, normed, layer, prefix + "mixer.", inputs.dim), x])
    return x


def _mixer(b: GraphBuilder, block: Mamba1Block, x: str, layer: int, prefix: str, dim: int) -> str:
    inner, n, rank = block.expand * dim, block.d_state, math.ceil(dim / 16)
    x, z = b.nodes("Split", [b.linear(x, prefix + "in_proj.weight"), b.ints(inner, inner)], 2, axis=-1)
    x = causal_conv(b, x, layer, prefix, inner, block.d_conv)
    projected = b.linear(x, prefix + "x_proj.weight", quantize=False)
    low, keys, queries = b.nodes("Split", [projected, b.ints(rank, n, n)], 3, axis=-1)
    dt = b.linear(low, prefix + "dt_proj.weight", b.vector(prefix + "dt_proj.bias"), quantize=False)
    dt = b.elementwise("Softplus", dt, inner)
    a = b.derived(prefix + "A_log#neg_exp", -np.exp(b.weights[prefix + "A_log"]))  # (E, N)
    decay = b.node("Mul", [b.node("Unsqueeze", [dt, b.ints(3)]), a])
    decay = b.node("Reshape", [decay, b.ints(0, 0, inner * n)])
    state = b.state(layer, "ssm_state", (inner, n, 1))
    y = f"scan.{layer}"
    b.nodes(
        "LinearAttention",
        [queries, keys, b.node("Mul", [dt, x]), state.past, decay],
        [y, state.present],
        CONTRIB,
        q_num_heads=1,
        kv_num_heads=inner,
        update_rule="gated",
        scale=1.0,
    )
    y = b.node("Add", [y, b.node("Mul", [x, b.vector(prefix + "D")])])
    return b.linear(b.node("Mul", [y, b.silu(z)]), prefix + "out_proj.weight")
