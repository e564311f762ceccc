"""What the server does when things go wrong around it; the outcome of each fault is what its test says."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import requests
from serving import ROOT, Server, serve

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    write_bundle(random_model(config([32, 32], [512, 4], [mamba2(), transformer()]), seed=2), path, "tiny", "fp32")
    return path


def complete(server: Server, **body: Any) -> requests.Response:
    return requests.post(f"{server.url}/v1/completions", json={"temperature": 0, **body}, timeout=60)


def text_of(answer: requests.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def wait_until(holds: Callable[[], bool]) -> None:
    """Asks until it holds; the limit only ends a test that hangs."""
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def what_ends(one: socket.socket) -> bytes:
    """What a connection says before it is closed; nothing if it is reset."""
    try:
        return one.recv(1000)
    except ConnectionError:
        return b""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_new_sessions_and_loses_none(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, 200_000):
        kept = []
        with serve(bundle, "--session-dir", str(folder)) as server:
            for i in range(1000):
                requests.post(f"{server.url}/v1/sessions", json={"id": f"s{i}"}, timeout=10)
                answer = complete(server, prompt=f"story {i}", max_tokens=8, session_id=f"s{i}")
                if answer.status_code != 200:
                    break
                kept.append(i)
            if answer.status_code == 503:
                assert answer.json()["error"]["code"] == "store_unavailable"
            else:
                assert answer.status_code == 404, "its session could not even be made"
            assert 3 < len(kept) < 1000
            text_of(complete(server, prompt="no session", max_tokens=8))
        with serve(bundle, "--session-dir", str(folder)) as server:
            assert not list(folder.glob("*.tmp"))
            requests.delete(f"{server.url}/v1/sessions/s{kept.pop()}", timeout=10).raise_for_status()
            for i in kept:
                whole = text_of(complete(server, prompt=f"story {i}", max_tokens=12))
                state = requests.get(f"{server.url}/v1/sessions/s{i}", timeout=10).json()
                assert state["bytes"] == len(f"story {i}") + 8
                assert whole.endswith(text_of(complete(server, max_tokens=4, session_id=f"s{i}"))) or "\ufffd" in whole


def test_sigterm_under_load_loses_no_accepted_request(bundle: Path) -> None:
    """Four streams that only their readers end hold every slot, so that it is certain what waits when the signal comes."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(bundle, "--slots", "4", "--shutdown-seconds", "120"))
        endless = {"prompt": "e", "max_tokens": 1_000_000, "stream": True}
        held = [requests.post(f"{server.url}/v1/completions", json=endless, stream=True, timeout=60) for _ in range(4)]
        for one in held:
            stack.callback(one.close)
        answers: list[requests.Response] = []
        streams: list[str] = []

        def plain() -> None:
            answers.append(complete(server, prompt="x", max_tokens=300))

        def stream() -> None:
            body = {"prompt": "y", "max_tokens": 300, "stream": True}
            with requests.post(f"{server.url}/v1/completions", json=body, stream=True, timeout=60) as answer:
                streams.append(answer.text)

        threads = [threading.Thread(target=target) for target in [plain, stream] * 8]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.metric("mblm_requests_running") == 4)
        wait_until(lambda: server.metric("mblm_requests_waiting") == 16)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: requests.get(f"{server.url}/health", timeout=10).status_code == 503)
        refused = complete(server, prompt="z")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        for one in held:
            lines = one.iter_lines(chunk_size=1024)
            for _ in range(1000):
                assert b'"error"' not in next(lines)
            one.close()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 8
        assert all(answer.json()["usage"]["completion_tokens"] == 300 for answer in answers)
        assert len(streams) == 8
        for text in streams:
            events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
            assert events[-1]["choices"][0]["finish_reason"] == "length"
            assert text.rstrip().endswith("data: [DONE]")
        assert server.process.wait(60) == 0


def test_a_second_signal_ends_at_once(bundle: Path) -> None:
    with serve(bundle) as server:
        body = {"prompt": "y", "max_tokens": 1_000_000, "stream": True}
        with requests.post(f"{server.url}/v1/completions", json=body, stream=True, timeout=60):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(1.2)  # within a second, it is the same signal seen twice
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 130


def test_heads_that_never_end_are_cut_off_and_hold_nobody_up(bundle: Path) -> None:
    with serve(bundle, "--header-seconds", "1") as server:
        address = urlparse(server.url)
        with contextlib.ExitStack() as stack:
            sockets = []
            for _ in range(200):
                one = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
                # At once: the first may be cut off while the last are opened.
                one.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                sockets.append(one)
            text_of(complete(server, prompt="x", max_tokens=4))
            said = [what_ends(one) for one in sockets]
        assert all(text == b"" or text.startswith(b"HTTP/1.1 408") for text in said)
        assert any(said)
        text_of(complete(server, prompt="x", max_tokens=4))


def test_a_reader_that_stalls_holds_nobody_up(bundle: Path) -> None:
    """Its sequence runs to its end and frees its slot; what it does not read is bounded by `max_tokens`."""
    with serve(bundle, "--slots", "2", "--max-new-bytes", "20000") as server:
        address = urlparse(server.url)
        body = json.dumps({"prompt": "x", "max_tokens": 20_000, "stream": True}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        stalled = []
        for _ in range(4):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect((address.hostname, address.port))
            one.sendall(head.encode() + b"\r\n\r\n" + body)
            stalled.append(one)
        text_of(complete(server, prompt="me too", max_tokens=100))
        wait_until(lambda: server.metric("mblm_requests_running") + server.metric("mblm_requests_waiting") == 0)
        for one in stalled:
            one.close()


@pytest.mark.parametrize("name", ["manifest.json", "weights", "graph"])
def test_a_damaged_bundle_is_one_clear_line(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    files = sorted(copy.iterdir(), key=lambda file: file.stat().st_size)
    target = {"manifest.json": copy / "manifest.json", "weights": files[-1]}.get(name) or next(copy.glob("*.onnx"))
    for damage in ["changed", "missing"]:
        content = target.read_bytes()
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1])) if damage == "changed" else target.unlink()
        command = ["node", str(ROOT / "dist/cli/main.js"), "serve", "--model", str(copy), "--port", "0"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 2, run.stderr
        assert run.stderr.startswith("mblm-server: ")
        assert len(run.stderr.strip().splitlines()) == 1
        target.write_bytes(content)
