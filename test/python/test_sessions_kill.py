"""A server that is killed at any moment has every session that it acknowledged, whole, when it starts again."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from serving import Server, serve
from valkey import needs_valkey, run_valkey

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import write_bundle

ROUNDS = int(os.environ.get("KILL_ROUNDS", "8"))
SESSIONS = 6
PUSHED, GENERATED = 5, 6


@dataclass
class Conversation:
    """What the client of one session knows."""

    id: str
    acknowledged: list[int] = field(default_factory=list)
    in_flight: list[int] | None = None
    """Bytes pushed by a request without an answer."""


def generate(server: Server, prompt: list[int], max_tokens: int, session: str | None = None) -> list[int]:
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "return_token_ids": True}
    for _ in range(200):
        answer = requests.post(f"{server.url}/v1/completions", json={**body, "session_id": session}, timeout=60)
        if answer.status_code != 409:  # held by a server that has died, until its lock runs out
            break
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


def converse(server: Server, conversation: Conversation, rng: random.Random) -> None:
    """Goes on until the server is gone."""
    while True:
        conversation.in_flight = [rng.randrange(256) for _ in range(PUSHED)]
        try:
            output = generate(server, conversation.in_flight, GENERATED, conversation.id)
        except requests.RequestException:
            return
        conversation.acknowledged += conversation.in_flight + output
        conversation.in_flight = None


def settle(server: Server, conversation: Conversation) -> bool:
    """Compares what the server has with what was acknowledged; returns whether it had gone further."""
    answer = requests.get(f"{server.url}/v1/sessions/{conversation.id}", timeout=10)
    assert answer.status_code == 200, answer.text
    known, stored = conversation.acknowledged, answer.json()["bytes"]
    went_further = stored != len(known)
    if went_further:
        assert conversation.in_flight is not None
        assert stored == len(known) + PUSHED + GENERATED
        known += conversation.in_flight
        known += generate(server, known, GENERATED)
    conversation.in_flight = None
    expected = generate(server, known, 3)
    assert generate(server, [], 3, conversation.id) == expected
    known += expected
    return went_further


@pytest.mark.parametrize("store", ["disk", pytest.param("valkey", marks=needs_valkey)])
def test_no_acknowledged_session_is_lost(store: str, tmp_path: Path) -> None:
    if store == "disk":
        kill_again_and_again(tmp_path, ROUNDS, "--session-dir", str(tmp_path / "sessions"))
        return
    with run_valkey() as url:  # where the dead server's locks take seconds to run out
        kill_again_and_again(tmp_path, max(2, ROUNDS // 4), "--session-url", url)


def kill_again_and_again(tmp_path: Path, rounds: int, *flags: str) -> None:
    bundle, folder = tmp_path / "tiny", tmp_path / "sessions"
    write_bundle(random_model(config([32, 32], [512, 4], [mamba2(), transformer()]), seed=2), bundle, "tiny", "fp32")
    rng = random.Random(4)
    conversations = [Conversation(f"session-{k}") for k in range(SESSIONS)]
    for round_number in range(rounds):
        with serve(bundle, *flags) as server:
            if round_number == 0:
                for conversation in conversations:
                    requests.post(f"{server.url}/v1/sessions", json={"id": conversation.id}, timeout=10)
            else:
                assert not list(folder.glob("*.tmp"))
                for conversation in conversations:
                    settle(server, conversation)
            threads = [
                threading.Thread(target=converse, args=(server, c, random.Random(rng.random()))) for c in conversations
            ]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.05, 0.6))
            server.process.kill()
            for thread in threads:
                thread.join()
    assert all(len(c.acknowledged) > rounds for c in conversations)
