"""The built server as a child process, and a client that times its stream."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CLI = ROOT / "dist" / "cli" / "main.js"


@dataclass(frozen=True)
class StreamTiming:
    """One streamed completion, seen from outside."""

    num_bytes: int
    first_byte_seconds: float
    """From sending the request to the first byte."""
    bytes_per_second: float
    """From the first piece to the last; the first piece's bytes are not counted."""


class Server:
    """`mblm-server serve` on a free port; use as a context manager."""

    def __init__(self, bundle: Path, slots: int = 16):
        command = [
            "node",
            CLI,
            "serve",
            "--model",
            bundle,
            "--port",
            "0",
            "--slots",
            str(slots),
            "--log-level",
            "error",
        ]
        self._process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
        self.port = self._read_port()

    def _read_port(self) -> int:
        for line in self._process.stdout:
            match = re.search(r"listening on http://[^:]+:(\d+)", line)
            if match:
                return int(match.group(1))
        raise RuntimeError(f"the server did not start (exit code {self._process.wait()})")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def stream(self, prompt: str | list[int], num_bytes: int, exactly: bool = True, **fields: Any) -> StreamTiming:
        """Streams (exactly or up to) `num_bytes` bytes. Nothing is found in the prefix cache unless a salt is given."""
        body = {"prompt": prompt, "max_tokens": num_bytes, "ignore_eos": True, "stream": True, "return_token_ids": True}
        body["cache_salt"] = uuid.uuid4().hex
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        started = time.perf_counter()
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps({**body, "seed": 1, **fields}), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read()[:300]!r}")
        arrivals: list[tuple[float, int]] = []
        for line in response:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["token_ids"]:
                    arrivals.append((time.perf_counter(), len(choices[0]["token_ids"])))
        connection.close()
        total = sum(count for _, count in arrivals)
        if exactly and total != num_bytes:
            raise RuntimeError(f"{total} bytes arrived instead of {num_bytes}")
        (first, first_count), (last, _) = arrivals[0], arrivals[-1]
        rate = (total - first_count) / max(last - first, 1e-9)
        return StreamTiming(total, first - started, rate)

    def score(self, content: bytes) -> float:
        """Bytes per second of /v1/score."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        started = time.perf_counter()
        connection.request("POST", "/v1/score", content)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["bytes"] / (time.perf_counter() - started)


def engine_bytes_per_second(bundle: Path, num_bytes: int) -> float:
    """The engine without HTTP or threads: `mblm-server generate`'s own statistics."""
    command = [
        "node",
        CLI,
        "generate",
        "The ",
        "--model",
        bundle,
        "--max-bytes",
        num_bytes,
        "--seed",
        "1",
        "--out",
        "/dev/null",
    ]
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return float(re.search(r"\((\d+) bytes/s\)", result.stderr).group(1))
