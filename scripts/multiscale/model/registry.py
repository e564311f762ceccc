"""Registry of stage blocks: the kinds of sequence model that a stage can be made of.

To add a block, subclass `BlockConfig` with the block's own fields, implement `build`, and decorate the class with
`register_block("my_block")`. A YAML config then selects it by `block_type: my_block`. `blocks/gru.py` is the worked
example. To serve the block as well, register an ONNX emitter under the same name (see `multiscale/export/emitters`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn


class BlockConfig(BaseModel):
    """Configuration of one stage's block. Subclasses add fields and implement `build`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_type: str
    pos_emb_type: Literal["fixed", "rope"] | None = None
    """Stage position embedding, added to the stage's tokens before the start token is prepended."""

    def build(self, model_dim: int, num_layers: int) -> nn.Module:
        """Returns a causal module (B, T, model_dim) → (B, T, model_dim)."""
        raise NotImplementedError


Block = TypeVar("Block", bound=type[BlockConfig])
_BLOCKS: dict[str, type[BlockConfig]] = {}


def register_block(block_type: str) -> Callable[[Block], Block]:
    """Class decorator that makes a block selectable by name."""

    def register(block: Block) -> Block:
        if block_type in _BLOCKS:
            raise ValueError(f"block_type {block_type!r} is registered already")
        _BLOCKS[block_type] = block
        return block

    return register


def registered_blocks() -> tuple[str, ...]:
    return tuple(sorted(_BLOCKS))


def parse_block(data: Any) -> BlockConfig:
    """Block from YAML data. Without `block_type` the block is told by its fields, as the reference package does.

    Raises ValueError naming the offending key.
    """
    if isinstance(data, BlockConfig):
        return data
    if not isinstance(data, dict):
        raise ValueError(f"block: expected a mapping, got {type(data).__name__}")
    block_type = data.get("block_type") or _infer_block_type(data)
    if block_type not in _BLOCKS:
        raise ValueError(f"block.block_type: {block_type!r} is not one of {', '.join(registered_blocks())}")
    try:
        return _BLOCKS[block_type].model_validate({**data, "block_type": block_type})
    except ValidationError as error:
        problems = "; ".join(f"block.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(problems) from None


def _infer_block_type(data: dict[str, Any]) -> str:
    if "attn_num_heads" in data:
        return "transformer"
    if "d_state" in data:
        return "mamba2"
    raise ValueError(f"block.block_type: missing; give one of {', '.join(registered_blocks())}")
