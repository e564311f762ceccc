"""Training windows that hold whole files."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from multiscale.data.whole_files import WholeFileSchedule
from multiscale.train.config import RunConfig
from multiscale.train.processes import join_processes
from multiscale.train.sources import TextSource

SIZES = [30, 250, 100, 7, 60, 99, 45, 1]
LENGTH = 100


def pieces_of(sizes: list[int], length: int) -> list[tuple[int, int]]:
    first, pieces = 0, []
    for size in sizes:
        pieces += [(first + start, min(length, size - start)) for start in range(0, size, length)]
        first += size
    return pieces


def test_every_file_is_whole_and_begins_once_an_epoch() -> None:
    schedule = WholeFileSchedule(SIZES, LENGTH, seed=3)
    drawn, epochs = 0, []
    for _ in range(3):  # an epoch ends with the window that completes the pieces
        seen: list[tuple[int, int]] = []
        while len(seen) < len(pieces_of(SIZES, LENGTH)):
            (window,) = schedule.windows(drawn, 1)
            assert window
            assert sum(size for _, size in window) <= LENGTH
            seen += window
            drawn += 1
        assert sorted(seen) == sorted(pieces_of(SIZES, LENGTH))
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]
    again = WholeFileSchedule(SIZES, LENGTH, seed=3)
    assert again.windows(drawn - 3, 3) == schedule.windows(drawn - 3, 3)
    assert again.windows(0, drawn) == schedule.windows(0, drawn)  # back again, and over borders of epochs
    assert WholeFileSchedule(SIZES, LENGTH, seed=4).windows(0, drawn) != schedule.windows(0, drawn)


def test_without_a_seed_files_stay_in_order_and_fill_what_room_there_is() -> None:
    schedule = WholeFileSchedule(SIZES, LENGTH, None)
    windows = schedule.one_epoch()
    assert windows == schedule.windows(0, len(windows)) == schedule.windows(len(windows), len(windows))
    assert windows[0] == [(0, 30), (230, 50), (380, 7), (591, 1)]
    assert windows[1] == [(30, 100)]  # a long file is cut from its beginning


class Losses:
    """Stands in for a model: keeps what it is asked; its loss is the share of the letter a."""

    def __init__(self) -> None:
        self.windows: list[Tensor] = []

    def loss(self, ids: Tensor, weights: Tensor | None) -> Tensor:
        self.windows += ids
        self.weights = weights
        return (ids == ord("a")).sum() / (ids != 0).sum() * math.log(2)


def open_source(tmp_path: Path, **arguments: object) -> TextSource:
    block = {"block_type": "gru"}
    params = {"num_tokens": 256, "pad_token_id": 0, "hidden_dims": [8, 8], "seq_lens": [128, 8], "num_layers": [1, 1]}
    sections = {
        "params": {**params, "block": block},
        "io": {"dataset_dir": str(tmp_path / "books"), "dataset_args": {"whole_files": True, **arguments}},
        "train": {"target_elements": 10, "batch_size": 4, "learning_rate": 0.1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(sections))
    return TextSource(RunConfig.from_yaml(tmp_path / "config.yaml"), join_processes("cpu"))


@pytest.fixture
def books(tmp_path: Path) -> Path:
    (tmp_path / "books").mkdir()
    for name, size in (("b", 300), ("c", 700), ("d", 1024), ("e", 1500), ("f", 20)):
        (tmp_path / "books" / f"{name}.txt").write_bytes(name.encode() * size)
    return tmp_path


def test_training_windows_are_books_and_padding(books: Path) -> None:
    model, source = Losses(), open_source(books)
    source.loss(model, 0, 4)
    runs = []
    for ids in model.windows:
        text = bytes(ids.tolist())
        assert len(text) == 1024
        assert 0 not in text.rstrip(b"\0")
        runs += [(run[0][0:1], len(run[0])) for run in re.finditer(rb"([b-f])\1*", text)]
    assert sorted(runs) == [(b"b", 300), (b"c", 700), (b"d", 1024), (b"e", 476), (b"e", 1024), (b"f", 20)]


def test_facts_are_not_planted_over_padding(books: Path) -> None:
    plain, with_facts = Losses(), Losses()
    open_source(books).loss(plain, 0, 8)
    source = open_source(books, facts_told=3, facts_at_once=3, facts_alignment=1)
    source.loss(with_facts, 0, 8)
    for ids, planted in zip(plain.windows, with_facts.windows, strict=True):
        assert torch.equal(ids == 0, planted == 0)
    assert any(b"secret number" in bytes(ids.tolist()) for ids in with_facts.windows)
    assert source.facts()["io.dataset_args.whole_files"] is True


def test_validation_is_a_mean_over_bytes(books: Path) -> None:
    (books / "books" / "a.txt").write_bytes(b"a" * 600)
    source = open_source(books, validation=["[aef].txt"])
    figures = source.validate(Losses(), 1, None)
    assert figures["validation_bits_per_byte"] == pytest.approx(600 / (600 + 1500 + 20))
