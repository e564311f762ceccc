"""GRU stage: the worked example of a custom block's emitter (the training side is `multiscale/model/blocks/gru.py`).

ONNX's GRU operator reads (T, B, D), orders its gates z, r, h where PyTorch orders them r, z, n, and hands back the last hidden
state. It gives no promise for past and present in one buffer, so the state's update is declared as `copy`.
"""

from __future__ import annotations

import numpy as np

from multiscale.export.emitter_registry import StageInputs, register_emitter
from multiscale.export.graph_builder import GraphBuilder
from multiscale.model.blocks.gru import GRUBlock


@register_emitter("gru")
def emit_gru(b: GraphBuilder, block: GRUBlock, inputs: StageInputs) -> str:
    x = inputs.x
    for layer in range(inputs.num_layers):
        prefix = f"{inputs.prefix}layers.{layer}."
        normed = b.layer_norm(x, prefix + "norm.")
        x = b.node("Add", [_gru(b, normed, layer, prefix + "gru.", inputs.dim), x])
    return b.layer_norm(x, inputs.prefix + "norm_f.")


def _gru(b: GraphBuilder, x: str, layer: int, prefix: str, dim: int) -> str:
    state = b.state(layer, "hidden", (dim,), update="copy")
    by_time = b.node("Transpose", [x], perm=[1, 0, 2])
    weights = [
        b.derived(f"{prefix}{name}#gates", _zrh(b.weights[prefix + name])) for name in ("weight_ih_l0", "weight_hh_l0")
    ]
    biases = np.concatenate([_zrh(b.weights[prefix + name])[0] for name in ("bias_ih_l0", "bias_hh_l0")])[None]
    bias = b.derived(f"{prefix}bias_ih_l0+{prefix}bias_hh_l0#gates", biases)
    initial = b.node("Unsqueeze", [state.past, b.ints(0)])
    outputs, last = b.nodes("GRU", [by_time, *weights, bias, "", initial], 2, hidden_size=dim, linear_before_reset=1)
    b.nodes("Squeeze", [last, b.ints(0)], [state.present])
    return b.node("Transpose", [b.node("Squeeze", [outputs, b.ints(1)])], perm=[1, 0, 2])


def _zrh(rows: np.ndarray) -> np.ndarray:
    """PyTorch's gate order r, z, n → ONNX's z, r, h, with the leading direction axis."""
    r, z, n = np.split(rows, 3)
    return np.concatenate([z, r, n])[None]
