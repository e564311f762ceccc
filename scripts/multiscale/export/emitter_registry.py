"""Registry of ONNX emitters: how a block kind is written as nodes.

An emitter receives the stage's inputs (B, T, D) and writes the block's layers, declaring each state tensor with
`builder.state`. It must be causal and advance its states by T steps. To hold the server's promises its result for a row must
not depend on the other rows, nor on how steps are divided into calls; `test/parity/exactness.test.ts` checks that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from multiscale.export.graph_builder import GraphBuilder
from multiscale.model.registry import BlockConfig


@dataclass(frozen=True)
class StageInputs:
    """What an emitter may use."""

    x: str
    """(B, T, D)"""
    position: str
    """int32 (B,): index of the first of the T steps in the stage's sequence, not counting the start token (-1 = start)."""
    prefix: str
    """State-dict prefix of the block, e.g. `stage_models.0.`"""
    dim: int
    num_layers: int
    capacity: int
    """Steps that the stage may be asked to hold, not counting the start token."""
    one_step: bool
    """True when T is always 1 and every row may be batched (the local stage of a hierarchy)."""


Emitter = Callable[[GraphBuilder, BlockConfig, StageInputs], str]
_EMITTERS: dict[str, Emitter] = {}


def register_emitter(block_type: str) -> Callable[[Emitter], Emitter]:
    def register(emitter: Emitter) -> Emitter:
        _EMITTERS[block_type] = emitter
        return emitter

    return register


def emit_block(builder: GraphBuilder, block: BlockConfig, inputs: StageInputs) -> str:
    """Writes the block; returns its outputs (B, T, D)."""
    if block.block_type not in _EMITTERS:
        known = ", ".join(sorted(_EMITTERS))
        raise ValueError(f"block_type {block.block_type!r} has no ONNX emitter (there are {known})")
    return _EMITTERS[block.block_type](builder, block, inputs)
