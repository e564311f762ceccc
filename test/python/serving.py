"""Runs the built server for tests that speak to it from Python."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    def metric(self, name: str) -> float:
        """Value of a metric without labels."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        match = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert match, f"no metric {name}"
        return float(match[1])


@contextlib.contextmanager
def serve(bundle: Path, *flags: str) -> Iterator[Server]:
    """A server of its own on a free port, stopped at the end. `npm run build` must have been run."""
    main = ROOT / "dist" / "cli" / "main.js"
    assert main.exists(), "run `npm run build` first"
    command = ["node", str(main), "serve", "--model", str(bundle), "--port", "0", "--log-level", "error", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield Server(_read_address(process), process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _read_address(process: subprocess.Popen[str]) -> str:
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"listening on (http://\S+)", line):
            return match[1]
    raise AssertionError("the server did not start:\n" + "".join(said))
