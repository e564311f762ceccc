"""The benchmark of training steps, at a size that measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = [
    f"params.{key}" for key in ("hidden_dims=[32,32,32]", "seq_lens=[8,4,4]", "num_layers=[1,1,1]", "input_seq_len=128")
]


def test_every_row_is_measured_and_planned(tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "scripts/bench_training.py",
        "--device",
        "cpu",
        "--steps",
        "1",
        "--precision",
        "fp32",
    ]
    command += ["--only", "5m", "1mi", "reference", "--json", tmp_path / "rows.json", *TINY]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["case"] for row in rows] == ["5m", "1mi", "reference"]
    assert all(row.get("bytes_per_second", 0) > 0 for row in rows), rows
    assert all(row["planned_gib"] > 0 for row in rows[:2])
    assert "| 5m | fp32 | 128 |" in done.stdout
