"""All layers of a Mamba-2 stage as one operator, MambaStep: one step of up to 8 rows in one launch.

Its matrices and states are the other graphs' own; its vectors are a tensor of their own.
"""

from __future__ import annotations

import numpy as np

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import Residual, StepAt
from multiscale.export.cuda.mamba2 import in_proj_name, state_inputs
from multiscale.model.config import ModelConfig

MAX_LAYERS = 32
"""`MAX_MAMBA_LAYERS` of `native/ops.h`."""


def has_mamba_step(config: ModelConfig, stage: int) -> bool:
    """Whether MambaStep says what the layers of a stage above the local one do."""
    return config.blocks[stage].block_type == "mamba2" and config.num_layers[stage] <= MAX_LAYERS


def mamba_step_scratch_bytes(config: ModelConfig, stage: int) -> tuple[int, int]:
    """What a call needs for its exchanges, whatever its rows, and for each of them (`mamba_step_scratch_bytes`)."""
    block, width = config.blocks[stage], config.hidden_dims[stage]
    return 4096, 16 * width + 64 * block.d_state + 12 * block.expand * width


def emit_mamba_step(c: BlockContext, r: Residual, at: StepAt) -> Residual:
    g, weights = c.form.graph, c.form.graph.file.weights
    layers = []
    for layer in range(c.num_layers):
        prefix = f"{c.prefix(layer)}mixer."
        layers += [g.matrix(in_proj_name(c, f"{prefix}in_proj.weight")), g.matrix(f"{prefix}out_proj.weight")]
        layers += [*state_inputs(c, layer, "conv_state"), *state_inputs(c, layer, "ssm_state")]

    def vectors() -> np.ndarray:
        return np.stack([_layer_vectors(c, weights, layer) for layer in range(c.num_layers)])

    inputs = [
        r.x,
        at.slot,
        at.position,
        g.derived(f"stage{c.stage}.fused.vectors", vectors),
        g.input("scratch", "uint8", ["Z"]),
        *layers,
    ]
    return Residual(g.op("MambaStep", inputs))


def _layer_vectors(c: BlockContext, weights: dict[str, np.ndarray], layer: int) -> np.ndarray:
    """float32: gains, the convolution and what goes with the recurrence, in MambaStep's order."""
    prefix = c.prefix(layer)
    names = ("norm.weight", "mixer.conv1d.weight", "mixer.conv1d.bias", "mixer.dt_bias")
    parts = [weights[prefix + name] for name in names]
    parts += [
        -np.exp(weights[f"{prefix}mixer.A_log"]),
        weights[f"{prefix}mixer.D"],
        weights[f"{prefix}mixer.norm.weight"],
    ]
    return np.concatenate([part.reshape(-1) for part in parts])
