"""A session that a killed server leaves behind goes on exactly, whatever the model and wherever in a patch it stopped."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def valkey_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if not any("valkey" in item.name for item in request.session.items):
        yield None
        return
    with run_valkey() as url:
        yield url


def generate(server: Server, prompt: list[int], max_tokens: int, session: str | None = None) -> list[int]:
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "session_id": session}
    answer = requests.post(
        f"{server.url}/v1/completions", json={**body, "ignore_eos": True, "return_token_ids": True}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", BUNDLES)
def test_goes_on_after_kill(name: str, store: str, tmp_path: Path, valkey_url: str | None) -> None:
    config, precision, eos = BUNDLES[name]
    bundle = tmp_path / name
    write_bundle(random_model(config, seed=7), bundle, name, precision, eos_id=eos)
    flags = ["--session-dir", str(tmp_path / "sessions")]
    if store == "valkey":
        assert valkey_url is not None
        flags = ["--session-url", valkey_url, "--session-prefix", name]
    # One offset of the largest patch after the other, borders included.
    offsets = range(prod(config.seq_lens[1:]) + 1)
    snapshots: dict[int, bytes] = {}
    before: dict[int, list[int]] = {}
    with serve(bundle, *flags) as server:
        for offset in offsets:
            requests.post(f"{server.url}/v1/sessions", json={"id": f"s{offset}"}, timeout=10).raise_for_status()
            before[offset] = generate(server, PROMPT, offset, f"s{offset}")
            snapshots[offset] = requests.get(f"{server.url}/v1/sessions/s{offset}/snapshot", timeout=10).content
        server.process.kill()
    with serve(bundle, *flags) as server:
        whole = generate(server, PROMPT, offsets[-1] + REST)
        for offset in offsets:
            assert before[offset] == whole[:offset]
            assert generate(server, [], REST, f"s{offset}") == whole[offset : offset + REST]
            path = f"{server.url}/v1/sessions/restored{offset}/snapshot"
            assert requests.put(path, data=snapshots[offset], timeout=10).status_code == 201
            assert generate(server, [], REST, f"restored{offset}") == whole[offset : offset + REST]
