"""Runs a bundle one byte at a time, as the server does: the slow, readable reference of the TypeScript engine.

It holds one sequence. Feeding byte m first runs whatever stage has a step due at the border m, then the local stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from multiscale.export.after_start import open_session
from multiscale.export.bundle_writer import read_manifest


class _Stage:
    """A stage's session and its states."""

    def __init__(self, folder: Path, entry: dict[str, Any], constants: dict[str, np.ndarray]):
        self.entry, self._constants = entry, constants
        self.session = open_session(folder / entry["graph"])
        self.prefill = open_session(folder / entry["prefill_graph"]) if entry["prefill_graph"] else None
        self.states: dict[str, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """State after the start token."""
        for state in self.entry["states"]:
            initial = self._constants[state["initial"]["tensor"]]
            if state["reset"] == "none":
                full = np.zeros(state["shape"], np.float32)
                full[:, : initial.shape[1]] = initial
                initial = full
            self.states[state["past"]] = initial[None].copy()

    def run(self, feeds: dict[str, np.ndarray], prefill: bool = False) -> dict[str, np.ndarray]:
        session = self.prefill if prefill else self.session
        names = [output.name for output in session.get_outputs()]
        asked = {i.name for i in session.get_inputs()}
        feeds = {k: v for k, v in {**feeds, **self.states}.items() if k in asked}
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        for state in self.entry["states"]:
            self.states[state["past"]] = outputs.pop(state["present"])
        return outputs


class IncrementalRunner:
    def __init__(self, folder: Path):
        manifest = read_manifest(folder)
        arch = manifest["architecture"]
        self.constants = read_constants(folder)
        self.stages = [_Stage(folder, entry, self.constants) for entry in manifest["stages"]]
        self.seq_lens, self.strides = arch["seq_lens"], arch["bytes_per_step"]
        self.widths, self.num_stages = arch["hidden_dims"], arch["num_stages"]
        self.reset()

    def reset(self) -> None:
        """The empty sequence; its next-byte logits are `initial_logits`."""
        self.ids: list[int] = []
        self.contexts: list[np.ndarray | None] = [None] * self.num_stages  # (P_i, D_i), from the parent
        self._start_stages(0)

    def snapshot(self) -> tuple[Any, ...]:
        """The sequence so far, to be restored any number of times: no array is ever written to again."""
        return list(self.ids), list(self.contexts), self._pending, [dict(stage.states) for stage in self.stages]

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        ids, contexts, self._pending, states = snapshot
        self.ids, self.contexts = list(ids), list(contexts)
        for stage, own in zip(self.stages, states, strict=True):
            stage.states = dict(own)

    @property
    def initial_logits(self) -> np.ndarray:
        return self.constants["initial_logits"]

    def feed(self, byte: int) -> np.ndarray:
        """Appends one id; returns the logits (V,) of the next."""
        length, last = len(self.ids), self.num_stages - 1
        if last > 0 and length > 0 and length % self.strides[last - 1] == 0:
            self._cross_border()
        position = length % self.seq_lens[last] if last > 0 else length
        feeds = {"bytes": np.array([byte], np.int64), "position": np.array([position], np.int32)}
        if last > 0:
            feeds |= {"parent_context": self.contexts[last], "parent_index": np.array([position], np.int64)}
        self.ids.append(byte)
        return self.stages[last].run(feeds)["logits"][0]

    def prefill(self, ids: list[int], chunk: int) -> int:
        """Feeds stage 0 (or a single stage) with whole steps of an empty sequence, `chunk` steps a call.

        Leaves at least one id to be fed; returns how many were taken.
        """
        stride = self.strides[0]
        steps = (len(ids) - 1) // stride
        for first in range(0, steps, chunk):
            count = min(chunk, steps - first)
            if self.num_stages == 1:
                feeds = {"bytes": np.array([ids[first : first + count]], np.int64)}
                self.stages[0].run({**feeds, "position": np.array([first], np.int32)}, prefill=True)
                self.ids += ids[first : first + count]
                continue
            self.ids += ids[first * stride : (first + count) * stride]
            if first + count < steps:
                self._step(0, count)
            else:
                self._pending = count  # made by the next feed, which finds itself at this border
        return len(self.ids)

    def _cross_border(self) -> None:
        """The outermost stage whose step is complete makes it; every stage inside starts anew."""
        count = self._pending or 1
        stage = next(i for i in range(self.num_stages) if len(self.ids) % self.strides[i] == 0)
        self._step(stage, count)
        self._start_stages(stage + 1)

    def _step(self, stage: int, count: int) -> None:
        """Feeds the last `count` steps to a non-local stage."""
        stride = self.strides[stage]
        done = len(self.ids) // stride - count
        position = done if stage == 0 else done % self.seq_lens[stage]
        feeds = {
            "bytes": np.array([self.ids[len(self.ids) - count * stride :]], np.int64),
            "position": np.array([position], np.int32),
            "output_index": np.array([count - 1], np.int64),
        }
        if stage > 0:
            index = np.arange(position, position + count, dtype=np.int64)[None]
            feeds |= {"parent_context": self.contexts[stage], "parent_index": index}
        context = self.stages[stage].run(feeds)["context"]
        self.contexts[stage + 1] = context.reshape(self.seq_lens[stage + 1], self.widths[stage + 1])

    def _start_stages(self, first: int) -> None:
        self._pending = 0
        for stage in range(first, self.num_stages):
            self.stages[stage].reset()
            if stage < self.num_stages - 1:
                start = self.constants[f"stage{stage}.start_context"]
                self.contexts[stage + 1] = start.reshape(self.seq_lens[stage + 1], self.widths[stage + 1])


def read_constants(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of `constants.bin` by name."""
    table = read_manifest(folder)["constants"]
    content = (folder / table["file"]).read_bytes()
    return {
        name: np.frombuffer(content, "<f4", entry["bytes"] // 4, entry["offset"]).reshape(entry["shape"])
        for name, entry in table["tensors"].items()
    }
