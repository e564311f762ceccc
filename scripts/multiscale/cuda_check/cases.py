"""Random arguments for every operator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

CLAMP, EPSILON = 0, 1
CONTEXT_ROWS = 5


@dataclass
class Case:
    """`arguments` of one call, on the CPU. `outputs` are written only; `in_place` are read and written."""

    name: str
    title: str
    work: torch.dtype
    arguments: dict[str, Any]
    outputs: tuple[str, ...]
    in_place: tuple[str, ...] = ()
    exact: bool = False
    keep_alive: list[Any] = field(default_factory=list)


class Draw:
    """Random tensors of one case."""

    def __init__(self, seed: int, work: torch.dtype):
        self.generator = torch.Generator().manual_seed(seed)
        self.work = work

    def f32(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def work_type(self, *shape: int, scale: float = 1.0) -> Tensor:
        return self.f32(*shape, scale=scale).to(self.work)

    def ints(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator, dtype=torch.int32)

    def slots(self, rows: int, count: int) -> Tensor:
        return torch.randperm(count, generator=self.generator)[:rows].to(torch.int32)


def all_cases(work: torch.dtype) -> Iterator[Case]:
    seeds = itertools.count()
    for generate in (products, norms, inputs, attention, mamba, stores):
        yield from generate(lambda: Draw(next(seeds), work))


def products(new: Any) -> Iterator[Case]:
    shapes = [(1, 1024, 3072), (2, 1024, 1024), (3, 2048, 1024), (4, 1024, 2048), (5, 1024, 256), (8, 1024, 3072),
              (7, 8192, 1024), (1, 8192, 256), (8, 64, 40), (3, 33, 20), (1, 4104, 1030), (6, 2056, 2050)]  # fmt: skip
    for i, (M, K, N) in enumerate(shapes):
        for name in ("NormLinear", "Linear", "LinearAdd"):
            d = new()
            a: dict[str, Any] = {"M": M, "K": K, "N": N, "w": d.work_type(N, K, scale=K**-0.5)}
            a["bias"] = d.f32(N) if i % 3 else None
            work_y = name != "LinearAdd"
            a["y"] = torch.empty(M, N, dtype=d.work if work_y else torch.float32)
            if name == "NormLinear":
                prev_rows = (M, 1, 0)[i % 3]
                a |= {"x": d.f32(M, K, scale=3.0), "gain": d.f32(K), "norm": i % 2, "gelu": i % 4 == 1}
                a |= {"prev": d.f32(prev_rows, K) if prev_rows else None, "prev_rows": prev_rows}
            else:
                a["x"] = d.work_type(M, K)
                a |= {"residual": d.f32(M, N)} if name == "LinearAdd" else {"gelu": i % 2 == 1}
            yield Case(name, f"M {M} K {K} N {N}", d.work, a, ("y",))


def norms(new: Any) -> Iterator[Case]:
    for i, (M, K) in enumerate([(1, 1024), (64, 1024), (7, 2048), (5, 36), (3, 30), (2, 6000)]):
        d = new()
        prev_rows = (M, 1, 0)[i % 3]
        a = {"M": M, "K": K, "norm": i % 2, "x": d.f32(M, K), "gain": d.f32(K), "prev_rows": prev_rows}
        a |= {"delta": d.work_type(M, K) if i != 1 else None, "bias": d.f32(K) if i % 2 == 0 else None}
        a |= {"prev": d.f32(prev_rows, K) if prev_rows else None, "sum": torch.empty(M, K)}
        a["h"] = torch.empty(M, K, dtype=d.work)
        yield Case("AddNorm", f"M {M} K {K}", d.work, a, ("sum", "h"))
    for R, T, K in [(3, 1, 1024), (2, 5, 1024), (1, 3, 30), (2, 1, 6000)]:
        d = new()
        M = R * T
        a = {"M": M, "R": R, "K": K, "x": d.f32(M, K), "gain": d.f32(K), "state": d.f32(CONTEXT_ROWS, K)}
        a |= {
            "initial": d.f32(K),
            "slot": d.slots(R, CONTEXT_ROWS),
            "position": d.ints(2, R),
            "delta": d.work_type(M, K),
        }
        a |= {"bias": d.f32(K), "sum": torch.empty(M, K), "h": torch.empty(M, K, dtype=d.work)}
        yield Case("ShiftNorm", f"R {R} T {T} K {K}", d.work, a, ("sum", "h"), ("state",))
    for M, N in [(64, 2048), (3, 2048), (5, 33)]:
        d = new()
        a = {"M": M, "N": N, "x": d.work_type(M, N, scale=2.0), "bias": d.f32(N), "y": torch.empty(M, N, dtype=d.work)}
        yield Case("BiasGelu", f"M {M} N {N}", d.work, a, ("y",))
    for M, W, D in [(4, 4384, 2048), (1, 70, 20), (3, 4387, 2048), (2, 9000, 4000)]:
        d = new()
        a = {"M": M, "W": W, "D": D, "y": d.f32(M, D), "u": d.work_type(M, W), "gain": d.f32(D)}
        a["h"] = torch.empty(M, D, dtype=d.work)
        yield Case("GatedNorm", f"M {M} W {W} D {D}", d.work, a, ("h",))


def inputs(new: Any) -> Iterator[Case]:
    for M, S, D, V in [(3, 8, 1024, 256), (1, 128, 64, 257), (2, 3, 7, 256)]:
        d = new()
        a = {"M": M, "S": S, "D": D, "V": V, "ids": d.ints(V, M, S), "table": d.work_type(V, D), "gain": d.f32(S * D)}
        a |= {"beta": d.f32(S * D), "y": torch.empty(M, S * D, dtype=d.work)}
        yield Case("EmbedPatch", f"M {M} S {S} D {D}", d.work, a, ("y",))
    for i, (R, T, D) in enumerate([(3, 1, 1024), (2, 5, 1024), (2, 2, 30), (1, 4, 33)]):
        d = new()
        M, children = R * T, 16
        rope = i % 2 == 0
        a = {"M": M, "R": R, "D": D, "num_positions": 0 if rope else children, "children": children, "rope": rope}
        a |= {
            "e": d.work_type(M, D),
            "bias": d.f32(D),
            "gain": d.f32(D),
            "beta": d.f32(D),
            "position": d.ints(children - T, R),
        }
        a |= {"slot": d.slots(R, CONTEXT_ROWS), "pos_table": None if rope else d.f32(children, D)}
        a |= {"contexts": d.work_type(CONTEXT_ROWS, children * D) if i != 1 else None, "x": torch.empty(M, D)}
        yield Case("StageInput", f"R {R} T {T} D {D} rope {rope}", d.work, a, ("x",))
    for i, (B, D) in enumerate([(1, 1024), (64, 1024), (3, 30), (2, 33)]):
        d = new()
        rope = i % 2 == 0
        a = {"B": B, "D": D, "V": 256, "children": 8, "position": 3 + i, "rope": rope, "ids": d.ints(256, B)}
        a |= {
            "slot": d.ints(CONTEXT_ROWS, B),
            "table": d.work_type(256, D),
            "contexts": d.work_type(CONTEXT_ROWS, 8 * D),
        }
        a |= {"pos_table": None if rope else d.f32(8, D), "x": torch.empty(B, D)}
        yield Case("LocalInput", f"B {B} D {D} rope {rope}", d.work, a, ("x",))


def attention(new: Any) -> Iterator[Case]:
    for B, H, width, count in [(1, 16, 64, 1), (3, 16, 64, 7), (64, 16, 64, 8), (2, 3, 128, 15), (5, 2, 10, 20),
                               (2, 4, 32, 32), (1, 2, 256, 5)]:  # fmt: skip
        d = new()
        a = {
            "B": B,
            "H": H,
            "d": width,
            "count": count,
            "start_k": d.work_type(H, width),
            "start_v": d.work_type(H, width),
        }
        a |= rotary(count + 1, width) | {"qkv": [d.work_type(B, 3 * H * width) for _ in range(count)]}
        a["y"] = torch.empty(B, H * width, dtype=d.work)
        yield Case("PatchAttention", f"B {B} H {H} d {width} count {count}", d.work, a, ("y",))
    for R, T, H, width, capacity, most in [(2, 1, 16, 64, 16, 15), (3, 1, 4, 64, 1024, 1000), (2, 5, 3, 64, 600, 590),
                                           (1, 33, 2, 128, 64, 20), (2, 3, 2, 10, 40, 30)]:  # fmt: skip
        d = new()
        M = R * T
        caches = {name: d.work_type(CONTEXT_ROWS, H, capacity, width) for name in ("k_cache", "v_cache")}
        a = {"M": M, "R": R, "H": H, "d": width, "capacity": capacity, "qkv": d.work_type(M, 3 * H * width)} | caches
        a |= {"start_k": d.work_type(H, width), "start_v": d.work_type(H, width)} | rotary(capacity + 1, width)
        a |= {
            "slot": d.slots(R, CONTEXT_ROWS),
            "position": d.ints(most, R),
            "y": torch.empty(M, H * width, dtype=d.work),
        }
        yield Case("CachedAttention", f"R {R} T {T} d {width} cap {capacity}", d.work, a, ("y",), tuple(caches))


def rotary(rows: int, width: int) -> dict[str, Tensor]:
    angles = torch.outer(torch.arange(rows).float(), 10_000 ** (-torch.arange(0, width, 2) / width))
    return {"cos": angles.cos().contiguous(), "sin": angles.sin().contiguous()}


def mamba(new: Any) -> Iterator[Case]:
    for R, T, channels, taps in [(3, 1, 2304, 4), (2, 2, 2304, 4), (1, 37, 2304, 4), (2, 9, 21, 3)]:
        d = new()
        M, offset, W = R * T, 16, channels + 40
        a = {"M": M, "R": R, "W": W, "channels": channels, "taps": taps, "offset": offset, "u": d.work_type(M, W)}
        a |= {"w": d.f32(channels, taps), "b": d.f32(channels), "state": d.f32(CONTEXT_ROWS, taps - 1, channels)}
        a |= {"initial": d.f32(taps - 1, channels), "slot": d.slots(R, CONTEXT_ROWS), "position": d.ints(2, R)}
        a["y"] = torch.empty(M, channels)
        yield Case("CausalConv", f"R {R} T {T} C {channels}", d.work, a, ("y",), ("state",))
    for R, T, H, P, N in [(2, 1, 32, 64, 128), (1, 70, 4, 64, 128), (2, 33, 2, 64, 128), (2, 1, 3, 6, 10), (2, 5, 3, 6, 10),
                          (2, 3, 2, 32, 16), (1, 1, 2, 96, 256), (1, 3, 2, 96, 256), (1, 2, 2, 64, 64)]:  # fmt: skip
        d = new()
        M, W = R * T, H + 24
        a = {"M": M, "R": R, "W": W, "H": H, "P": P, "N": N, "dt_offset": 24, "xbc": d.f32(M, H * P + 2 * N)}
        a |= {"u": d.work_type(M, W), "dt_bias": d.f32(H), "a": -d.f32(H).exp(), "d": d.f32(H)}
        a |= {"state": d.f32(CONTEXT_ROWS, H, N, P), "initial": d.f32(H, N, P), "slot": d.slots(R, CONTEXT_ROWS)}
        a |= {"position": d.ints(2, R), "y": torch.empty(M, H * P)}
        yield Case("SsmScan", f"R {R} T {T} H {H} P {P} N {N}", d.work, a, ("y",), ("state",))


def stores(new: Any) -> Iterator[Case]:
    for M, W in [(3, 8192), (2, 33), (0, 64)]:
        d = new()
        a = {
            "M": M,
            "W": W,
            "src": d.work_type(M, W),
            "dst": d.work_type(CONTEXT_ROWS, W),
            "row": d.slots(M, CONTEXT_ROWS),
        }
        a["done"] = torch.empty(1, dtype=torch.int32)
        yield Case("StoreRows", f"M {M} W {W}", d.work, a, ("done",), ("dst",), exact=True)


PATCH_ROW = np.dtype(
    [
        ("slot", "i4"), ("first", "i4"), ("num_forced", "i4"), ("flags", "u4"), ("top_k", "i4"), ("num_left", "i4"),
        ("num_unended", "i4"), ("automaton_state", "i4"), ("seed", "u4", 2), ("index", "u4", 2), ("automaton", "u8"),
        ("automaton_classes", "i4"), ("automaton_states", "i4"), ("temperature", "f8"), ("top_p", "f8"), ("min_p", "f8"),
        ("repetition", "f8"), ("presence", "f8"), ("frequency", "f8"), ("reserved", "i4", 4),
    ]
)  # fmt: skip
ROW_CONSTRAINT, ROW_LOGITS = 16, 64


def random_automaton(rng: np.random.Generator, states: int = 6, classes: int = 5) -> bytes:
    distance = rng.integers(0, 4, states).astype(np.uint32)
    following = rng.integers(0, states, states * classes).astype(np.uint16)
    following[rng.random(states * classes) < 0.3] = 65535
    of_byte = rng.integers(0, classes, 256).astype(np.uint8)
    return b"".join(part.tobytes() for part in (distance, following, of_byte, (distance == 0).astype(np.uint8)))


@dataclass
class SampleCase:
    """A whole patch: `P` calls over the same tables. Automata are bytes, whose address differs between devices."""

    title: str
    V: int
    P: int
    rows: np.ndarray
    automata: list[bytes]
    logits: Tensor  # [P, B, V]
    tables: dict[str, Tensor]


def sample_cases() -> Iterator[SampleCase]:
    for seed, (B, V, P) in enumerate([(256, 256, 8), (64, 257, 8), (9, 1000, 4), (5, 33, 3)]):
        rng = np.random.default_rng(seed)
        rows = np.zeros(B, PATCH_ROW)
        assert PATCH_ROW.itemsize == 128
        rows["slot"] = rng.permutation(B)
        rows["num_forced"] = rng.integers(-2, P, B).clip(0)
        rows["flags"] = rng.integers(0, 128, B)
        rows["top_k"] = rng.choice([0, 0, 1, 5, 40, V - 1, V + 5], B)
        rows["num_left"] = rng.integers(1, 12, B)
        rows["num_unended"] = rng.integers(0, 3, B)
        rows["automaton_state"] = rng.integers(0, 6, B)
        rows["seed"] = rng.integers(0, 2**32, (B, 2), dtype=np.uint32)
        rows["index"] = rng.integers(0, 2**32, (B, 2), dtype=np.uint32) & np.array([2**32 - 1, 2**20 - 1], np.uint32)
        rows["automaton_classes"], rows["automaton_states"] = 5, 6
        rows["temperature"] = rng.choice([0, 0.3, 1, 2], B)
        rows["top_p"] = rng.choice([1, 1, 0.9, 0.5, 0.01], B)
        rows["min_p"] = rng.choice([0, 0, 0.05, 1], B)
        rows["repetition"] = rng.choice([1.2, 0.8], B)
        rows["presence"], rows["frequency"] = rng.normal(size=B), rng.normal(size=B)
        logits = torch.from_numpy(rng.normal(size=(P, B, V)).astype(np.float32) * 3)
        logits[P - 1, 0, V // 2] = float("nan")
        logits[:, 1, :] = logits[:, 1, :].round()
        id_flags = rng.integers(0, 2, (B, V)) | (rng.random((B, V)) < 0.2) * 2 | (rng.random((B, V)) < 0.05) * 4
        tables = {
            "forced": torch.from_numpy(rng.integers(0, V, (B, P)).astype(np.int32)),
            "bias": torch.from_numpy(rng.normal(size=(B, V))),
            "counts": torch.from_numpy(rng.integers(0, 3, (B, V)).astype(np.int32)),
            "id_flags": torch.from_numpy(id_flags.astype(np.uint8)),
            "cursor": torch.full((B,), 3, dtype=torch.int32),
            "ids_out": torch.full((B, P), 77, dtype=torch.int32),
            "logits_out": torch.full((B, P, V), 77.0),
        }
        automata = [random_automaton(rng) for _ in range(B)]
        yield SampleCase(f"B {B} V {V} P {P}", V, P, rows, automata, logits, tables)
