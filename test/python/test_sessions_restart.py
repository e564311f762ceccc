"""A session that a killed server leaves behind goes on exactly, whatever the model and wherever in a patch it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import pytest
import requests
from serving import Server, serve
from valkey import needs_valkey, run_valkey

from make_test_bundles import BUNDLES, random_model
from multiscale.export.bundle_writer import write_bundle

PROMPT = list(b"To be, ")
REST = 11
STORES = ["disk", pytest.param("valkey", marks=needs_valkey)]


@dataclass
class Kept:
    """What a killed server had said of a model's sessions, by how many bytes they had generated."""

    generated: dict[int, list[int]] = field(default_factory=dict)
    snapshots: dict[int, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for name, (config, precision, eos) in BUNDLES.items():
        write_bundle(random_model(config, seed=7), folder / name, name, precision, eos_id=eos)
    return [folder / name for name in BUNDLES]


@pytest.fixture(scope="module", params=STORES)
def restarted(
    request: pytest.FixtureRequest, bundles: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, dict[str, Kept]]]:
    """A server in place of one that was killed, and what that one had said; both serve all the models."""
    with run_valkey() if request.param == "valkey" else contextlib.nullcontext(None) as url:
        folder = tmp_path_factory.mktemp("sessions")
        flags = ["--session-dir", str(folder)] if url is None else ["--session-url", url, "--session-prefix", "restart"]
        with serve(bundles, *flags) as server:
            kept = {name: keep(server, name) for name in BUNDLES}
            server.process.kill()
        with serve(bundles, *flags) as server:
            yield server, kept


def offsets(name: str) -> range:
    """One offset of the largest patch after the other, borders included."""
    return range(prod(BUNDLES[name][0].seq_lens[1:]) + 1)


def keep(server: Server, name: str) -> Kept:
    kept = Kept()
    for offset in offsets(name):
        session = f"{name}-{offset}"
        requests.post(f"{server.url}/v1/sessions", json={"id": session}, timeout=10).raise_for_status()
        kept.generated[offset] = generate(server, name, PROMPT, offset, session)
        kept.snapshots[offset] = requests.get(f"{server.url}/v1/sessions/{session}/snapshot", timeout=10).content
    return kept


def generate(server: Server, model: str, prompt: list[int], max_tokens: int, session: str | None = None) -> list[int]:
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "session_id": session}
    answer = requests.post(
        f"{server.url}/v1/completions", json={**body, "ignore_eos": True, "return_token_ids": True}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


@pytest.mark.parametrize("name", BUNDLES)
def test_goes_on_after_kill(name: str, restarted: tuple[Server, dict[str, Kept]]) -> None:
    server, kept = restarted[0], restarted[1][name]
    whole = generate(server, name, PROMPT, offsets(name)[-1] + REST)
    for offset in offsets(name):
        assert kept.generated[offset] == whole[:offset]
        assert generate(server, name, [], REST, f"{name}-{offset}") == whole[offset : offset + REST]
        restored = f"{name}-restored-{offset}"
        path = f"{server.url}/v1/sessions/{restored}/snapshot"
        assert requests.put(path, data=kept.snapshots[offset], timeout=10).status_code == 201
        assert generate(server, name, [], REST, restored) == whole[offset : offset + REST]
