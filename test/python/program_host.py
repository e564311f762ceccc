"""A process that has imported PyTorch, and forks programs that then need not.

It is asked by a line on standard input, a list of programs to run side by side, and answers with a list of their exit
codes. A program that takes too long is killed by SIGALRM.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("torch", "torch._dynamo", "torch.distributed.optim", "torch.utils.tensorboard", "matplotlib.pyplot", "onnx"),
    *("numpy.random", "PIL.Image", "pydantic", "requests", "tqdm", "yaml"),
)
"""What takes long to import. Not ONNX Runtime, which starts threads, and none of the project's own modules."""


def become(program: dict[str, Any]) -> None:
    """Runs a program as this process."""
    signal.alarm(program["limit"])
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    with open(os.devnull) as nothing, open(program["stdout"], "wb") as out, open(program["stderr"], "wb") as err:
        for number, file in enumerate((nothing, out, err)):
            os.dup2(file.fileno(), number)
    sys.argv = program["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would be missing in forks, with what it holds"
    while line := sys.stdin.readline():
        children = []
        for program in json.loads(line):
            child = os.fork()
            if child == 0:
                become(program)
                return
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
