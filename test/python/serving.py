"""Runs the built server for tests that speak to it from Python."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[2]


class InspectorSession:
    """Calls to Node's inspector, of the main thread and of the workers that `NodeWorker.enable` tells of."""

    def __init__(self, socket: ClientConnection):
        self._socket, self._last = socket, 0
        self.workers: list[str] = []
        """Sessions of the worker threads."""

    def call(self, method: str, thread: str | None = None, **params: Any) -> dict[str, Any]:
        """The result; of the worker whose session `thread` is."""
        self._last += 1
        call = {"id": self._last, "method": method, "params": params}
        if thread is not None:
            message = {"sessionId": thread, "message": json.dumps(call)}
            call = {"id": -self._last, "method": "NodeWorker.sendMessageToWorker", "params": message}
        self._socket.send(json.dumps(call))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("method") == "NodeWorker.attachedToWorker":
                self.workers.append(said["params"]["sessionId"])
            if said.get("method") == "NodeWorker.receivedMessageFromWorker":
                said = json.loads(said["params"]["message"])
            assert "error" not in said, said
            if said.get("id") == self._last:
                return said["result"]


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]
    inspector: str | None = None
    """Address of Node's inspector, if asked for."""

    def memory(self) -> dict[str, int]:
        """`process.memoryUsage()` after a full garbage collection: without one, it says how busy the server was.

        What JavaScript holds is summed over the process's threads; `rss` is the process's.
        """
        assert self.inspector is not None
        with connect(self.inspector, max_size=None, ping_interval=None) as socket:
            session = InspectorSession(socket)
            session.call("NodeWorker.enable", waitForDebuggerOnStart=False)
            threads = [None, *session.workers]
            for thread in threads:
                session.call("HeapProfiler.collectGarbage", thread=thread)
            usages = [
                session.call("Runtime.evaluate", thread, expression="process.memoryUsage()", returnByValue=True)
                for thread in threads
            ]
        total: dict[str, int] = {}
        for usage in usages:
            for name, size in usage["result"]["value"].items():
                total[name] = size if name == "rss" else total.get(name, 0) + size
        return total

    def metric(self, name: str) -> float:
        """Value of a metric, summed over its labels."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        assert values, f"no metric {name}"
        return sum(map(float, values))


@contextlib.contextmanager
def serve(bundle: Path | list[Path], *flags: str, inspect: bool = False) -> Iterator[Server]:
    """A server of its own on a free port, stopped at the end. `npm run build` must have been run."""
    main = ROOT / "dist" / "cli" / "main.js"
    assert main.exists(), "run `npm run build` first"
    node = ["node", *(["--inspect=127.0.0.1:0"] if inspect else [])]
    model = ",".join(map(str, bundle)) if isinstance(bundle, list) else str(bundle)
    command = [*node, str(main), "serve", "--model", model, "--port", "0", "--log-level", "error", *flags]
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
