"""schemathesis calls every route with what the contract allows and what it does not; its calls again and again leak nothing."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

import pytest
import requests
import urllib3
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
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""Random calls of an operation, beside those that cover the contract systematically."""
MIN_CALLS = 3_000
ROUNDS = 5
"""Of the same calls. schemathesis makes those of the first one, which warms up: compiled code, the prefix cache and pools of
memory come once. It takes five times as long to make up and judge a call as the server to answer it."""
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


@dataclass(frozen=True)
class Call:
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


def fuzz(server: Server, folder: Path) -> list[Call]:
    """Calls every route; returns the calls. Fails if schemathesis found anything."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"]
    command += ["--url", server.url, "-c", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
    command += ["-n", str(EXAMPLES), "--seed", "0", "--generation-database", "none", "--no-color"]
    command += ["--report-har-path", str(folder / "calls.har"), "--report-preserve-bytes"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=900, env={**os.environ, "COLUMNS": "120"}
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    match = re.search(r"(\d+) generated", done.stdout)
    assert match, done.stdout[-2000:]
    calls = [call_of(entry["request"]) for entry in json.loads((folder / "calls.har").read_text())["log"]["entries"]]
    assert len(calls) >= int(match[1])
    return calls


def call_of(request: dict[str, Any]) -> Call:
    headers = {header["name"]: header["value"] for header in request["headers"]}
    body = base64.b64decode(request["postData"]["text"]) if "postData" in request else None
    return Call(request["method"], request["url"], headers, body)


def repeat(server: Server, calls: list[Call]) -> Counter[int]:
    """Makes the calls once more, without the sessions that they made; how often each status came."""
    for session in requests.get(f"{server.url}/v1/sessions", params={"limit": 100}, timeout=10).json()["data"]:
        requests.delete(f"{server.url}/v1/sessions/{session['id']}", timeout=10).raise_for_status()
    statuses: Counter[int] = Counter()
    with urllib3.connection_from_url(server.url, timeout=60, retries=False) as connections:
        for call in calls:
            answer = connections.urlopen(
                call.method, call.url.removeprefix(server.url), call.body, call.headers, redirect=False
            )
            assert answer.status < 500, (call, answer.data)
            statuses[answer.status] += 1
    return statuses


def test_no_call_breaks_the_contract_or_leaks(server: Server, tmp_path: Path) -> None:
    calls = fuzz(server, tmp_path)
    assert len(calls) >= MIN_CALLS
    memory = [server.memory()]
    for _ in range(ROUNDS - 1):
        statuses = repeat(server, calls)
        assert {200, 201, 400, 404, 405} <= statuses.keys()
        memory.append(server.memory())
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
