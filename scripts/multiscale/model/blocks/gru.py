"""GRU stage: the worked example of a custom block (see `multiscale.model.registry`).

A block needs three things: a config class with its fields, a `build` that returns a causal module (B, T, D) → (B, T, D),
and the decorator that names it. To serve it, `multiscale/export/emitters/gru.py` writes the same computation as ONNX nodes.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from multiscale.model.registry import BlockConfig, register_block


@register_block("gru")
class GRUBlock(BlockConfig):
    """Pre-norm residual GRU layers."""

    block_type: Literal["gru"] = "gru"

    def build(self, model_dim: int, num_layers: int) -> nn.Module:
        return GRUStage(model_dim, num_layers)


class GRULayer(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gru(self.norm(x))[0]


class GRUStage(nn.Module):
    def __init__(self, dim: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(GRULayer(dim) for _ in range(num_layers))
        self.norm_f = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm_f(x)
