"""A non-local stage: patches of bytes in, context vectors for the children out.

Letters: M = R·T rows, R sequences of T steps each; S slots; C rows of contexts; K rows whose output is wanted.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import LargeForm, Residual, SmallForm, StepAt
from multiscale.export.cuda.graph import DeviceGraph
from multiscale.export.cuda.mamba_step import emit_mamba_step
from multiscale.export.cuda.support import EMITTERS, FINAL_NORMS
from multiscale.model.config import ModelConfig

StageForm = Literal["step", "chunk", "fused"]
"""`step`: one step each of up to 8 sequences, all outputs wanted. `chunk`: any number of rows, the outputs of `output_row`.
`fused`: as `step`, all layers one operator."""


def emit_stage_graph(
    g: DeviceGraph, config: ModelConfig, constants: dict[str, np.ndarray], stage: int, kind: StageForm
) -> str:
    """Returns the value that says that everything is written."""
    form = LargeForm(g) if kind == "chunk" else SmallForm(g)
    block = config.blocks[stage]
    at = StepAt(g.input("slot", "int32", ["R"]), g.input("position", "int32", ["R"]))
    context = BlockContext(
        form=form,
        block=block,
        stage=stage,
        num_layers=config.num_layers[stage],
        capacity=config.seq_lens[stage],
        constants=constants,
        is_local=False,
    )
    emit_layers = emit_mamba_step if kind == "fused" else EMITTERS[block.block_type]
    r = emit_layers(context, Residual(_embed(g, form, config, stage, at)), at)
    if kind == "chunk":
        rows = g.input("output_row", "int64", ["K"])
        r = Residual(g.gather(r.x, rows), g.gather(r.delta, rows), r.bias)
    gain, norm = FINAL_NORMS[block.block_type]
    projection = f"to_next_stage_proj.{stage}.1."
    weight, bias = projection + "weight", projection + "bias"
    _, contexts = form.norm_linear(r, f"stage_models.{stage}.{gain}", norm, weight, bias=bias)
    width = config.seq_lens[stage + 1] * config.hidden_dims[stage + 1]
    child_contexts = g.input("child_contexts", g.work.dtype, ["D", width])
    rows = g.input("context_row", "int32", ["K" if kind == "chunk" else "M"])
    return g.op("StoreRows", [contexts, child_contexts, rows])


def _embed(g: DeviceGraph, form: SmallForm | LargeForm, config: ModelConfig, stage: int, at: StepAt) -> str:
    """float32 (M, D)"""
    size = config.bytes_per_step(stage)
    prefix = f"token_embs_rev.{config.num_stages - 1 - stage}."
    ids = g.input("ids", "int32", ["M", size])
    post = [g.vector(f"{prefix}_post.{name}") for name in ("1.weight", "1.bias")]
    embedded = g.op("EmbedPatch", [ids, g.matrix(prefix + "embedding.weight"), *post])
    e = form.linear(embedded, f"{prefix}_post.2.weight")
    contexts = ""
    if stage > 0:
        width = config.seq_lens[stage] * config.hidden_dims[stage]
        contexts = g.input("contexts", g.work.dtype, ["C", width])
    post = [g.vector(f"{prefix}_post.{name}") for name in ("2.bias", "3.weight", "3.bias")]
    inputs = [e, *post, at.position, at.slot, position_table(g, config, stage), contexts]
    return g.op("StageInput", inputs, rope=uses_rope(config, stage))


def position_table(g: DeviceGraph, config: ModelConfig, stage: int) -> str:
    return g.vector(f"pos_embs.{stage}.weight") if config.blocks[stage].pos_emb_type == "fixed" else ""


def uses_rope(config: ModelConfig, stage: int) -> int:
    return int(config.blocks[stage].pos_emb_type == "rope")
