"""Runs the project's scripts in processes of their own, without the seconds in which each would import PyTorch."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds after which a program is killed."""


def run_script(
    name: str, *arguments: object, processes: int = 1, afresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """`python scripts/NAME ARGUMENTS...`: what it says and its exit code.

    It is forked from a process that has imported what is not ours; `afresh`, it is started as users start it. At least
    one test of a script that imports much must do that: it would find what the script forgot to import.

    `processes`: as many as that, joined as `torchrun` joins them, and by `torchrun` itself if `afresh`. The exit code is
    the first that is not 0.
    """
    command = [str(ROOT / "scripts" / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        if afresh:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            command = [sys.executable, *(launcher if processes > 1 else []), *command]
            environment["TMPDIR"] = folder  # torchrun leaves its logs
            return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
        if processes > 1:
            size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            environment |= {**size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        programs = []
        for rank in range(processes):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            files = {"stdout": f"{folder}/{rank}.out", "stderr": f"{folder}/{rank}.err"}
            program = {"arguments": command, "environment": environment | place, **files}
            programs.append({**program, "folder": os.getcwd(), "limit": LIMIT})
        codes = _ask_host(programs)
        said = ["".join(Path(program[name]).read_text() for program in programs) for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(command, next((code for code in codes if code), 0), *said)


def _ask_host(programs: list[dict[str, object]]) -> list[int]:
    """The exit codes of programs that run side by side."""
    host = _host()
    assert host.stdin is not None
    assert host.stdout is not None
    host.stdin.write(json.dumps(programs) + "\n")
    host.stdin.flush()
    return json.loads(host.stdout.readline())


@functools.cache
def _host() -> subprocess.Popen[str]:
    """It ends when this process does: its standard input is closed then."""
    command = [sys.executable, str(Path(__file__).with_name("program_host.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
