"""What the blocks' emitters share: where a block stands in the model, and how a stage looks after its start token."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from multiscale.export.cuda.forms import Form
from multiscale.model.registry import BlockConfig


@dataclass
class BlockContext:
    """One stage's block within one graph."""

    form: Form
    block: BlockConfig
    stage: int
    num_layers: int
    capacity: int
    """Steps of the stage, not counting the start token."""
    constants: dict[str, np.ndarray]
    """`after_start.compute_constants`, in float32."""
    is_local: bool
    """A whole patch is unrolled: the block is emitted once for each of its bytes."""
    memory: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    """Unrolled: values of the bytes before, by layer and kind."""

    def prefix(self, layer: int) -> str:
        return f"stage_models.{self.stage}.layers.{layer}."

    def after_start(self, layer: int, kind: str) -> np.ndarray:
        return self.constants[self.after_start_name(layer, kind)]

    def after_start_name(self, layer: int, kind: str) -> str:
        return f"stage{self.stage}.after_start.{layer}.{kind}"

    def remember(self, layer: int, kind: str, value: str) -> list[str]:
        """Adds a byte's value; returns all so far."""
        values = self.memory.setdefault((layer, kind), [])
        values.append(value)
        return values
