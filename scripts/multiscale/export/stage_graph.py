"""One stage as an ONNX graph: embedding, position, parent's context, block, and context for the children or logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto

import multiscale.export.emitters  # noqa: F401  (registers the built-in emitters)
from multiscale.export.emitter_registry import StageInputs, emit_block
from multiscale.export.graph_builder import GraphBuilder, Precision
from multiscale.export.weight_store import WeightStore
from multiscale.model.config import ModelConfig

Form = Literal["step", "chunk", "start"]
"""`step`: the local stage, one byte per row. `chunk`: T steps. `start`: the start token alone, run once at export."""


@dataclass(frozen=True)
class StageGraph:
    model: onnx.ModelProto
    builder: GraphBuilder


def max_steps(config: ModelConfig, stage: int) -> int | None:
    """Steps that the stage can hold in one parent sequence; None when nothing limits it (recurrent stage 0)."""
    block = config.blocks[stage]
    limited = stage > 0 or block.pos_emb_type == "fixed" or block.block_type == "transformer"
    return config.seq_lens[stage] if limited else None


def max_rows(config: ModelConfig, stage: int) -> int | None:
    """1 where the attention kernel takes one row at a time (see the transformer emitter)."""
    batched = stage == config.num_stages - 1 and config.num_stages > 1
    return 1 if config.blocks[stage].block_type == "transformer" and not batched else None


def build_stage_graph(
    config: ModelConfig,
    weights: dict[str, np.ndarray],
    stage: int,
    form: Form,
    store: WeightStore,
    precision: Precision,
) -> StageGraph:
    b = GraphBuilder(weights, store, precision)
    is_local, is_alone = stage == config.num_stages - 1, config.num_stages == 1
    position = b.input("position", "int32", ["B"])
    if form == "start":
        start = weights[f"start_tokens.{stage}"].astype(np.float32)[None, None]
        x = b.node("Add", [b.constant(start), b.input("added_context", "float32", [1, 1, config.hidden_dims[stage]])])
    else:
        x = _embed_byte(b, config, position) if form == "step" else _embed_steps(b, config, stage, position)
        x = _add_parent_context(b, config, stage, form, x)
    inputs = StageInputs(
        x=x,
        position=position,
        prefix=f"stage_models.{stage}.",
        dim=config.hidden_dims[stage],
        num_layers=config.num_layers[stage],
        capacity=config.seq_lens[stage],
        one_step=is_local and not is_alone,
    )
    outputs = emit_block(b, config.blocks[stage], inputs)
    if is_local and form != "chunk":
        _emit_logits(b, config, outputs)
    elif not is_local:
        _emit_context(b, config, stage, outputs, form)
    return StageGraph(b.model(f"stage{stage}_{form}"), b)


def _embed_byte(b: GraphBuilder, config: ModelConfig, position: str) -> str:
    """(B,) → (B, 1, D) for the local stage."""
    ids = b.input("bytes", "int64", ["B"])
    embedded = b.node("Gather", [b.table("token_embs_rev.0.embedding.weight"), ids])
    embedded = b.node("Unsqueeze", [embedded, b.ints(1)])
    positions = b.node("Unsqueeze", [position, b.ints(1)])
    return _add_position(b, config, config.num_stages - 1, embedded, positions)


def _embed_steps(b: GraphBuilder, config: ModelConfig, stage: int, position: str) -> str:
    """(B, T·S) → (B, T, D)."""
    last, size = config.num_stages - 1, config.bytes_per_step(stage)
    ids = b.input("bytes", "int64", ["B", f"T*{size}" if size > 1 else "T"])
    table = b.table(f"token_embs_rev.{last - stage}.embedding.weight")
    if stage == last:
        embedded = b.node("Gather", [table, ids])
    else:
        patches = b.node("Reshape", [ids, b.ints(0, -1, size)])
        flat = b.node("Reshape", [b.node("Gather", [table, patches]), b.ints(0, 0, size * config.hidden_dims[-1])])
        prefix = f"token_embs_rev.{last - stage}._post."
        projected = b.linear(b.layer_norm(flat, prefix + "1."), prefix + "2.weight", b.vector(prefix + "2.bias"))
        embedded = b.layer_norm(projected, prefix + "3.")
    steps = b.node("Squeeze", [b.node("Shape", [embedded], start=1, end=2), b.ints(0)])
    offsets = b.node("Range", [b.constant(np.array(0, np.int64)), steps, b.constant(np.array(1, np.int64))])
    offsets = b.node("Cast", [offsets], to=TensorProto.INT32)
    positions = b.node("Add", [b.node("Unsqueeze", [position, b.ints(1)]), offsets])
    return _add_position(b, config, stage, embedded, positions)


def _add_position(b: GraphBuilder, config: ModelConfig, stage: int, x: str, positions: str) -> str:
    """x (B, T, D), positions int32 (B, T)."""
    kind, dim = config.blocks[stage].pos_emb_type, config.hidden_dims[stage]
    if kind == "fixed":
        return b.node("Add", [x, b.node("Gather", [b.table(f"pos_embs.{stage}.weight"), positions])])
    if kind is None:
        return x
    theta = 1.0 / (10_000 ** (np.arange(0, dim, 2, dtype=np.float32) / dim))
    angles = b.node("Cast", [b.node("Unsqueeze", [positions, b.ints(2)])], to=TensorProto.FLOAT)
    angles = b.node("Mul", [angles, b.constant(theta.astype(np.float32))])
    cos, sin = (b.node("Unsqueeze", [b.elementwise(op, angles, dim // 2), b.ints(3)]) for op in ("Cos", "Sin"))
    pairs = b.node("Reshape", [x, b.ints(0, 0, dim // 2, 2)])
    even, odd = b.nodes("Split", [pairs, b.ints(1, 1)], 2, axis=-1)
    first = b.node("Sub", [b.node("Mul", [even, cos]), b.node("Mul", [odd, sin])])
    second = b.node("Add", [b.node("Mul", [odd, cos]), b.node("Mul", [even, sin])])
    return b.node("Reshape", [b.node("Concat", [first, second], axis=-1), b.ints(0, 0, dim)])


def _add_parent_context(b: GraphBuilder, config: ModelConfig, stage: int, form: Form, x: str) -> str:
    if stage == 0:
        return x
    b.input("parent_context", "float32", ["R", config.hidden_dims[stage]])
    index = b.input("parent_index", "int64", ["B"] if form == "step" else ["B", "T"])
    context = b.node("Gather", ["parent_context", index])
    if form == "step":
        context = b.node("Unsqueeze", [context, b.ints(1)])
    return b.node("Add", [x, context])


def _emit_context(b: GraphBuilder, config: ModelConfig, stage: int, outputs: str, form: Form) -> None:
    size = config.seq_lens[stage + 1] * config.hidden_dims[stage + 1]
    if form != "start":
        outputs = b.node("Gather", [outputs, b.input("output_index", "int64", ["K"])], axis=1)
    prefix = f"to_next_stage_proj.{stage}.1."
    projected = b.linear(outputs, prefix + "weight", b.vector(prefix + "bias"))
    b.output(projected, "context", "float32", ["B", "K", size])


def _emit_logits(b: GraphBuilder, config: ModelConfig, outputs: str) -> None:
    last = b.node("Squeeze", [outputs, b.ints(1)])
    # The distribution is what users compare: its projection is never quantised.
    logits = b.linear(last, "to_logits.weight", b.vector("to_logits.bias"), quantize=False)
    b.output(logits, "logits", "float32", ["B", config.num_tokens])
