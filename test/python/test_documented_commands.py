"""Commands of README and docs are read by the programs' own parsers: options, overrides, configs."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from multiscale.train.config import RunConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "models").glob("*/MODEL_CARD.md"))]


def shell_lines(page: Path) -> list[str]:
    """Lines of the page's shell blocks, continued ones joined, with what variables stand for."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines, variables = [], {}
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if (assigned := re.fullmatch(r'(\w+)="(.*)"', line)) is not None:
            variables[assigned[1]] = assigned[2]
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", lambda _, value=value: value, line)
        lines.append(line)
    return lines


def commands() -> list[tuple[str, list[str]]]:
    """(program, arguments)"""
    found = []
    for line in (line for page in PAGES for line in shell_lines(page) if "scripts/" in line):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words = list(lexer)
        for index, word in enumerate(words):
            if (program := re.fullmatch(r"scripts/(\w+)\.py", word)) is not None:
                rest = words[index + 1 :]
                end = next((k for k, item in enumerate(rest) if re.fullmatch(r"[;&|<>]+", item)), len(rest))
                found.append((program[1], rest[:end]))
    return found


COMMANDS = [(program, arguments) for program, arguments in commands() if "…" not in arguments[:1]]


def test_there_are_commands_of_every_kind() -> None:
    programs = {"train", "bench_training", "evaluate", "export", "make_clevr", "train_baselines", "check_parity"}
    assert programs <= {program for program, _ in COMMANDS}


@pytest.mark.parametrize(("program", "arguments"), COMMANDS, ids=[f"{p} {' '.join(a)}"[:60] for p, a in COMMANDS])
def test_the_program_understands_it(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"{program}.py", *arguments])
    understood = importlib.import_module(program).parse_arguments()
    if program == "train" and understood.config.exists():
        RunConfig.from_yaml(understood.config, understood.overrides)


@pytest.mark.parametrize("program", ["train", "bench_training"])
def test_overrides_may_stand_anywhere(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"train": ["--config", "x.yaml", "--resume"], "bench_training": ["--steps", "2", "--compile"]}[program]
    line = ["train.seed=1", *options[:2], "train.batch_size=2", *options[2:], "io.description=a"]
    monkeypatch.setattr(sys, "argv", [f"{program}.py", *line])
    given = importlib.import_module(program).parse_arguments().overrides
    assert given == ["train.seed=1", "train.batch_size=2", "io.description=a"]
