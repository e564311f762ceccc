"""A real Valkey server for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from urllib.parse import urlparse

import pytest

BINARY = shutil.which("valkey-server") or shutil.which("redis-server")
if BINARY is None and os.environ.get("REQUIRE_VALKEY"):
    raise RuntimeError("neither valkey-server nor redis-server is installed")

needs_valkey = pytest.mark.skipif(BINARY is None, reason="neither valkey-server nor redis-server is installed")


@contextlib.contextmanager
def run_valkey() -> Iterator[str]:
    """Its URL. What is acknowledged is on its disk."""
    assert BINARY is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [BINARY, "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if "Ready to accept connections" in line:
                        break
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.kill()


def shorten_locks(url: str, milliseconds: int) -> None:
    """Lets the locks of sessions run out after so long at most: as if the server that held them had died earlier."""
    script = f"""
    for _, key in ipairs(redis.call('KEYS', '*:lock')) do
      redis.call('PEXPIRE', key, {milliseconds}, 'LT')
    end"""
    address = urlparse(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        parts = ["EVAL", script, "0"]
        connection.sendall(f"*{len(parts)}\r\n".encode() + b"".join(f"${len(p)}\r\n{p}\r\n".encode() for p in parts))
        answer = connection.recv(1000)
    assert answer.startswith(b"$-1"), answer
