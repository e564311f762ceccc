"""Mamba-2 layers. State tensors also carry an unrolled patch from byte to byte."""

from __future__ import annotations

import numpy as np

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import Norm, Residual, StepAt

NORM = Norm.EPSILON
ROW_MULTIPLE = 8
"""Rows of in_proj: its outputs are read and written 16 bytes at a time."""


def emit_mamba2(c: BlockContext, r: Residual, at: StepAt) -> Residual:
    for layer in range(c.num_layers):
        prefix = c.prefix(layer)
        r, u = c.form.norm_linear(r, prefix + "norm.weight", NORM, in_proj_name(c, prefix + "mixer.in_proj.weight"))
        r = c.form.linear_add(r, _mix(c, u, at, layer, prefix + "mixer."), prefix + "mixer.out_proj.weight")
    return r


def _mix(c: BlockContext, u: str, at: StepAt, layer: int, prefix: str) -> str:
    """u: the columns z, x, B, C, dt of in_proj. Returns what out_proj reads."""
    g, weights = c.form.graph, c.form.graph.file.weights
    channels, taps = weights[prefix + "conv1d.weight"].shape[0], weights[prefix + "conv1d.weight"].shape[-1]
    inner = channels - 2 * c.block.d_state

    rows = [at.slot, at.position]
    kernel = g.derived(prefix + "conv1d.weight", lambda: weights[prefix + "conv1d.weight"].reshape(channels, taps))
    inputs = [u, kernel, g.vector(prefix + "conv1d.bias"), *state_inputs(c, layer, "conv_state"), *rows]
    xbc = g.op("CausalConv", inputs, offset=inner)
    a = g.derived(prefix + "A_log#neg_exp", lambda: -np.exp(weights[prefix + "A_log"]))
    state = state_inputs(c, layer, "ssm_state")
    inputs = [xbc, u, g.vector(prefix + "dt_bias"), a, g.vector(prefix + "D"), *state, *rows]
    y = g.op("SsmScan", inputs, dt_offset=inner + channels)
    return g.op("GatedNorm", [y, u, g.vector(prefix + "norm.weight")])


def state_inputs(c: BlockContext, layer: int, kind: str) -> list[str]:
    """A state of a layer, and the model's own, which is before position 0."""
    g = c.form.graph
    value, name = c.after_start(layer, kind), c.after_start_name(layer, kind)
    return [g.state(layer, kind, "float32", value.shape), g.derived(name, lambda: value)]


def in_proj_name(c: BlockContext, name: str) -> str:
    """Name of a matrix whose rows are a multiple of 8: zeros are added at its end where they are not."""
    file = c.form.graph.file
    rows = file.weights[name].shape[0]
    padding = -rows % ROW_MULTIPLE
    if not padding:
        return name
    padded = f"{name}#padded"
    file.add(padded, lambda: np.pad(file.weights[name], ((0, padding), (0, 0))), file.work)
    return padded
