"""Evaluation of long contexts: by position, and needles."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import random_config
from programs import run_script

from multiscale.bench.long_contexts import (
    Needle,
    ask,
    bits_by_position,
    bits_in_windows,
    bits_of_bytes,
    interval,
    plant,
    position_bins,
)
from multiscale.model.checkpoint import save_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.chunked import Chunking, last_logits


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 6])
def test_bits_and_last_logits_are_those_of_the_whole(seed: int) -> None:
    model = MultiscaleByteModel(random_config(seed)).eval()
    ids = torch.randint(0, 256, (1, min(model.config.context_length, 47)))
    with torch.no_grad():
        logits = model.aligned_logits(ids)[0]
    expected = F.cross_entropy(logits, ids[0], reduction="none").numpy() / math.log(2)
    np.testing.assert_allclose(bits_of_bytes(model, bytes(ids[0].tolist()), "cpu"), expected, rtol=1e-4, atol=1e-4)
    for count in (1, 5, 9):
        torch.testing.assert_close(last_logits(model, ids, count, Chunking((7,) * 3, None, 9)), logits[-count:])


def test_windows_give_every_byte_at_least_half_of_them() -> None:
    model, content = MultiscaleByteModel(random_config(0)).eval(), bytes(range(100, 130))
    windowed = bits_in_windows(model, content, 8, "cpu")
    assert len(windowed) == len(content)
    for at in range(len(content)):
        first = max(0, (at - 4) // 4 * 4)
        alone = bits_of_bytes(model, content[first : at + 1], "cpu")
        np.testing.assert_allclose(windowed[at], alone[-1], rtol=1e-4)


def test_bins_double_and_means_are_over_files() -> None:
    assert position_bins(5000) == [(0, 1024), (1024, 2048), (2048, 4096), (4096, 5000)]
    bits = [np.full(1024, 2.0), np.concatenate((np.full(1024, 4.0), np.full(100, 1.0)))]
    first, second = bits_by_position(bits, position_bins(1124))
    assert (first["bits_per_byte"], first["files"], first["bytes"]) == (3.0, 2, 2048)
    assert (second["bits_per_byte"], second["files"], second["bytes"]) == (1.0, 1, 100)


def test_a_needle_is_told_once_at_its_distance() -> None:
    haystack = bytes(range(97, 123)) * 100
    needle = plant(haystack, 500, 1000, 4, seed=3)
    assert len(needle.text) == 1000
    told = needle.text.index(needle.digits + b". ")
    assert 1000 - (told + len(needle.digits) + 2) == 500
    assert needle.text.count(needle.digits) == 1
    with pytest.raises(ValueError, match="--distance: 990 does not fit"):
        plant(haystack, 990, 1000, 4, seed=3)


def test_other_facts_are_told_behind_the_needle() -> None:
    haystack = b"x" * 2000
    needle = plant(haystack, 801, 1600, 5, seed=3, others=4)
    sentences = list(re.finditer(rb" The secret number of ([a-z]{6}) is ([0-9]{5})\. ", needle.text))
    assert len(sentences) == 5
    assert sentences[0].group(2) == needle.digits
    assert needle.text.endswith(b" The secret number of %s is " % sentences[0].group(1))
    assert len({s.group(1) for s in sentences}) == 5
    assert {s.start() % 8 for s in sentences} == {0}
    assert plant(haystack, 801, 1600, 5, seed=3).digits == needle.digits
    with pytest.raises(ValueError, match="--others: 801 bytes have room for 12 other facts, not for 13"):
        plant(haystack, 801, 1600, 5, seed=3, others=13)


def test_digits_are_chosen_among_ten() -> None:
    model = MultiscaleByteModel(random_config(0)).eval()
    rng, right, total = np.random.default_rng(0), 0, 0
    for _ in range(60):
        digits = bytes(rng.choice(list(b"0123456789"), 5).tolist())
        answered = ask(model, Needle(b"x" * 9, digits), "cpu")
        right, total = right + answered[0], total + answered[1]
    low, high = interval(right, total)
    assert low < 0.1 < high
    with torch.no_grad():
        model.to_logits.weight.zero_()
        model.to_logits.bias.zero_()
        model.to_logits.bias[ord("7")] = 1
        model.to_logits.bias[ord("x")] = 9  # no digit: not among what is chosen from
    assert ask(model, Needle(b"x" * 9, b"7717"), "cpu") == (3, 4)


def test_both_run_from_the_command_line(tmp_path: Path) -> None:
    block = {"block_type": "mamba2", "d_state": 8, "d_conv": 4, "expand": 2, "headdim": 16}
    shape = {"hidden_dims": [32, 32], "seq_lens": [40, 4], "num_layers": [1, 1], "block": block}
    config = ModelConfig.from_params({"num_tokens": 256, "pad_token_id": 0, **shape})
    save_checkpoint(tmp_path / "m.pth", MultiscaleByteModel(config), 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    (tmp_path / "book.txt").write_bytes(b"It was a dark and stormy night. " * 60)
    common = ("--checkpoint", tmp_path / "m.pth", "--config", tmp_path / "m.yaml", "--data", tmp_path / "book.txt")

    def evaluate(task: str, *arguments: object) -> tuple[int, str, list[dict]]:
        given = (*common, "--device", "cpu", *arguments, "--json", tmp_path / "out.json")
        done = run_script("evaluate.py", task, *given, afresh=task == "position")
        return done.returncode, done.stdout + done.stderr, json.loads((tmp_path / "out.json").read_text() or "[]")

    (tmp_path / "out.json").write_text("")
    code, output, rows = evaluate("position", "--window", 4096, 64, "--plot", tmp_path / "position.png")
    assert code == 0, output
    assert [(row["from"], row["to"]) for row in rows] == [(0, 1024), (1024, 1920)]
    for row in rows:
        assert row["in_windows"]["4096"] == pytest.approx(row["bits_per_byte"])
        assert row["in_windows"]["64"] != row["bits_per_byte"]
    drawn = ("--samples", 3, "--plot", tmp_path / "needle.png")
    code, output, rows = evaluate("needle", "--length", 300, "--distance", 100, 200, *drawn)
    assert code == 0, output
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("position.png", "needle.png"))
    assert "chance 0.100" in output
    assert [(row["distance"], row["digits"]) for row in rows] == [(100, 15), (200, 15)]
    code, output, rows = evaluate("needle", "--length", 300, "--distance", 200, "--others", 2, "--unaligned")
    assert code == 0, output
    assert rows[0]["others"] == 2
    code, output, _ = evaluate("needle", "--length", 300, "--distance", 299)
    assert code == 2
    assert "--distance: 299 does not fit" in output
