"""Several processes with sharded optimizer state, against one process; on the CPU."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from test_train import BATCH, WINDOW, books, train, weights, write_config  # noqa: F401  (a fixture)

from multiscale.train.processes import MESSAGE_BYTES, _messages

NO_DROPOUT = "params.block=[{d_state: 8, d_conv: 4, expand: 2, headdim: 16}, {block_type: gru}]"


@pytest.mark.parametrize("matrix_learning_rate", [None, 0.02])
def test_sharded_state_equals_one_process(tmp_path: Path, books: Path, matrix_learning_rate: float | None) -> None:  # noqa: F811
    config = write_config(tmp_path, books, ema_decay=0.5, matrix_learning_rate=matrix_learning_rate)
    train(config, tmp_path / "one", NO_DROPOUT, "train.chunk_tokens=40")
    half = (NO_DROPOUT, f"train.batch_size={BATCH // 2}", "train.chunk_tokens=40", "train.shard_optimizer=true")
    train(config, tmp_path / "two", *half, processes=2)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4, msg=name)


def test_sharded_state_resumes_bit_for_bit(tmp_path: Path, books: Path) -> None:  # noqa: F811
    config = write_config(
        tmp_path, books, shard_optimizer=True, matrix_learning_rate=0.02, target_elements=12 * BATCH * WINDOW
    )
    train(config, tmp_path / "whole", processes=2)
    train(config, tmp_path / "parts", "--stop-after", "0.01", processes=2)
    steps = [int(row["step"]) for row in csv.DictReader((tmp_path / "parts" / "metrics.csv").open())]
    assert max(steps) < 6
    train(config, tmp_path / "parts", "--resume", processes=2)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_gradients_travel_in_messages_of_bounded_size() -> None:
    sizes = [100, MESSAGE_BYTES // 2, MESSAGE_BYTES // 2, MESSAGE_BYTES * 2, 50, 50]
    gradients = [torch.empty(size // 2, dtype=torch.float16, device="meta") for size in sizes]
    groups = _messages(gradients)
    assert [id(g) for group in groups for g in group] == [id(g) for g in gradients]
    assert [len(group) for group in groups] == [2, 1, 1, 2]
