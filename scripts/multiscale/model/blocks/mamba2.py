"""Mamba-2 stage, parameter for parameter that of `mamba_ssm` (one B/C group, gated RMSNorm)."""

from __future__ import annotations

import math
import os
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from multiscale.model.blocks.ssd import ssd_chunked
from multiscale.model.registry import BlockConfig, register_block
from multiscale.model.widen import widen

try:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
except ImportError:
    mamba_chunk_scan_combined = None


def _use_mamba_ssm(x: Tensor) -> bool:
    """mamba-ssm's Triton kernels where they import; MULTISCALE_SSD=torch keeps the PyTorch path."""
    return mamba_chunk_scan_combined is not None and x.is_cuda and os.environ.get("MULTISCALE_SSD") != "torch"


@register_block("mamba2")
class Mamba2Block(BlockConfig):
    """Fields are the reference's `MambaBlock`."""

    block_type: Literal["mamba2"] = "mamba2"
    d_state: int = Field(ge=1)
    d_conv: int = Field(ge=2)
    expand: int = Field(ge=1)
    headdim: int = Field(ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, model_dim: int, num_layers: int) -> nn.Module:
        if (self.expand * model_dim) % self.headdim:
            raise ValueError(
                f"block.headdim: {self.headdim} does not divide expand·hidden_dim {self.expand * model_dim}"
            )
        return Mamba2Stage(self, model_dim, num_layers)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + 1e-5) · weight, in float32 or wider."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(widen(x), (x.shape[-1],), widen(self.weight), eps=1e-5).type_as(x)


class GatedRMSNorm(RMSNorm):
    """RMSNorm(y · silu(z)) · weight."""

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        gated = widen(y) * F.silu(widen(z))
        return F.rms_norm(gated, (gated.shape[-1],), widen(self.weight), eps=1e-5).type_as(z)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution over time: x (B, T, C), weight (C, 1, k) → (B, T, C).

    A sum of shifted products: a compiler fuses it, and no layout change is needed.
    """
    taps = weight.shape[-1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return sum((padded[:, k : k + x.shape[1]] * weight[:, 0, k] for k in range(taps)), bias)


class Mamba2Mixer(nn.Module):
    def __init__(self, config: Mamba2Block, dim: int, num_layers: int):
        super().__init__()
        self.inner, self.state, self.head_dim = config.expand * dim, config.d_state, config.headdim
        self.heads = self.inner // config.headdim
        channels = self.inner + 2 * config.d_state
        self.in_proj = nn.Linear(dim, self.inner + channels + self.heads, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, config.d_conv, groups=channels, padding=config.d_conv - 1)
        self.dt_bias = nn.Parameter(self._initial_dt_bias())
        self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, dim, bias=False)
        with torch.no_grad():  # as GPT-2 and mamba_ssm: the residual stream's variance must not grow with depth
            self.out_proj.weight /= math.sqrt(num_layers)

    def _initial_dt_bias(self, low: float = 1e-3, high: float = 0.1) -> Tensor:
        """Inverse softplus of log-uniform step sizes."""
        dt = torch.exp(torch.rand(self.heads) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=1e-4)
        return dt + torch.log(-torch.expm1(-dt))

    def forward(self, u: Tensor) -> Tensor:
        batch, length, _ = u.shape
        z, xbc, dt = self.in_proj(u).split([self.inner, self.inner + 2 * self.state, self.heads], -1)
        xbc = F.silu(causal_conv(xbc, self.conv1d.weight, self.conv1d.bias))
        x, b, c = xbc.split([self.inner, self.state, self.state], -1)
        x = x.view(batch, length, self.heads, self.head_dim)
        a = -torch.exp(widen(self.A_log))
        if _use_mamba_ssm(u):
            y = mamba_chunk_scan_combined(
                x, dt, a, b[:, :, None], c[:, :, None], 128, D=self.D, dt_bias=self.dt_bias, dt_softplus=True
            )
        else:
            with torch.autocast(u.device.type, enabled=False):
                dt = F.softplus(dt.to(self.dt_bias.dtype) + self.dt_bias)
                y = ssd_chunked(x, dt, a, b, c)
                y = y + self.D[:, None] * x
        return self.out_proj(self.norm(y.reshape(batch, length, self.inner), z))


class Mamba2Layer(nn.Module):
    """Pre-norm residual layer."""

    def __init__(self, config: Mamba2Block, dim: int, num_layers: int, dropout: float):
        super().__init__()
        self.norm = RMSNorm(dim)
        self.mixer = Mamba2Mixer(config, dim, num_layers)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return x + F.dropout(self.mixer(self.norm(x)), self.dropout, self.training)


class Mamba2Stage(nn.Module):
    """Residual layers and a final norm. `dropout` acts on the last layer's output only, as in the reference."""

    def __init__(self, config: Mamba2Block, dim: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(
            Mamba2Layer(config, dim, num_layers, config.dropout if j == num_layers - 1 else 0.0)
            for j in range(num_layers)
        )
        self.norm_f = RMSNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm_f(x)
