"""Steps of a Mamba-2 stage for MambaStep: random stages of the published width, float64's answer, the other operators' chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from multiscale.cuda_check.library import Library

WIDTH, HEADS, HEAD, TAPS = 1024, 32, 64, 4
INNER = HEADS * HEAD
SCRATCH_BYTES = 1 << 20
EPSILON_NORM = 1


@dataclass
class MambaStage:
    """`arguments`: what a step reads of the model."""

    num_layers: int
    d_state: int
    arguments: dict[str, Any]

    @property
    def channels(self) -> int:
        return INNER + 2 * self.d_state

    @classmethod
    def random(cls, seed: int, device: str, num_layers: int = 25, d_state: int = 128) -> MambaStage:
        g = torch.Generator(device).manual_seed(seed)
        channels = INNER + 2 * d_state
        columns = INNER + channels + HEADS

        def draw(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
            return torch.randn(shape, generator=g, device=device) * scale + mean

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(num_layers, HEADS, generator=g, device=device) * (high - low) + low

        dt = 10 ** uniform(-3, -1)
        vectors = [
            draw(num_layers, WIDTH, scale=0.1, mean=1.0),
            draw(num_layers, channels * TAPS, scale=0.4),
            draw(num_layers, channels, scale=0.1),
            dt + torch.log(-torch.expm1(-dt)),
            -uniform(1, 16),
            draw(num_layers, HEADS, scale=0.1, mean=1.0),
            draw(num_layers, INNER, scale=0.1, mean=1.0),
        ]
        a: dict[str, Any] = {"D": WIDTH, "W": columns, "H": HEADS, "P": HEAD, "N": d_state, "C": channels, "taps": TAPS}
        a |= {"L": num_layers, "vectors": torch.cat(vectors, 1).contiguous()}
        kinds = {"in_proj": (columns, WIDTH, 1.0), "out_proj": (WIDTH, INNER, num_layers**-0.5)}
        for name, (rows, width, gain) in kinds.items():
            a[name] = [(draw(rows, width) * (gain * width**-0.5)).half() for _ in range(num_layers)]
        a["conv_initial"] = [draw(TAPS - 1, channels) for _ in range(num_layers)]
        a["ssm_initial"] = [draw(HEADS, d_state, HEAD, scale=0.3) for _ in range(num_layers)]
        return cls(num_layers, d_state, a)

    def to(self, device: str) -> MambaStage:
        def moved(value: Any) -> Any:
            if isinstance(value, list):
                return [item.to(device) for item in value]
            return value.to(device) if isinstance(value, Tensor) else value

        arguments = {name: moved(value) for name, value in self.arguments.items()}
        return MambaStage(self.num_layers, self.d_state, arguments)

    def parts(self, layer: int) -> list[Tensor]:
        """Norm gain, convolution [C, taps], its bias, dt_bias, a, d, gated norm's gain."""
        sizes = [WIDTH, TAPS * self.channels, self.channels, HEADS, HEADS, HEADS, INNER]
        parts = list(self.arguments["vectors"][layer].split(sizes))
        parts[1] = parts[1].view(self.channels, TAPS)
        return parts


@dataclass
class States:
    """Of all layers and slots. Fresh ones are NaN: whoever reads them at position 0 shows."""

    conv: list[Tensor]  # [S, taps − 1, C] each
    ssm: list[Tensor]  # [S, H, N, P] each

    @classmethod
    def fresh(cls, stage: MambaStage, slots: int, device: str) -> States:
        nan = float("nan")
        layers = range(stage.num_layers)
        conv = [torch.full((slots, TAPS - 1, stage.channels), nan, device=device) for _ in layers]
        ssm = [torch.full((slots, HEADS, stage.d_state, HEAD), nan, device=device) for _ in layers]
        return cls(conv, ssm)

    def clone(self) -> States:
        return States([t.clone() for t in self.conv], [t.clone() for t in self.ssm])

    def copy_(self, other: States) -> None:
        for mine, its in zip(self.conv + self.ssm, other.conv + other.ssm, strict=True):
            mine.copy_(its)

    def equals(self, other: States, slots: Tensor) -> bool:
        pairs = zip(self.conv + self.ssm, other.conv + other.ssm, strict=True)
        return all(torch.equal(mine[slots], its[slots]) for mine, its in pairs)


@dataclass
class StepRows:
    """The rows of one step."""

    x: Tensor  # [B, D]
    slot: Tensor  # int32 [B]
    position: Tensor  # int32 [B]

    @classmethod
    def random(cls, seed: int, device: str, rows: int, slots: int, position: int) -> StepRows:
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, WIDTH, generator=g)
        slot = torch.randperm(slots, generator=torch.Generator().manual_seed(rows))[:rows].to(torch.int32)
        at = torch.full((rows,), position, dtype=torch.int32)
        return cls(x.to(device), slot.to(device), at.to(device))

    def first_rows(self, count: int) -> StepRows:
        return StepRows(self.x[:count].contiguous(), self.slot[:count].contiguous(), self.position[:count].contiguous())


def prepare(library: Library, stage: MambaStage, rows: StepRows, states: States, scratch: Tensor, y: Tensor) -> Any:
    arguments = stage.arguments | {"B": len(rows.x), "x": rows.x, "slot": rows.slot, "position": rows.position, "y": y}
    arguments |= {"conv_state": states.conv, "ssm_state": states.ssm}
    arguments |= {"scratch": scratch, "scratch_bytes": scratch.nbytes}
    return library.prepare("MambaStep", torch.float16, arguments)


def run_chain(library: Library, stage: MambaStage, rows: StepRows, states: States, stream: int) -> Tensor:
    """The same step by the operators that there were before."""
    a, B = stage.arguments, len(rows.x)
    device = rows.x.device
    x = rows.x
    at = {"M": B, "R": B, "slot": rows.slot, "position": rows.position}
    for layer in range(stage.num_layers):
        gain, kernel, bias, dt_bias, rate, skip, gated_gain = stage.parts(layer)
        u = torch.empty(B, a["W"], dtype=torch.float16, device=device)
        xbc, y = torch.empty(B, a["C"], device=device), torch.empty(B, INNER, device=device)
        h, after = torch.empty(B, INNER, dtype=torch.float16, device=device), torch.empty_like(x)
        calls: list[tuple[str, dict[str, Any]]] = [
            ("NormLinear", {"M": B, "K": WIDTH, "N": a["W"], "norm": EPSILON_NORM, "x": x, "gain": gain,
                            "w": a["in_proj"][layer], "y": u}),
            ("CausalConv", {**at, "W": a["W"], "channels": a["C"], "taps": TAPS, "offset": INNER, "u": u, "w": kernel,
                            "b": bias, "state": states.conv[layer], "initial": a["conv_initial"][layer], "y": xbc}),
            ("SsmScan", {**at, "W": a["W"], "H": HEADS, "P": HEAD, "N": stage.d_state, "dt_offset": INNER + a["C"],
                         "xbc": xbc, "u": u, "dt_bias": dt_bias, "a": rate, "d": skip, "state": states.ssm[layer],
                         "initial": a["ssm_initial"][layer], "y": y}),
            ("GatedNorm", {"M": B, "W": a["W"], "D": INNER, "y": y, "u": u, "gain": gated_gain, "h": h}),
            ("LinearAdd", {"M": B, "K": INNER, "N": WIDTH, "x": h, "w": a["out_proj"][layer], "residual": x, "y": after}),
        ]  # fmt: skip
        for name, arguments in calls:
            library.run(name, library.prepare(name, torch.float16, arguments), stream)
        library.raise_errors()
        x = after
    return x


class ExactSteps:
    """The stage in float64, step by step, for rows that keep their places."""

    def __init__(self, stage: MambaStage, rows: int):
        self._stage = stage
        self._matrices = [
            (stage.arguments["in_proj"][k].double(), stage.arguments["out_proj"][k].double())
            for k in range(stage.num_layers)
        ]
        initial = stage.arguments["conv_initial"], stage.arguments["ssm_initial"]
        self.conv = [t.double().expand(rows, -1, -1) for t in initial[0]]
        self.ssm = [t.double().expand(rows, -1, -1, -1) for t in initial[1]]

    def step(self, x: Tensor) -> Tensor:
        stage, x = self._stage, x.double()
        for layer in range(stage.num_layers):
            gain, kernel, bias, dt_bias, rate, skip, gated_gain = (part.double() for part in stage.parts(layer))
            w_in, w_out = self._matrices[layer]
            u = (_rms(x) * gain) @ w_in.T
            z, xbc, dt = u.split([INNER, stage.channels, HEADS], 1)
            window = torch.cat([self.conv[layer], xbc[:, None]], 1)
            self.conv[layer] = window[:, 1:]
            xbc = F.silu((window * kernel.T).sum(1) + bias)
            inner, b, c = xbc.split([INNER, stage.d_state, stage.d_state], 1)
            inner = inner.unflatten(1, (HEADS, HEAD))
            dt = F.softplus(dt + dt_bias)
            decay = torch.exp(dt * rate)[:, :, None, None]
            entered = (dt[:, :, None] * inner)[:, :, None] * b[:, None, :, None]
            self.ssm[layer] = decay * self.ssm[layer] + entered
            y = (self.ssm[layer] * c[:, None, :, None]).sum(2) + skip[:, None] * inner
            x = x + (_rms(y.flatten(1) * F.silu(z)) * gated_gain) @ w_out.T
        return x


def _rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
