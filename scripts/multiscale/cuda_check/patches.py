"""Patches of a local stage for LocalPatch: random stages, the fp64 answer, and what a run leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiscale.cuda_check.cases import PATCH_ROW, random_automaton, rotary
from multiscale.cuda_check.library import Library
from multiscale.export.cuda.patch_scratch import patch_scratch_bytes

SHAPES_FILE = Path(__file__).parents[3] / "native" / "cuda" / "local_patch_shapes.json"
COPIED_BYTES_PER_SECOND = 3.0e12
"""Of a large copy on an H100 80 GB; the floor of every time is bytes moved over this."""
ROW_LOGITS = 64
WRITTEN = ("counts", "id_flags", "cursor", "ids_out", "logits_out", "done")


@dataclass(frozen=True)
class StageShape:
    """What a kernel is compiled for: channels of the stage, of its feed-forward for each of them, of a head."""

    width: int
    ff: int
    head: int

    def __str__(self) -> str:
        return f"{self.width}x{self.ff}x{self.head}"

    @classmethod
    def parse(cls, text: str) -> StageShape:
        width, ff, head = (int(part) for part in text.split("x"))
        return cls(width, ff, head)

    @property
    def num_blocks(self) -> int:
        return self.width // 8

    def weight_bytes(self, num_layers: int, vocabulary: int) -> int:
        """What a byte reads: float16 matrices and the float32 head."""
        return num_layers * (4 + 2 * self.ff) * self.width**2 * 2 + vocabulary * self.width * 4


PUBLISHED = StageShape(1024, 2, 64)


def listed_shapes() -> list[StageShape]:
    """Those that the shipped library has."""
    return [StageShape(**entry) for entry in json.loads(SHAPES_FILE.read_text())]


@dataclass
class LocalStage:
    """`arguments`: everything but the batch's."""

    shape: StageShape
    num_layers: int
    length: int
    vocabulary: int
    arguments: dict[str, Any]

    @classmethod
    def random(
        cls,
        seed: int,
        device: str,
        num_layers: int = 21,
        length: int = 8,
        vocabulary: int = 256,
        shape: StageShape = PUBLISHED,
    ) -> LocalStage:
        width, hidden, head = shape.width, shape.width * shape.ff, shape.head
        heads = width // head
        g = torch.Generator(device).manual_seed(seed)

        def draw(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
            return torch.randn(shape, generator=g, device=device) * scale + mean

        vectors = draw(num_layers, 5 * width + hidden, scale=0.1)
        vectors[:, :width] += 1
        vectors[:, 2 * width : 3 * width] += 1
        for kind in (1, 3):
            vectors[:, kind * width : (kind + 1) * width] *= 10
        sizes = ((3 * width, width, 1), (width, width, 0.5), (hidden, width, 1), (width, hidden, 0.7))
        matrices = []
        for _ in range(num_layers):
            for rows, columns, gain in sizes:
                matrices.append((draw(rows, columns) * (gain * columns**-0.5)).half())
        a: dict[str, Any] = {
            "P": length,
            "D": width,
            "V": vocabulary,
            "H": heads,
            "d": head,
            "F": hidden,
            "L": num_layers,
        }
        a |= {
            "children": length,
            "table": draw(vocabulary, width, scale=0.5).half(),
            "pos_table": draw(length, width, scale=0.1),
        }
        a |= {
            "vectors": vectors,
            "starts": draw(num_layers, 2, heads, head).half(),
            "gain": draw(width, scale=0.1, mean=1.0),
        }
        a |= {name: table.to(device) for name, table in rotary(length + 1, head).items()}
        a |= {
            "head": draw(vocabulary, width, scale=2 * width**-0.5),
            "head_bias": draw(vocabulary, scale=0.1),
            "matrices": matrices,
        }
        return cls(shape, num_layers, length, vocabulary, a)

    def to(self, device: str) -> LocalStage:
        def moved(value: Any) -> Any:
            if isinstance(value, list):
                return [item.to(device) for item in value]
            return value.to(device) if isinstance(value, Tensor) else value

        return LocalStage(
            self.shape,
            self.num_layers,
            self.length,
            self.vocabulary,
            {name: moved(value) for name, value in self.arguments.items()},
        )


@dataclass
class PatchBatch:
    """The batch's own tensors; `slots` slots of tables and contexts."""

    rows: np.ndarray
    automata: list[Tensor]
    tensors: dict[str, Tensor]

    @classmethod
    def random(cls, stage: LocalStage, seed: int, device: str, num_rows: int, is_sampled: bool) -> PatchBatch:
        rng = np.random.default_rng(seed)
        B, V, P, slots = num_rows, stage.vocabulary, stage.length, num_rows + 2
        rows = np.zeros(B, PATCH_ROW)
        rows["slot"] = rng.permutation(slots)[:B]
        rows["flags"], rows["top_p"], rows["num_forced"], rows["repetition"] = ROW_LOGITS, 1, P, 1
        if is_sampled:
            rows["num_forced"] = rng.integers(-6, 4, B).clip(0)
            rows["flags"] = rng.integers(0, 64, B) | ROW_LOGITS
            rows["top_k"] = rng.choice([0, 0, 5, 40], B)
            rows["num_left"], rows["num_unended"] = rng.integers(8, 30, B), rng.integers(0, 3, B)
            rows["seed"] = rng.integers(0, 2**32, (B, 2), dtype=np.uint32)
            rows["automaton_classes"], rows["automaton_states"] = 5, 6
            rows["temperature"] = rng.choice([0, 0.7, 1], B)
            rows["top_p"], rows["min_p"] = rng.choice([1, 0.9, 0.5], B), rng.choice([0, 0, 0.05], B)
            rows["repetition"], rows["presence"], rows["frequency"] = 1.2, 0.1, 0.2
        automata = [torch.frombuffer(bytearray(random_automaton(rng)), dtype=torch.uint8).to(device) for _ in range(B)]
        rows["automaton"] = [tensor.data_ptr() for tensor in automata]
        id_flags = (
            rng.integers(0, 2, (slots, V)) | (rng.random((slots, V)) < 0.05) * 2 | (rng.random((slots, V)) < 0.02) * 4
        )
        t = {
            "first": torch.from_numpy(rng.integers(0, V, B).astype(np.int32)),
            "slot": torch.from_numpy(rng.permutation(slots)[:B].astype(np.int32)),
            "rows": torch.from_numpy(rows.view("i4").reshape(B, 32)),
            "forced": torch.from_numpy(rng.integers(0, V, (B, P)).astype(np.int32)),
            "bias": torch.from_numpy(rng.normal(size=(slots, V))),
            "counts": torch.from_numpy(rng.integers(0, 3, (slots, V)).astype(np.int32)),
            "id_flags": torch.from_numpy(id_flags.astype(np.uint8)),
            "cursor": torch.full((B,), 3, dtype=torch.int32),
            "ids_out": torch.full((B, P), 77, dtype=torch.int32),
            "logits_out": torch.full((B, P, V), 77.0),
            "done": torch.full((B,), 77, dtype=torch.int32),
            "contexts": torch.from_numpy(
                rng.normal(size=(slots, P * stage.shape.width)).astype(np.float32) * 0.5
            ).half(),
        }
        return cls(rows, automata, {name: tensor.to(device) for name, tensor in t.items()})

    def inputs(self) -> Tensor:
        """int32 (B, P): the bytes that are fed where all outputs are forced."""
        return torch.cat([self.tensors["first"][:, None], self.tensors["forced"][:, :-1]], 1)

    def first_rows(self, count: int) -> PatchBatch:
        per_row = {"first", "slot", "rows", "forced", "cursor", "ids_out", "logits_out", "done"}
        tensors = {n: t[:count].contiguous() if n in per_row else t for n, t in self.tensors.items()}
        return PatchBatch(self.rows[:count], self.automata[:count], tensors)

    def drawn(self) -> PatchBatch:
        """Its outputs are drawn with top-p 0.9 in place of being forced; no tables are heeded."""
        rows = self.rows.copy()
        rows["num_forced"], rows["temperature"], rows["top_p"], rows["flags"] = 0, 1, 0.9, ROW_LOGITS
        words = torch.from_numpy(rows.view("i4").reshape(len(rows), 32)).to(self.tensors["rows"].device)
        id_flags = torch.zeros_like(self.tensors["id_flags"])
        return PatchBatch(rows, self.automata, self.tensors | {"rows": words, "id_flags": id_flags})

    def fresh(self) -> dict[str, Tensor]:
        return {name: tensor.clone() if name in WRITTEN else tensor for name, tensor in self.tensors.items()}


def new_scratch(stage: LocalStage, rows: int, device: str = "cuda") -> Tensor:
    """uint8: zeros, as a call of this stage and so many rows begins with."""
    a = stage.arguments
    fixed, per_row = patch_scratch_bytes(a["D"], a["F"], a["L"], a["V"], a["P"])
    return torch.zeros(fixed + rows * per_row, dtype=torch.uint8, device=device)


def prepare(library: Library, stage: LocalStage, tensors: dict[str, Tensor], scratch: Tensor) -> Any:
    arguments = (
        stage.arguments | tensors | {"B": len(tensors["rows"]), "scratch": scratch, "scratch_bytes": scratch.nbytes}
    )
    return library.prepare("LocalPatch", torch.float16, arguments)


def exact_logits(stage: LocalStage, t: dict[str, Tensor], ids: Tensor) -> Tensor:
    """float64 (B, P, V): with the byte `ids[:, j]` before output j."""
    a = stage.arguments
    width, hidden, head = stage.shape.width, stage.shape.width * stage.shape.ff, stage.shape.head
    f64 = {
        name: a[name].double()
        for name in ("table", "pos_table", "vectors", "starts", "gain", "head", "head_bias", "cos", "sin")
    }
    matrices = [m.double() for m in a["matrices"]]
    contexts = t["contexts"].double()[t["slot"].long()].unflatten(1, (stage.length, width))
    B = len(ids)

    def norm(x: Tensor) -> Tensor:
        return x / (x.norm(dim=-1, keepdim=True) * width**-0.5).clamp(min=1e-8)

    def rotate(x: Tensor, position: int) -> Tensor:
        cos, sin = f64["cos"][position], f64["sin"][position]
        low, high = x.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

    parts = f64["vectors"].split([width] * 5 + [hidden], dim=1)
    before = {(layer, kind): parts[kind][layer].expand(B, -1) for layer in range(stage.num_layers) for kind in (1, 3)}
    keys = [[f64["starts"][layer, 0].expand(B, -1, -1)] for layer in range(stage.num_layers)]
    values = [[f64["starts"][layer, 1].expand(B, -1, -1)] for layer in range(stage.num_layers)]
    logits = []
    for j in range(stage.length):
        x = f64["table"][ids[:, j].long()] + f64["pos_table"][j] + contexts[:, j]

        def shifted(x: Tensor, layer: int, kind: int) -> Tensor:
            h = torch.cat([x[:, : width // 2], before[layer, kind][:, width // 2 :]], 1)
            before[layer, kind] = x
            return norm(h) * parts[kind - 1][layer]

        for layer in range(stage.num_layers):
            qkv, out, ff1, ff2 = matrices[4 * layer : 4 * layer + 4]
            q, k, v = (shifted(x, layer, 1) @ qkv.T).unflatten(1, (3, -1, head)).unbind(1)
            keys[layer].append(rotate(k, j + 1))
            values[layer].append(v)
            scores = torch.einsum("bhd,pbhd->bhp", rotate(q, j + 1), torch.stack(keys[layer])) * head**-0.5
            x = x + torch.einsum("bhp,pbhd->bhd", scores.softmax(-1), torch.stack(values[layer])).flatten(1) @ out.T
            hidden = torch.nn.functional.gelu(shifted(x, layer, 3) @ ff1.T + parts[5][layer])
            x = x + hidden @ ff2.T + parts[4][layer]
        logits.append((norm(x) * f64["gain"]) @ f64["head"].T + f64["head_bias"])
    return torch.stack(logits, 1)
