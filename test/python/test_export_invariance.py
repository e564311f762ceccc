"""A stage graph's bits do not depend on the other rows, on how steps are cut into calls, or on where its state is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from conftest import KINDS

from multiscale.export.after_start import open_session
from multiscale.export.graph_builder import Precision
from multiscale.export.stage_graph import Form, build_stage_graph, max_rows
from multiscale.export.weight_store import FILE_NAME, WeightStore
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
WIDTHS = (40, 48, 64)
"""40 and 48 are no multiple of a vector register's 16 floats; at 48, mamba2 has 3 heads of 32 channels."""
STEPS = 24
Arrays = dict[str, np.ndarray]


def stage_config(kind: str, width: int, position: str | None = "rope") -> ModelConfig:
    """Two stages of one kind."""
    fields: dict[str, Any] = {"block_type": kind, "pos_emb_type": position}
    if kind == "transformer":
        fields |= {"attn_head_dims": 24 if width == 48 else 16, "attn_num_heads": 3, "attn_use_rot_embs": True}
    elif kind != "gru":
        fields |= {"d_state": 8 if width == 40 else 16, "d_conv": 4, "expand": 2, "headdim": 16 if width == 40 else 32}
    return ModelConfig.from_params(
        {
            "num_tokens": 257,
            "pad_token_id": 0,
            "hidden_dims": [width, width],
            "seq_lens": [STEPS, STEPS],
            "num_layers": [2, 2],
            "block": [fields, fields],
        }
    )


def single_stage_config(kind: str, width: int) -> ModelConfig:
    config = stage_config(kind, width).model_dump()
    one = {key: config[key][:1] for key in ("hidden_dims", "seq_lens", "num_layers", "block")}
    return ModelConfig.from_params({**config, **one})


class StageSession:
    """One stage's graph; runs with its states handed over (ping-pong) or bound in place.

    Weights are random, but the same for the same config.
    """

    def __init__(self, config: ModelConfig, stage: int, form: Form, precision: Precision, folder: Path):
        torch.manual_seed(0)
        weights = {name: t.detach().numpy() for name, t in MultiscaleByteModel(config).eval().state_dict().items()}
        store = WeightStore()
        graph = build_stage_graph(config, weights, stage, form, store, precision)
        folder = folder / form  # of its own: a session maps its weights file
        folder.mkdir()
        (folder / FILE_NAME).write_bytes(store.content())
        path = folder / "stage.onnx"
        path.write_bytes(graph.model.SerializeToString())
        self.session, self.states = open_session(path), graph.builder.states
        self.inputs = {i.name for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs() if not o.name.startswith("present.")]

    def random_states(self, rows: int, rng: np.random.Generator) -> Arrays:
        return {s.past: 0.5 * rng.standard_normal((rows, *s.shape), np.float32) for s in self.states}

    def run(self, feeds: Arrays, past: Arrays) -> tuple[Arrays, Arrays]:
        """(outputs, next states)."""
        names = self.outputs + [s.present for s in self.states]
        asked = {name: array for name, array in {**feeds, **past}.items() if name in self.inputs}
        results = dict(zip(names, self.session.run(names, asked), strict=True))
        return {n: results[n] for n in self.outputs}, {s.past: results[s.present] for s in self.states}

    def run_in_place(self, feeds: Arrays, memory: dict[str, ort.OrtValue]) -> Arrays:
        """Outputs; `memory` is advanced. States declared `copy` go through a second buffer, as in the server."""
        binding, copies = self.session.io_binding(), {}
        kept = {name: np.ascontiguousarray(feeds[name]) for name in self.inputs & feeds.keys()}
        for name, array in kept.items():  # the binding holds pointers only
            binding.bind_cpu_input(name, array)
        for state in self.states:
            binding.bind_ortvalue_input(state.past, memory[state.past])
            target = memory[state.past]
            if state.update == "copy":
                shape = memory[state.past].shape()
                target = copies[state.past] = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
            binding.bind_ortvalue_output(state.present, target)
        for name in self.outputs:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        memory.update(copies)
        outputs = binding.get_outputs()[len(self.states) :]
        return {name: output.numpy().copy() for name, output in zip(self.outputs, outputs, strict=True)}


def step_feeds(rows: int, width: int, rng: np.random.Generator) -> Arrays:
    """Local stage of a hierarchy: one byte per row, each row at a position of its own."""
    positions = rng.integers(0, STEPS, rows)
    return {
        "bytes": rng.integers(1, 257, rows),
        "position": positions.astype(np.int32),
        "parent_context": rng.standard_normal((rows * STEPS, width), np.float32),
        "parent_index": np.arange(rows) * STEPS + positions,
    }


def select_row(feeds: Arrays, row: int) -> Arrays:
    part = {name: array[row : row + 1] for name, array in feeds.items() if name != "output_index"}
    if "parent_context" in feeds:
        part["parent_context"] = feeds["parent_context"][row * STEPS : (row + 1) * STEPS]
        part["parent_index"] = feeds["parent_index"][row : row + 1] - row * STEPS
    return part | {name: feeds[name] for name in ("output_index",) if name in feeds}


def chunk_feeds(bytes_: np.ndarray, stride: int, first: int, count: int) -> Arrays:
    """Steps first … first+count of a global stage, all outputs wanted. bytes_ (B, STEPS·stride)."""
    return {
        "bytes": bytes_[:, first * stride : (first + count) * stride],
        "position": np.full(len(bytes_), first, np.int32),
        "output_index": np.arange(count),
    }


def assert_same_bits(actual: Arrays, expected: Arrays) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(actual[name], expected[name]), name


def each_case(test: Any) -> Any:
    for name, values in (("precision", PRECISIONS), ("width", WIDTHS), ("kind", KINDS)):
        test = pytest.mark.parametrize(name, values)(test)
    return test


def rows_alone_equal_rows_together(stage: StageSession, feeds: Arrays, rows: int, rng: np.random.Generator) -> None:
    past = stage.random_states(rows, rng)
    together, states = stage.run(feeds, past)
    for row in range(rows):
        alone, own = stage.run(select_row(feeds, row), {name: array[row : row + 1] for name, array in past.items()})
        assert_same_bits(alone, {name: array[row : row + 1] for name, array in together.items()})
        for state in stage.states:
            written = slice(None)
            if state.reset == "none":  # a cache's rows behind the position hold nothing
                written = slice(int(feeds["position"][row]) + 2)
            axis_in_front = (0, slice(None), written) if state.reset == "none" else (0,)
            assert np.array_equal(own[state.past][axis_in_front], states[state.past][row][axis_in_front[1:]]), state


@each_case
def test_local_rows_do_not_see_each_other(kind: str, width: int, precision: Precision, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    stage = StageSession(stage_config(kind, width), 1, "step", precision, tmp_path)
    for rows in (2, 5, 9):
        rows_alone_equal_rows_together(stage, step_feeds(rows, width, rng), rows, rng)


@each_case
def test_global_rows_do_not_see_each_other(kind: str, width: int, precision: Precision, tmp_path: Path) -> None:
    config, rng = stage_config(kind, width), np.random.default_rng(2)
    if max_rows(config, 0) == 1:
        pytest.skip("runs one row at a time")
    stage, stride = StageSession(config, 0, "chunk", precision, tmp_path), config.bytes_per_step(0)
    for count in (1, 3):
        feeds = chunk_feeds(rng.integers(1, 257, (5, STEPS * stride)), stride, 0, count)
        rows_alone_equal_rows_together(stage, feeds, 5, rng)


def outputs_in_chunks(
    stage: StageSession, bytes_: np.ndarray, stride: int, chunk: int, past: Arrays
) -> tuple[list[Arrays], Arrays]:
    outputs = []
    for first in range(0, STEPS, chunk):
        results, past = stage.run(chunk_feeds(bytes_, stride, first, min(chunk, STEPS - first)), past)
        outputs.append(results)
    return outputs, past


@each_case
def test_chunks_do_not_matter(kind: str, width: int, precision: Precision, tmp_path: Path) -> None:
    config, rng = stage_config(kind, width), np.random.default_rng(3)
    stage, stride = StageSession(config, 0, "chunk", precision, tmp_path), config.bytes_per_step(0)
    bytes_, past = rng.integers(1, 257, (1, STEPS * stride)), stage.random_states(1, rng)
    expected, expected_states = outputs_in_chunks(stage, bytes_, stride, 1, past)
    for chunk in (3, 16, STEPS):
        outputs, states = outputs_in_chunks(stage, bytes_, stride, chunk, past)
        joined = np.concatenate([o["context"] for o in outputs], 1)
        assert np.array_equal(joined, np.concatenate([o["context"] for o in expected], 1)), chunk
        for state in stage.states:
            kept = slice(STEPS + 1) if state.reset == "none" else slice(None)
            axis = (0, slice(None), kept) if state.reset == "none" else (0,)
            assert np.array_equal(states[state.past][axis], expected_states[state.past][axis]), (chunk, state)


@each_case
def test_states_in_place_equal_states_handed_over(kind: str, width: int, precision: Precision, tmp_path: Path) -> None:
    config, rng = stage_config(kind, width), np.random.default_rng(4)
    rows = 1 if max_rows(config, 0) == 1 else 3
    stage, stride = StageSession(config, 0, "chunk", precision, tmp_path), config.bytes_per_step(0)
    bytes_, past = rng.integers(1, 257, (rows, STEPS * stride)), stage.random_states(rows, rng)
    memory = {name: ort.OrtValue.ortvalue_from_numpy(array.copy()) for name, array in past.items()}
    first = 0
    for count in (1, 1, 7, 2, STEPS - 11):
        feeds = chunk_feeds(bytes_, stride, first, count)
        expected, past = stage.run(feeds, past)
        assert_same_bits(stage.run_in_place(feeds, memory), expected)
        first += count


@each_case
def test_local_states_in_place(kind: str, width: int, precision: Precision, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(5), 4
    stage = StageSession(stage_config(kind, width, "fixed"), 1, "step", precision, tmp_path)
    past = stage.random_states(rows, rng)
    memory = {name: ort.OrtValue.ortvalue_from_numpy(array.copy()) for name, array in past.items()}
    feeds = step_feeds(rows, width, rng)
    for position in range(STEPS):
        feeds["bytes"] = rng.integers(1, 257, rows)
        feeds["position"] = np.full(rows, position, np.int32)
        feeds["parent_index"] = np.arange(rows) * STEPS + position
        expected, past = stage.run(feeds, past)
        assert_same_bits(stage.run_in_place(feeds, memory), expected)


@each_case
def test_prefill_of_a_single_stage_equals_its_decoding(
    kind: str, width: int, precision: Precision, tmp_path: Path
) -> None:
    config, rng = single_stage_config(kind, width), np.random.default_rng(6)
    step = StageSession(config, 0, "step", precision, tmp_path)
    chunk = StageSession(config, 0, "chunk", precision, tmp_path)
    bytes_, start = rng.integers(1, 257, (1, STEPS)), step.random_states(1, rng)
    decoded = start
    for position in range(STEPS - 1):
        feeds = {"bytes": bytes_[:, position], "position": np.array([position], np.int32)}
        _, decoded = step.run(feeds, decoded)
    prefilled = start
    for first, count in ((0, 5), (5, 1), (6, STEPS - 7)):
        feeds = {"bytes": bytes_[:, first : first + count], "position": np.array([first], np.int32)}
        _, prefilled = chunk.run(feeds, prefilled)
    last = {"bytes": bytes_[:, -1], "position": np.array([STEPS - 1], np.int32)}
    assert_same_bits(step.run(last, prefilled)[0], step.run(last, decoded)[0])
