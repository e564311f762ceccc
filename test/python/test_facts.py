"""Facts planted in training windows."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from multiscale.data.facts import NUMBER_DIGITS, SENTENCE_BYTES, SLOT_BYTES, fact, plant_facts
from multiscale.train.config import RunConfig
from multiscale.train.processes import join_processes
from multiscale.train.sources import TextSource

SENTENCE = re.compile(rb" The secret number of ([a-z]{6}) is ([0-9]{5})\. ")


def planted(length: int, seed: int, told: int = 4, at_once: int = 1, alignment: int = 8) -> tuple[bytes, list[int]]:
    window = np.full(length, ord("x"), np.uint8)
    known = plant_facts(window, random.Random(seed), told, at_once, alignment)
    return window.tobytes(), known


@pytest.mark.parametrize("at_once", [1, 5])
@pytest.mark.parametrize("length", [40, 64, 300, 4096, 70_000])
def test_facts_are_whole_and_known_numbers_were_told_before(length: int, at_once: int) -> None:
    text, known = planted(length, length, 4, at_once)
    sentences = list(SENTENCE.finditer(text))
    assert len(sentences) >= min(2, length // SLOT_BYTES)
    assert re.sub(rb"x+", b"", SENTENCE.sub(b"", text)) == b""  # nothing but whole sentences was written
    told: dict[bytes, bytes] = {}
    again = []
    for sentence in sentences:
        name, number = sentence.groups()
        if name in told:
            again.append(sentence.start(2))
        assert told.setdefault(name, number) == number
    assert known == again


def test_some_facts_are_told_over_one_another_and_begin_where_they_may() -> None:
    between: set[bool] = set()
    for seed in range(8):
        names = [s.group(1) for s in SENTENCE.finditer(planted(4096, seed, at_once=3)[0])]
        between.add(any(len(set(names[names.index(name) : -names[::-1].index(name)])) > 1 for name in set(names)))
        alone = [s.group(1) for s in SENTENCE.finditer(planted(4096, seed)[0])]
        assert all(
            alone.count(name) == len(alone[alone.index(name) : len(alone) - alone[::-1].index(name)]) for name in alone
        )
    assert True in between
    starts = [s.start() for s in SENTENCE.finditer(planted(2**16, 0, at_once=3, alignment=1)[0])]
    assert {start % 8 for start in starts} == set(range(8))
    assert {s.start() % 8 for s in SENTENCE.finditer(planted(2**16, 0, at_once=3)[0])} == {0}


def test_distances_are_spread_over_orders_of_magnitude() -> None:
    places: dict[bytes, int] = {}
    distances = []
    for seed in range(80):
        places.clear()
        for sentence in SENTENCE.finditer(planted(2**18, seed, told=2)[0]):
            first = places.setdefault(sentence.group(1), sentence.start())
            distances += [math.log10(sentence.start() - first)] if sentence.start() > first else []
    counts = np.histogram(distances, bins=[1.5, 2.5, 3.5, 4.5, 5.5])[0]
    assert counts.min() > 0.08 * counts.sum(), counts


class Losses:
    """Stands in for a model: keeps what it is asked."""

    def loss(self, ids: Tensor, weights: Tensor | None) -> Tensor:
        self.ids, self.weights = ids, weights
        return torch.zeros(())


def test_training_windows_have_facts_and_weights(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 50_000)
    (tmp_path / "b.txt").write_bytes(b"y" * 9_000)
    block = {"block_type": "gru"}
    params = {"num_tokens": 256, "pad_token_id": 0, "hidden_dims": [8, 8], "seq_lens": [512, 8], "num_layers": [1, 1]}
    args = {"validation": ["b.txt"], "facts_told": 3, "facts_share": 0.5, "facts_weight": 7}
    path = tmp_path.parent / f"{tmp_path.name}.yaml"
    sections = {
        "params": {**params, "block": block},
        "io": {"dataset_dir": str(tmp_path), "dataset_args": args},
        "train": {"target_elements": 10, "batch_size": 4, "learning_rate": 0.1},
    }
    path.write_text(yaml.safe_dump(sections))
    source, model = TextSource(RunConfig.from_yaml(path), join_processes("cpu")), Losses()
    with_facts = 0
    for first in range(0, 24, 4):
        source.loss(model, first, 4)
        for ids, weights in zip(model.ids, model.weights, strict=True):
            text = bytes(ids.tolist())
            sentences = list(SENTENCE.finditer(text))
            with_facts += bool(sentences)
            known = {at for at in range(len(text)) if weights[at] == 7}
            assert ((weights == 7) | (weights == 1)).all()
            assert all(
                at in known for s in sentences[1:] if s.group(1) == sentences[0].group(1) for at in range(*s.span(2))
            )
    assert 4 <= with_facts <= 20
    again = model.ids.clone()
    source.loss(model, 20, 4)
    assert torch.equal(model.ids, again)  # which facts is a function of the window's number
    assert source.facts()["io.dataset_args.facts_told"] == 3


def test_a_sentence_has_its_length() -> None:
    assert len(fact(b"abcdef", b"0" * NUMBER_DIGITS)) == SENTENCE_BYTES
