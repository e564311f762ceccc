"""The WebSocket protocol as an independent client speaks it, and streams that survive the server's death."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from serving import Server, serve
from valkey import needs_valkey, run_valkey, shorten_locks
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import write_bundle

PROTOCOL = "mblm.stream.v1"
LOCK_MILLISECONDS = 3000
"""What is left of a dead server's locks: long enough that the next one meets them. `test_sessions_kill` waits for whole ones."""
STORES = ["disk", pytest.param("valkey", marks=needs_valkey)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    write_bundle(random_model(config([32, 32], [512, 4], [mamba2(), transformer()]), seed=2), path, "tiny", "fp32")
    return path


def open_stream(server: Server) -> ClientConnection:
    return connect(server.url.replace("http", "ws") + "/v1/stream", subprotocols=[PROTOCOL])


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps({"stream": 7, **message}))


def push(socket: ClientConnection, data: bytes) -> None:
    socket.send((7).to_bytes(4, "little") + data)


def read_until(socket: ClientConnection, kind: str) -> tuple[bytes, dict[str, Any]]:
    """Bytes of the stream up to a message of a kind, and the message."""
    received = b""
    while True:
        frame = socket.recv(timeout=60)
        if isinstance(frame, bytes):
            assert frame[:4] == (7).to_bytes(4, "little")
            received += frame[4:]
            continue
        message = json.loads(frame)
        assert message["type"] == kind or message["type"] in ("ack", "opened"), message
        if message["type"] == kind:
            return received, message


def complete(server: Server, prompt: bytes, **options: Any) -> bytes:
    body = {"prompt": list(prompt), "return_token_ids": True, **options}
    answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return bytes(answer.json()["choices"][0]["token_ids"])


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serve(bundle) as running:
        yield running


def test_pushes_and_generates(server: Server) -> None:
    with open_stream(server) as socket:
        assert socket.subprotocol == PROTOCOL
        say(socket, type="open")
        # A message in fragments.
        socket.send([(7).to_bytes(4, "little"), b"Once ", b"", b"upon"], text=False)
        push(socket, b" a time")
        say(socket, type="generate", max_tokens=40, temperature=0)
        received, finished = read_until(socket, "finished")
        assert received == complete(server, b"Once upon a time", max_tokens=40, temperature=0)
        assert finished["bytes"] == 16 + 40
        assert finished["frame"] == 3
        assert socket.ping().wait(10)


def test_is_closed_for_frames_that_are_too_large(server: Server) -> None:
    with open_stream(server) as socket:
        socket.send(bytes((1 << 20) + 1))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("checkpoint", [0, 50])
def test_goes_on_when_the_server_was_killed(bundle: Path, store: str, checkpoint: int, tmp_path: Path) -> None:
    """The client skips what it had received and the server has to say again: with a seed, it is the same."""
    prompt, options = b"Call me ", {"max_tokens": 3000, "temperature": 0.9, "seed": 11, "stop": "qqq"}
    received = b""
    with run_valkey() if store == "valkey" else contextlib.nullcontext(None) as url:
        flags = ["--session-dir", str(tmp_path)] if url is None else ["--session-url", url]
        flags += ["--session-checkpoint-bytes", str(checkpoint)]
        said = 0
        for kill_after in [300, 400, 900, None]:
            with serve(bundle, *flags) as server, open_stream(server) as socket:
                say(
                    socket,
                    type="open",
                    session_id="survivor",
                    create=True,
                    take_over=True,
                    received_bytes=len(received),
                    received_messages=0,
                )
                opened = json.loads(socket.recv(timeout=30))
                while opened["type"] == "error" and opened["error"]["code"] == "session_conflict":
                    say(socket, type="open", session_id="survivor", take_over=True, received_bytes=len(received))
                    opened = json.loads(socket.recv(timeout=30))  # the dead holder's lock runs out
                assert opened["type"] == "opened", opened
                assert opened["said_bytes"] >= said, "what was kept once is kept"
                if checkpoint:
                    assert len(received) - opened["said_bytes"] < 2 * checkpoint + 100
                said = opened["said_bytes"]
                skip = max(0, len(received) - said)
                if opened["frames"] == 0:
                    push(socket, prompt)
                say(socket, type="generate", **options)
                if kill_after is None:
                    rest, finished = read_until(socket, "finished")
                    received += rest[skip:]
                    assert finished["usage"]["completion_tokens"] == 3000
                    assert received == complete(server, prompt, **options)
                    return
                new = b""
                while len(new) < skip + kill_after:
                    frame = socket.recv(timeout=30)
                    new += frame[4:] if isinstance(frame, bytes) else b""
                received += new[skip:]
                server.process.kill()
                if url is not None:
                    server.process.wait()
                    shorten_locks(url, LOCK_MILLISECONDS)
