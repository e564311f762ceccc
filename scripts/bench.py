#!/usr/bin/env python3
"""Benchmarks the built server against PyTorch, side by side in one run: `npm run bench`.

    npm run bench -- [--bundle models/books] [--out bench-results] [--quick]

Writes results.json, table.md and plot.png. Compared on the same weights: the reference package's generate (one full forward per
byte), and a hand-cached eager PyTorch decode. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from multiscale.bench.baselines import (
    build_reference,
    eager_bytes_per_second,
    median,
    read_gigabytes_per_second,
    reference_seconds_per_byte,
)
from multiscale.bench.report import write_report
from multiscale.bench.server import ROOT, Server, engine_bytes_per_second
from multiscale.export.bundle_writer import read_manifest
from multiscale.export.read_bundle import load_model

CONTEXTS = [1024, 4096, 8192, 16384, 32768, 65536]
STREAMS = [1, 4, 16]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def single_stream(server: Server, bundle: Path, rounds: int, num_bytes: int) -> dict[str, float]:
    """Server, engine and eager PyTorch in turn, so that a slow moment of the machine hits all of them."""
    measures: dict[str, list[float]] = {"server": [], "engine": [], "eager_1": [], "eager_2": []}
    for turn in range(rounds):
        say(f"one stream, round {turn + 1} of {rounds}")
        measures["server"].append(server.stream("The ", num_bytes).bytes_per_second)
        measures["engine"].append(engine_bytes_per_second(bundle, num_bytes))
        for threads in (1, 2):
            measures[f"eager_{threads}"].append(eager_bytes_per_second(bundle, num_bytes // 4, threads))
    return {name: median(values) for name, values in measures.items()}


def contexts(server: Server, bundle: Path, rounds: int, num_bytes: int, quick: bool) -> list[dict[str, float]]:
    text = (b"It was the best of times, it was the worst of times. " * 2000)[: CONTEXTS[-1]].decode()
    reference = build_reference(load_model(bundle))
    rows = []
    for context in CONTEXTS[:3] if quick else CONTEXTS:
        say(f"context {context}")
        timings = [server.stream(text[:context], num_bytes) for _ in range(rounds)]
        rows.append(
            {
                "context": context,
                "ms_per_byte": 1000 / median([t.bytes_per_second for t in timings]),
                "first_byte_seconds": median([t.first_byte_seconds for t in timings]),
                "reference_ms": 1000 * min(reference_seconds_per_byte(reference, context, 2) for _ in range(2)),
            }
        )
    return rows


def concurrency(server: Server, rounds: int, num_bytes: int) -> list[dict[str, float]]:
    rows = []
    for streams in STREAMS:
        say(f"{streams} concurrent streams")
        totals = []
        for _ in range(rounds):
            with ThreadPoolExecutor(streams) as pool:
                timings = list(pool.map(lambda seed: server.stream("The ", num_bytes, seed=seed), range(streams)))
            totals.append(sum(t.bytes_per_second for t in timings))
        rows.append({"streams": streams, "bytes_per_second": median(totals)})
    return rows


CONSTRAINTS: dict[str, dict[str, Any]] = {
    "none": {},
    "utf8": {"utf8": True},
    "regex": {"structured_outputs": {"regex": "[A-Za-z ,.;\\n]*"}},
    "JSON schema": {"structured_outputs": {"json": {"type": "string", "minLength": 600}}},
}


def constraints(server: Server, rounds: int, num_bytes: int) -> dict[str, float]:
    """Bytes per second of one stream under each constraint, in turn; outputs are about equally long."""
    measures: dict[str, list[float]] = {name: [] for name in CONSTRAINTS}
    for turn in range(2 * rounds):
        say(f"constraints, round {turn + 1} of {2 * rounds}")
        for name, fields in CONSTRAINTS.items():
            timing = server.stream("The ", num_bytes, exactly=False, min_tokens=num_bytes * 3 // 4, **fields)
            measures[name].append(timing.bytes_per_second)
    return {name: median(values) for name, values in measures.items()}


def reuse(server: Server, rounds: int) -> dict[str, float]:
    """First byte of a 16 KiB prompt: computed, and when all but its last bytes are cached; and scoring, bytes per second."""
    text = ("It was the best of times, it was the worst of times. " * 400)[:16384]
    cold, cached = [], []
    for turn in range(rounds):
        say(f"prefix cache and scoring, round {turn + 1} of {rounds}")
        salt = f"bench-{turn}"
        cold.append(server.stream(text, 16, cache_salt=salt).first_byte_seconds)
        cached.append(server.stream(text, 16, cache_salt=salt).first_byte_seconds)
    score = [server.score(text.encode()) for _ in range(rounds)]
    return {"cold_seconds": median(cold), "cached_seconds": median(cached), "score_bytes_per_second": median(score)}


def floor(manifest: dict[str, Any]) -> dict[str, float]:
    """Weights that one generated byte must read, at the speed at which one thread reads them."""
    per_byte = sum(stage["weight_bytes"] / stage["bytes_per_step"] for stage in manifest["stages"])
    bandwidth = read_gigabytes_per_second(manifest["files"]["weights.bin"]["bytes"])
    return {
        "megabytes_per_byte": per_byte / 1e6,
        "gigabytes_per_second": bandwidth,
        "bytes_per_second": bandwidth * 1e9 / per_byte,
    }


def machine() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "books")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results")
    parser.add_argument("--quick", action="store_true", help="one round, contexts up to 8 Ki")
    arguments = parser.parse_args()
    rounds, num_bytes = (1, 400) if arguments.quick else (3, 800)
    manifest = read_manifest(arguments.bundle)
    with Server(arguments.bundle) as server:
        server.stream("warm-up", 200)
        results = {
            "model": manifest["name"],
            "precision": manifest["precision"],
            "machine": machine(),
            "rounds": rounds,
            "single_stream": single_stream(server, arguments.bundle, rounds, num_bytes),
            "concurrency": concurrency(server, rounds, num_bytes),
            "constraints": constraints(server, rounds, num_bytes),
            "reuse": reuse(server, rounds),
            "contexts": contexts(server, arguments.bundle, rounds, num_bytes // 2, arguments.quick),
            "floor": floor(manifest),
        }
    print(write_report(results, arguments.out))
    say(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
