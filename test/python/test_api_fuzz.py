"""schemathesis calls every route some ten thousand times with what the contract allows and what it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import pytest
import requests
from serving import Server, serve

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import read_manifest, write_bundle, write_manifest
from multiscale.vqa.layout import ImageLayout, VqaLayout

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
EXAMPLES = 40
"""Random calls of an operation, each round anew, beside those that cover the contract systematically."""
MIN_CALLS = 10_000
ROUNDS = 5
"""Some 3 200 calls each. The first one warms up: compiled code, the prefix cache and pools of memory come once."""
MAX_HEAP_GROWTH = 3 * 2**20
"""Of what JavaScript reaches, in a round: a kilobyte a call is a leak."""
MAX_RESIDENT_GROWTH = 6 * 2**20
"""Of everything that is resident, in a round: two kilobytes a call are a leak."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bundle = tmp_path_factory.mktemp("fuzz") / "tiny"
    model = random_model(config([32, 32], [512, 4], [mamba2(), transformer()], vocab=257), seed=5)
    write_bundle(model, bundle, "tiny", "fp32", 256)
    layout = VqaLayout(align=4, image=ImageLayout(width=12, height=8))
    write_manifest(bundle, {**read_manifest(bundle), "vqa": layout.to_manifest()})
    with serve(
        bundle, "--max-new-bytes", "32", "--prefix-cache-bytes", "8000000", "--max-sessions", "20", inspect=True
    ) as server:
        yield server


def fuzz(server: Server, examples: int, seed: int, folder: Path) -> int:
    """Calls every route; returns the number of calls. Fails if schemathesis found anything."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"]
    command += ["--url", server.url, "-c", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
    command += ["-n", str(examples), "--seed", str(seed), "--generation-database", "none", "--no-color"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=900, env={**os.environ, "COLUMNS": "120"}
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    match = re.search(r"(\d+) generated", done.stdout)
    assert match, done.stdout[-2000:]
    return int(match[1])


def test_no_call_breaks_the_contract_or_leaks(server: Server, tmp_path: Path) -> None:
    calls = 0
    memory = []
    for seed in range(ROUNDS):
        calls += fuzz(server, EXAMPLES, seed, tmp_path)
        memory.append(server.memory())
    assert calls >= MIN_CALLS
    for name, most in (
        ("heapUsed", MAX_HEAP_GROWTH),
        ("arrayBuffers", MAX_HEAP_GROWTH),
        ("external", MAX_HEAP_GROWTH),
        ("rss", MAX_RESIDENT_GROWTH),
    ):
        grown = [after[name] - before[name] for before, after in pairwise(memory)]
        # What leaks grows in every round. Allocators grow now and then, by tens of megabytes at once, and keep that:
        # the lower median leaves such a round out, and says more than a sum that would have to allow for it.
        assert median_low(grown) <= most, (name, grown)
    assert server.process.poll() is None
    assert requests.get(f"{server.url}/load", timeout=10).json() == {"server_load": 0}
    for gauge in ("mblm_requests_running", "mblm_requests_waiting"):
        assert server.metric(gauge) == 0
    assert server.metric("mblm_prefix_cache_bytes") <= 8_000_000
