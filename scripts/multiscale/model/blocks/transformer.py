"""Transformer stage: pre-norm decoder with token shift before attention and feed-forward (as in MEGABYTE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from multiscale.model.blocks import short_attention
from multiscale.model.registry import BlockConfig, register_block
from multiscale.model.widen import widen

if TYPE_CHECKING:
    from multiscale.model.packed import Packing


@register_block("transformer")
class TransformerBlock(BlockConfig):
    """Fields are the reference's; `use_flash_attn` is accepted and has no effect here (PyTorch picks the kernel)."""

    block_type: Literal["transformer"] = "transformer"
    attn_head_dims: int = Field(ge=1)
    attn_num_heads: int = Field(ge=1)
    attn_use_rot_embs: bool
    attn_dropout: float = Field(0.0, ge=0, lt=1)
    ff_multiplier: int = Field(2, ge=1)
    ff_dropout: float = Field(0.0, ge=0, lt=1)
    use_flash_attn: bool = False

    def build(self, model_dim: int, num_layers: int) -> nn.Module:
        if self.attn_use_rot_embs and self.attn_head_dims % 2:
            raise ValueError(f"block.attn_head_dims: {self.attn_head_dims} must be even for rotary embeddings")
        if model_dim % 2:
            raise ValueError(f"hidden_dims: {model_dim} must be even for the token shift")
        return TransformerStage(self, model_dim, num_layers)


class RMSNorm(nn.Module):
    """x / max(‖x‖·d^-½, 1e-8) · g, in float32 or wider."""

    def __init__(self, dim: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        # Equal to the reference's clamped norm down to ‖x‖ ~ 1e-8, where both give (almost) zero.
        return F.rms_norm(widen(x), (x.shape[-1],), widen(self.g), eps=1e-16).type_as(x)


class RotaryEmbedding(nn.Module):
    """Angles of the rotate-half rotary embedding; `inv_freq` is part of the published state dict."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (10_000 ** (torch.arange(0, head_dim, 2).float() / head_dim)))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin tables (..., head_dim) for positions (...), the start token being position 0."""
        angles = positions[..., None].float() * self.inv_freq.float()
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, T, d) rotated by position, in float32 or wider."""
    first, second = widen(x).chunk(2, -1)
    return (widen(x) * cos + torch.cat((-second, first), -1) * sin).type_as(x)


def token_shift(x: Tensor, packing: Packing | None = None) -> Tensor:
    """Takes the second half of the channels from the previous position (zero at position 0)."""
    kept, moved = x.chunk(2, -1)
    return torch.cat((kept, F.pad(moved[:, :-1], (0, 0, 1, 0)) if packing is None else packing.shift(moved)), -1)


class Attention(nn.Module):
    """Causal multi-head self-attention without biases."""

    def __init__(self, config: TransformerBlock, dim: int):
        super().__init__()
        self.heads, self.dropout = config.attn_num_heads, config.attn_dropout
        inner = config.attn_num_heads * config.attn_head_dims
        self.norm = RMSNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, packing: Packing | None) -> Tensor:
        batch, length, _ = x.shape
        x = self.norm(x)
        q = self.to_q(x).view(batch, length, self.heads, -1).transpose(1, 2)
        k, v = self.to_kv(x).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        dropout = self.dropout if self.training else 0.0
        if packing is not None:
            out = packing.attend(q, k, v)
        elif dropout == 0 and short_attention.fits(q):
            out = short_attention.attend(q, k, v)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return self.to_out(out.transpose(1, 2).reshape(batch, length, -1))


def feed_forward(config: TransformerBlock, dim: int) -> nn.Sequential:
    """Indices 0, 1 and 4 are named in the published state dict."""
    return nn.Sequential(
        RMSNorm(dim),
        nn.Linear(dim, dim * config.ff_multiplier),
        nn.GELU(),
        nn.Dropout(config.ff_dropout),
        nn.Linear(dim * config.ff_multiplier, dim),
    )


class TransformerLayer(nn.ModuleList):
    """Attention and feed-forward, each with token shift and residual. A list, so that the published names hold."""

    def __init__(self, config: TransformerBlock, dim: int):
        super().__init__([Attention(config, dim), feed_forward(config, dim)])

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, packing: Packing | None = None) -> Tensor:
        attention, ff = self
        x = attention(token_shift(x, packing), rotary, packing) + x
        return ff(token_shift(x, packing)) + x


class TransformerStage(nn.Module):
    def __init__(self, config: TransformerBlock, dim: int, num_layers: int):
        super().__init__()
        self.rotary_emb = RotaryEmbedding(config.attn_head_dims) if config.attn_use_rot_embs else None
        self.layers = nn.ModuleList(TransformerLayer(config, dim) for _ in range(num_layers))
        self.norm = RMSNorm(dim)

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """(B, T, D) → (B, T, D): one sequence per row, or as `packing` says."""
        rotary = None
        if self.rotary_emb is not None:
            rotary = self.rotary_emb(torch.arange(x.shape[1], device=x.device) if packing is None else packing.position)
            if packing is not None:
                rotary = rotary[0][:, None], rotary[1][:, None]
        for layer in self.layers:
            x = layer(x, rotary, packing)
        return self.norm(x)
