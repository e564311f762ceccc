"""The local stage as one operator, LocalPatch: a whole patch of up to 8 rows in one launch.

Its matrices are the other graphs' own; its vectors and the start token's keys and values are tensors of their own.
"""

from __future__ import annotations

import numpy as np

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import SmallForm
from multiscale.export.cuda.graph import DeviceGraph
from multiscale.export.cuda.patch_graph import sampling_tables
from multiscale.export.cuda.patch_scratch import patch_scratch_bytes
from multiscale.export.cuda.stage_graph import position_table
from multiscale.export.cuda.support import FINAL_NORMS
from multiscale.export.cuda.transformer import rotary_tables, start_token
from multiscale.model.config import ModelConfig

MAX_LAYERS = 32
"""`MAX_LOCAL_LAYERS` of `native/ops.h`."""


def has_fused_graph(config: ModelConfig) -> bool:
    """Whether LocalPatch says what the local stage does."""
    block = config.blocks[-1]
    return block.block_type == "transformer" and block.pos_emb_type != "rope" and config.num_layers[-1] <= MAX_LAYERS


def scratch_bytes(config: ModelConfig) -> tuple[int, int]:
    """Of a call, and beside it of each of its rows."""
    width = config.hidden_dims[-1]
    hidden = width * config.blocks[-1].ff_multiplier
    return patch_scratch_bytes(width, hidden, config.num_layers[-1], config.num_tokens, config.seq_lens[-1])


def emit_fused_graph(g: DeviceGraph, config: ModelConfig, constants: dict[str, np.ndarray]) -> str:
    """Returns the last byte of each row."""
    stage, length = config.num_stages - 1, config.seq_lens[-1]
    c = BlockContext(
        form=SmallForm(g),
        block=config.blocks[stage],
        stage=stage,
        num_layers=config.num_layers[stage],
        capacity=length,
        constants=constants,
        is_local=True,
    )
    weights = g.file.weights

    def vectors() -> np.ndarray:
        return np.stack([_layer_vectors(c, weights, layer) for layer in range(c.num_layers)])

    def starts() -> np.ndarray:
        return np.stack([[start_token(c, layer, kind) for kind in ("key", "value")] for layer in range(c.num_layers)])

    matrices = []
    for layer in range(c.num_layers):
        prefix = c.prefix(layer)
        names = (f"{prefix}0.to_q.weight+{prefix}0.to_kv.weight", "0.to_out.weight", "1.1.weight", "1.4.weight")
        matrices += [g.matrix(name if "+" in name else prefix + name) for name in names]
    inputs = [
        g.input("first", "int32", ["B"]),
        g.input("slot", "int32", ["B"]),
        g.matrix("token_embs_rev.0.embedding.weight"),
        g.input("contexts", g.work.dtype, ["C", length * config.hidden_dims[stage]]),
        position_table(g, config, stage),
        g.derived(f"stage{stage}.fused.vectors", vectors),
        g.derived(f"stage{stage}.fused.starts", starts, g.work),
        *rotary_tables(c),
        g.vector(f"stage_models.{stage}.{FINAL_NORMS['transformer'][0]}"),
        g.vector("to_logits.weight"),
        g.vector("to_logits.bias"),
        *sampling_tables(g, config),
        g.input("scratch", "uint8", ["Z"]),
        *matrices,
    ]
    return g.op("LocalPatch", inputs)


def _layer_vectors(c: BlockContext, weights: dict[str, np.ndarray], layer: int) -> np.ndarray:
    """float32 (5·D + F,): gains, rows before the first byte, biases, in LocalPatch's order."""
    prefix = c.prefix(layer)
    parts = [
        weights[prefix + "0.norm.g"],
        c.after_start(layer, "shift_attn")[0],
        weights[prefix + "1.0.g"],
        c.after_start(layer, "shift_ff")[0],
        weights[prefix + "1.4.bias"],
        weights[prefix + "1.1.bias"],
    ]
    return np.concatenate([part.reshape(-1) for part in parts])
