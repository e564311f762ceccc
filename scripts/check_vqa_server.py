#!/usr/bin/env python3
"""Compares a running server's answers to questions about images with Python's, one by one.

    node dist/cli/main.js serve --model models/clevr &
    python scripts/check_vqa_server.py --url http://127.0.0.1:8000 --bundle models/clevr --data data/clevr --questions 2000

`--data` is in CLEVR's layout: images/SPLIT/*.png and questions/CLEVR_SPLIT_questions.json. The reference preprocesses with
Pillow and runs the bundle's graphs byte by byte; with --torch it is PyTorch's full forward of the bundle's weights, which
differs by the rounding of the precision.
Exits 1 if an answer differs (other than between two that the reference has equal within the tolerance) or a log-prob is
further off than that, 2 on bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch

from multiscale.vqa.ask_bundle import GraphAsker, TorchAsker, read_layout
from multiscale.vqa.layout import VqaLayout
from multiscale.vqa.preprocess import image_content

QUESTIONS_PER_REQUEST = 32
TOLERANCE = 1e-3


@dataclass
class Report:
    """What was compared."""

    num_questions: int = 0
    num_equal: int = 0
    num_right: int = 0
    worst: float = 0.0
    """Largest |difference| of any answer's log-prob."""
    seconds: float = 0.0
    """Until the server answered, preprocessing included."""
    problems: list[str] = field(default_factory=list)

    def describe(self) -> str:
        return (
            f"{self.num_questions} questions: {self.num_equal} equal answers, {self.num_right} right "
            f"({self.num_right / self.num_questions:.1%}); worst |difference of log-probs| {self.worst:.1e}; "
            f"{1000 * self.seconds / self.num_questions:.1f} ms per question"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="base URL of the server")
    parser.add_argument("--bundle", required=True, type=Path, help="the bundle that it serves")
    parser.add_argument("--data", required=True, type=Path, help="folder in CLEVR's layout")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument(
        "--questions", type=int, default=2000, help="how many, from the first on (default: %(default)s)"
    )
    parser.add_argument("--torch", action="store_true", help="compare with PyTorch instead of the bundle's graphs")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="in nats (default: %(default)s)")
    return parser.parse_args()


def by_image(data: Path, split: str, count: int) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Images with their questions, `count` in all. Raises ValueError for what is not in CLEVR's layout."""
    path = data / "questions" / f"CLEVR_{split}_questions.json"
    try:
        questions = json.loads(path.read_text())["questions"][:count]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"--data: {path} has no questions ({error})") from None
    groups: dict[str, list[dict[str, Any]]] = {}
    for question in questions:
        groups.setdefault(question["image_filename"], []).append(question)
    for name, group in groups.items():
        for first in range(0, len(group), QUESTIONS_PER_REQUEST):
            yield data / "images" / split / name, group[first : first + QUESTIONS_PER_REQUEST]


def ask_server(url: str, file: bytes, questions: list[str], layout: VqaLayout) -> tuple[list[str], np.ndarray]:
    """Answers, and log-probs (questions, answers). Raises ValueError with what the server says."""
    form = [("question", (None, question)) for question in questions]
    form += [("top_answers", (None, str(len(layout.answers)))), ("image", ("image", file))]
    answer = requests.post(f"{url}/v1/vqa", files=form, timeout=300)
    if answer.status_code != 200:
        raise ValueError(f"the server says {answer.status_code}: {answer.text}")
    entries = answer.json()["answers"]
    rated = [{top["answer"]: top["logprob"] for top in entry["top_answers"]} for entry in entries]
    return [entry["answer"] for entry in entries], np.array([[row[text] for text in layout.answers] for row in rated])


def compare(arguments: argparse.Namespace) -> Report:
    layout, report = read_layout(arguments.bundle), Report()
    asker = (TorchAsker if arguments.torch else GraphAsker)(arguments.bundle)
    names = list(layout.answers)
    for path, group in by_image(arguments.data, arguments.split, arguments.questions):
        file, questions = path.read_bytes(), [entry["question"] for entry in group]
        started = time.perf_counter()
        answers, given = ask_server(arguments.url, file, questions, layout)
        report.seconds += time.perf_counter() - started
        expected = asker.log_probs(image_content(file, layout.image), questions)
        report.num_questions += len(group)
        report.worst = max(report.worst, float(np.abs(given - expected).max()))
        for entry, answer, row in zip(group, answers, expected, strict=True):
            report.num_right += answer == entry.get("answer")
            report.num_equal += answer == names[row.argmax()]
            if row.max() - row[names.index(answer)] > arguments.tolerance:
                report.problems.append(f"{path.name}: {entry['question']} {answer}, expected {names[row.argmax()]}")
    if report.num_questions == 0:
        raise ValueError("--data: has no questions")
    if report.worst > arguments.tolerance:
        report.problems.append(f"a log-prob is {report.worst:.1e} off; accepted is {arguments.tolerance:g}")
    return report


def main() -> int:
    torch.set_num_threads(1)
    try:
        report = compare(parse_arguments())
    except (ValueError, OSError) as error:
        print(f"check_vqa_server: {error}", file=sys.stderr)
        return 2
    print(report.describe())
    for problem in report.problems[:20]:
        print(problem)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
