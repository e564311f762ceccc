"""Mamba-1 stage (arXiv 2312.00752), parameter for parameter that of `mambapy`; it has no final norm."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from multiscale.model.blocks.mamba2 import RMSNorm, causal_conv
from multiscale.model.registry import BlockConfig, register_block


@register_block("mamba1")
class Mamba1Block(BlockConfig):
    """Fields are the reference's `MambaBlock`; `headdim` and `dropout` belong to Mamba-2 and have no effect here."""

    block_type: Literal["mamba1"] = "mamba1"
    d_state: int = Field(ge=1)
    d_conv: int = Field(ge=2)
    expand: int = Field(ge=1)
    headdim: int = Field(64, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, model_dim: int, num_layers: int) -> nn.Module:
        return Mamba1Stage(self, model_dim, num_layers)


def selective_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = 128) -> Tensor:
    """h_t = exp(dt_t·A)·h_{t-1} + dt_t·B_t·x_t, y_t = C_t·h_t, per channel.

    x, dt (B, T, E); A (E, N) < 0; B, C (B, T, N) → y (B, T, E). A doubling scan inside chunks (log₂ chunk passes),
    sequential over chunks to bound memory at B·chunk·E·N.
    """
    state = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])
    outputs = []
    for first in range(0, x.shape[1], chunk):
        part = slice(first, first + chunk)
        decay = torch.exp(dt[:, part, :, None] * A)  # (B, q, E, N)
        h = (dt[:, part] * x[:, part])[..., None] * B[:, part, None, :]
        h = torch.cat((h[:, :1] + decay[:, :1] * state[:, None], h[:, 1:]), 1)
        step = 1
        while step < h.shape[1]:
            h = torch.cat((h[:, :step], h[:, step:] + decay[:, step:] * h[:, :-step]), 1)
            decay = torch.cat((decay[:, :step], decay[:, step:] * decay[:, :-step]), 1)
            step *= 2
        outputs.append(torch.einsum("bten,btn->bte", h, C[:, part]))
        state = h[:, -1]
    return torch.cat(outputs, 1)


class Mamba1Mixer(nn.Module):
    def __init__(self, config: Mamba1Block, dim: int):
        super().__init__()
        inner, self.state, self.rank = config.expand * dim, config.d_state, math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner, padding=config.d_conv - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, config.d_state + 1).float()).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._initialize_dt(inner)

    def _initialize_dt(self, inner: int, low: float = 1e-3, high: float = 0.1) -> None:
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        dt = torch.exp(torch.rand(inner) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, u: Tensor) -> Tensor:
        x, z = self.in_proj(u).chunk(2, -1)
        x = F.silu(causal_conv(x, self.conv1d.weight, self.conv1d.bias))
        dt, b, c = self.x_proj(x).split([self.rank, self.state, self.state], -1)
        dt = self.dt_proj(dt)
        with torch.autocast(u.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            dt, a = F.softplus(dt.to(wide)), -torch.exp(self.A_log.to(wide))
            y = selective_scan(x.to(wide), dt, a, b.to(wide), c.to(wide)) + self.D * x
        return self.out_proj((y * F.silu(z.to(y.dtype))).type_as(z))


class Mamba1Layer(nn.Module):
    def __init__(self, config: Mamba1Block, dim: int):
        super().__init__()
        self.mixer = Mamba1Mixer(config, dim)
        self.norm = RMSNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x))


class Mamba1Stage(nn.Module):
    def __init__(self, config: Mamba1Block, dim: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Mamba1Layer(config, dim) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
