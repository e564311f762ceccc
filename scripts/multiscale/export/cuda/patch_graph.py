"""The local stage: a whole patch unrolled, every byte chosen inside the graph from the logits of the one before.

Letters: B rows, P bytes per patch, V ids, S slots, C rows of contexts.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import LargeForm, Residual, SmallForm, StepAt
from multiscale.export.cuda.graph import DeviceGraph
from multiscale.export.cuda.stage_graph import position_table, uses_rope
from multiscale.export.cuda.support import EMITTERS, FINAL_NORMS
from multiscale.model.config import ModelConfig

PatchForm = Literal["small", "large"]
"""Up to 8 rows, and any number."""
ROW_WORDS = 32
"""int32 words of a `PatchRow`."""


def emit_patch_graph(g: DeviceGraph, config: ModelConfig, constants: dict[str, np.ndarray], kind: PatchForm) -> str:
    """Returns the last byte of each row."""
    stage, length = config.num_stages - 1, config.seq_lens[-1]
    block = config.blocks[stage]
    form = SmallForm(g) if kind == "small" else LargeForm(g)
    tables = sampling_tables(g, config)
    slot = g.input("slot", "int32", ["B"])
    contexts = g.input("contexts", g.work.dtype, ["C", length * config.hidden_dims[stage]])
    table = g.matrix("token_embs_rev.0.embedding.weight")
    context = BlockContext(
        form=form,
        block=block,
        stage=stage,
        num_layers=config.num_layers[stage],
        capacity=length,
        constants=constants,
        is_local=True,
    )
    gain, norm = FINAL_NORMS[block.block_type]
    last = g.input("first", "int32", ["B"])
    for position in range(length):
        inputs = [last, slot, table, contexts, position_table(g, config, stage)]
        x = g.op("LocalInput", inputs, position=position, rope=uses_rope(config, stage))
        r = EMITTERS[block.block_type](context, Residual(x), _state_rows(g, block.block_type, position))
        logits = form.head(r, f"stage_models.{stage}.{gain}", norm, "to_logits.weight", "to_logits.bias")
        last = g.untyped("Sample", [logits, *tables], step=position)
    return last


def sampling_tables(g: DeviceGraph, config: ModelConfig) -> list[str]:
    """What the choice of a byte reads and writes, beside the logits."""
    length, vocab = config.seq_lens[-1], config.num_tokens
    return [
        g.input("rows", "int32", ["B", ROW_WORDS]),
        g.input("forced", "int32", ["B", length]),
        g.input("bias", "float64", ["S", vocab]),
        g.input("counts", "int32", ["S", vocab]),
        g.input("id_flags", "uint8", ["S", vocab]),
        g.input("cursor", "int32", ["B"]),
        g.input("ids_out", "int32", ["B", length]),
        g.input("logits_out", "float32", ["B", length, vocab]),
    ]


def _state_rows(g: DeviceGraph, block_type: str, position: int) -> StepAt:
    """Where a recurrent block's rows stand: every patch starts anew, so it is enough to tell its first byte from the others."""
    if block_type == "transformer":
        return StepAt("", "")
    begun = min(position, 1)
    return StepAt(g.input("row_index", "int32", ["B"]), g.input(f"position_{begun}", "int32", ["B"]))
