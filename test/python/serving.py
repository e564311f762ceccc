"""Runs the built server for tests that speak to it from Python."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from websockets.sync.client import connect

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]
    inspector: str | None = None
    """Address of Node's inspector, if asked for."""

    def memory(self) -> dict[str, int]:
        """`process.memoryUsage()` after a full garbage collection: without one, it says how busy the server was."""
        assert self.inspector is not None
        with connect(self.inspector, max_size=None, ping_interval=None) as socket:
            calls = [
                ("HeapProfiler.collectGarbage", {}),
                ("Runtime.evaluate", {"expression": "process.memoryUsage()", "returnByValue": True}),
            ]
            for number, (method, params) in enumerate(calls):
                socket.send(json.dumps({"id": number, "method": method, "params": params}))
                while (reply := json.loads(socket.recv())).get("id") != number:
                    pass
        return reply["result"]["result"]["value"]

    def metric(self, name: str) -> float:
        """Value of a metric, summed over its labels."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        assert values, f"no metric {name}"
        return sum(map(float, values))


@contextlib.contextmanager
def serve(bundle: Path, *flags: str, inspect: bool = False) -> Iterator[Server]:
    """A server of its own on a free port, stopped at the end. `npm run build` must have been run."""
    main = ROOT / "dist" / "cli" / "main.js"
    assert main.exists(), "run `npm run build` first"
    node = ["node", *(["--inspect=127.0.0.1:0"] if inspect else [])]
    command = [*node, str(main), "serve", "--model", str(bundle), "--port", "0", "--log-level", "error", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _wait_for(process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(process: subprocess.Popen[str]) -> Server:
    said = []
    inspector = None
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"Debugger listening on (ws://\S+)", line):
            inspector = match[1]
        if match := re.search(r"listening on (http://\S+)", line):
            return Server(match[1], process, inspector)
    raise AssertionError("the server did not start:\n" + "".join(said))
