"""Runs a bundle's graphs for CUDA on the CPU: the slow, readable reference of the server's CUDA path.

Several sequences go through their patches in step. As on the device, nothing is ever reset: states and contexts begin as NaN
here, and each stage's first step starts from the model's after-start constants.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from multiscale.export.bundle_writer import read_manifest
from multiscale.export.cuda.cpu_graph import REFERENCE_LIBRARY, CpuGraph
from multiscale.export.cuda.device_tensor import NUMPY_TYPES, DeviceTensor

FormName = Literal["small", "large", "fused"]
"""`fused`: a stage's layers as one operator where there is one for them, the others as `small`."""
ROW_LOGITS = 64
PATCH_ROW = np.dtype(
    [(name, "<i4") for name in ("slot", "first", "num_forced", "flags")]
    + [(name, "<i4") for name in ("top_k", "num_left", "num_unended", "automaton_state")]
    + [(name, "<u4") for name in ("seed_low", "seed_high", "index_low", "index_high")]
    + [("automaton", "<u8"), ("automaton_classes", "<i4"), ("automaton_states", "<i4")]
    + [(name, "<f8") for name in ("temperature", "top_p", "min_p", "repetition", "presence", "frequency")]
    + [("reserved", "<i4", 4)]
)
"""`PatchRow` of `native/ops.h`."""


class CudaGraphRunner:
    """`num_slots` sequences; slot k is row k of every state."""

    def __init__(self, folder: Path, num_slots: int, library: Path = REFERENCE_LIBRARY):
        manifest = read_manifest(folder)
        arch, cuda = manifest["architecture"], manifest["cuda"]
        self.seq_lens, self.strides = arch["seq_lens"], arch["bytes_per_step"]
        self.vocab, self.num_slots, self.work = arch["vocab_size"], num_slots, cuda["work_type"]
        self._weights = read_weights(folder)
        self._graphs = [
            {
                "small": CpuGraph(folder / entry["step_graph"], library),
                "large": CpuGraph(folder / entry["chunk_graph"], library),
                "fused": CpuGraph(folder / entry.get("fused", {}).get("graph", entry["step_graph"]), library),
            }
            for entry in cuda["stages"]
        ]
        self._fused = [entry.get("fused", {"scratch_bytes": 0, "scratch_bytes_per_row": 0}) for entry in cuda["stages"]]
        self.states = [  # of each stage, by name
            {
                state["name"]: DeviceTensor.undefined(state["dtype"], (num_slots, *state["shape"]))
                for state in entry["states"]
            }
            for entry in cuda["stages"]
        ]
        # The last row takes what nobody wants.
        self._contexts = [
            DeviceTensor.undefined(self.work, (num_slots + 1, length * width))
            for length, width in zip(self.seq_lens, arch["hidden_dims"], strict=True)
        ]
        tables = {"bias": np.float64, "counts": np.int32, "id_flags": np.uint8}
        self._tables = {name: DeviceTensor.of(np.zeros((num_slots, self.vocab), kind)) for name, kind in tables.items()}

    def logits(self, prompts: list[list[int]], form: FormName, chunk: int | None = None) -> list[np.ndarray]:
        """Logits after every byte of each prompt, (L, V) each.

        `chunk`: the whole steps of stage 0 are fed first, at most so many per call, and give no logits. The prompts must be
        of one length then.
        """
        parts: list[list[np.ndarray]] = [[] for _ in prompts]
        begin = self._begin(prompts, chunk)
        while slots := [slot for slot, ids in enumerate(prompts) if begin < len(ids)]:
            _, logits = self._run_patch(prompts, slots, begin, form)
            for row, slot in enumerate(slots):
                parts[slot].append(logits[row, : len(prompts[slot]) - begin])
            begin += self.seq_lens[-1]
            self._cross_border(prompts, begin, form)
        return [np.concatenate(part) for part in parts]

    def generate(
        self, prompts: list[list[int]], count: int, form: FormName, chunk: int | None = None
    ) -> list[list[int]]:
        """The `count` most probable bytes, one after the other, after prompts that are not empty. `chunk`: see `logits`."""
        texts, ends = [list(ids) for ids in prompts], [len(ids) + count for ids in prompts]
        begin = self._begin(prompts, chunk)
        while slots := [slot for slot, text in enumerate(texts) if begin < len(text) < ends[slot]]:
            ids, _ = self._run_patch(texts, slots, begin, form)
            for row, slot in enumerate(slots):
                texts[slot] += ids[row, len(texts[slot]) - begin - 1 :].tolist()
            begin += self.seq_lens[-1]
            self._cross_border(texts, begin, form)
        return [text[len(ids) : end] for text, ids, end in zip(texts, prompts, ends, strict=True)]

    def _begin(self, prompts: list[list[int]], chunk: int | None) -> int:
        """Prepares the contexts of the first patch to run; returns where it begins."""
        slots = list(range(len(prompts)))
        self._start_children(0, slots)
        if chunk is None:
            return 0
        (length,) = {len(ids) for ids in prompts}
        stride = self.strides[0]
        steps = (length - 1) // stride
        for first in range(0, steps, chunk):
            count = min(chunk, steps - first)
            taken = [ids[first * stride : (first + count) * stride] for ids in prompts]
            is_last = first + count == steps
            self._run_stage(0, slots, first, taken, "large", slots if is_last else [self.num_slots] * len(slots))
        return steps * stride

    def _cross_border(self, texts: list[list[int]], begin: int, form: FormName) -> None:
        """The outermost stage whose step is complete makes it; every stage inside starts anew."""
        slots = [slot for slot, text in enumerate(texts) if begin < len(text)]
        if not slots:
            return
        stage = next(i for i, stride in enumerate(self.strides) if begin % stride == 0)
        position = begin // self.strides[stage] - 1
        if stage > 0:
            position %= self.seq_lens[stage]
        taken = [texts[slot][begin - self.strides[stage] : begin] for slot in slots]
        self._run_stage(stage, slots, position, taken, form, slots)
        self._start_children(stage + 1, slots)

    def _start_children(self, first: int, slots: list[int]) -> None:
        """Stages from `first` on are before their first step: their children get the context of the start token."""
        for stage in range(first, len(self.strides) - 1):
            self._contexts[stage + 1].memory[slots] = self._weights[f"stage{stage}.start_context"].memory

    def _run_stage(
        self,
        stage: int,
        slots: list[int],
        position: int,
        taken: list[list[int]],
        form: FormName,
        context_rows: list[int],
    ) -> None:
        """Steps of a non-local stage, as many for every slot; the context after the last one goes to `context_rows`."""
        ids = np.array(taken, np.int32).reshape(-1, self.strides[stage])
        steps = len(ids) // len(slots)
        feeds = {
            "ids": ids,
            "slot": np.array(slots, np.int32),
            "position": np.full(len(slots), position, np.int32),
            "output_row": np.arange(1, len(slots) + 1, dtype=np.int64) * steps - 1,
            "context_row": np.array(context_rows, np.int32),
            "scratch": self._scratch(stage, len(slots)),
        }
        contexts = {"contexts": self._contexts[stage], "child_contexts": self._contexts[stage + 1]}
        self._run(stage, form, feeds, {**contexts, **self.states[stage]})

    def _scratch(self, stage: int, rows: int) -> np.ndarray:
        """The fused operators' own memory, fresh."""
        fused = self._fused[stage]
        return np.zeros(fused["scratch_bytes"] + rows * fused["scratch_bytes_per_row"], np.uint8)

    def _run_patch(
        self, texts: list[list[int]], slots: list[int], begin: int, form: FormName
    ) -> tuple[np.ndarray, np.ndarray]:
        """One patch of the local stage: bytes that are known are forced. Returns the ids and logits after each byte."""
        length, stage = self.seq_lens[-1], len(self.strides) - 1
        rows, forced = np.zeros(len(slots), PATCH_ROW), np.zeros((len(slots), length), np.int32)
        for row, slot in enumerate(slots):
            known = texts[slot][begin : begin + length + 1]
            forced[row, : len(known) - 1] = known[1:]
            rows[row]["slot"], rows[row]["first"], rows[row]["num_forced"] = slot, known[0], len(known) - 1
        rows["flags"], rows["num_left"] = ROW_LOGITS, length
        rows["top_p"] = rows["repetition"] = 1
        ids = DeviceTensor.undefined("int32", forced.shape)
        logits = DeviceTensor.undefined("float32", (*forced.shape, self.vocab))
        feeds = {
            "rows": rows.view(np.int32).reshape(len(slots), -1),
            "slot": rows["slot"],
            "first": rows["first"],
            "forced": forced,
            "row_index": np.arange(len(slots), dtype=np.int32),
            "position_0": np.zeros(len(slots), np.int32),
            "position_1": np.ones(len(slots), np.int32),
            "scratch": self._scratch(stage, len(slots)),
        }
        outputs = {"ids_out": ids, "logits_out": logits, "cursor": DeviceTensor.undefined("int32", (len(slots),))}
        tables = {**self._tables, "contexts": self._contexts[stage], **self.states[stage]}
        self._run(stage, form, feeds, {**outputs, **tables})
        return ids.memory, logits.memory

    def _run(self, stage: int, form: FormName, feeds: dict[str, np.ndarray], bound: dict[str, DeviceTensor]) -> None:
        given = {name: DeviceTensor.of(array) for name, array in feeds.items()}
        self._graphs[stage][form].run({**self._weights, **given, **bound})


def read_weights(folder: Path) -> dict[str, DeviceTensor]:
    """Every tensor of the weights file by name."""
    table = read_manifest(folder)["cuda"]["weights"]
    content = np.fromfile(folder / table["file"], np.uint8)
    return {
        name: DeviceTensor(
            content[entry["offset"] : entry["offset"] + entry["bytes"]]
            .view(NUMPY_TYPES.get(entry["dtype"], entry["dtype"]))
            .reshape(entry["shape"]),
            entry["dtype"],
        )
        for name, entry in table["tensors"].items()
    }
