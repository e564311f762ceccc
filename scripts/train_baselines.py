#!/usr/bin/env python3
"""Trains the baselines of visual questions on shards and writes their answers to a test set, for scripts/evaluate.py.

    python scripts/train_baselines.py --shards data/shards --data data/clevr --split val --out runs/baselines.json

Question-type mode, question-only LSTM, and CNN+LSTM (convolutions from scratch on the very pixels that the byte model reads).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from multiscale.arguments import require_at_least, require_device
from multiscale.vqa.answers_file import write_answers
from multiscale.vqa.baselines import TypeMode, Vocabulary, lstm_answers, read_blocks, train_lstm
from multiscale.vqa.data.blocks import read_clevr
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.scores import shares, table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="training data (scripts/make_clevr.py)")
    parser.add_argument("--limit-shards", type=int, help="read only this many")
    parser.add_argument("--data", type=Path, required=True, help="CLEVR folder of the test set")
    parser.add_argument("--split", default="val", help="default: val")
    parser.add_argument("--steps", type=int, default=12_000, help="for each network (default: 12000)")
    parser.add_argument("--batch", type=int, default=512, help="questions of a step (default: 512)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read images")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        require_at_least(1, arguments, "steps", "batch", "limit_shards", "workers")
        require_device(arguments.device)
        training = read_blocks(arguments.shards, arguments.limit_shards)
        layout = ShardPlan.read(arguments.shards).layout
        test = read_clevr(arguments.data, arguments.split, None, layout.image, arguments.workers)
    except (ValueError, OSError) as error:
        print(f"train_baselines.py: {error}", file=sys.stderr)
        return 2
    answers = {"question-type mode": TypeMode(training).answers(test)}
    vocabulary = Vocabulary(training.questions)
    questions = vocabulary.encode(training.questions)
    for name, with_image in (("LSTM, question only", False), ("CNN+LSTM", True)):
        model = train_lstm(training, questions, with_image, arguments.device, arguments.steps, arguments.batch)
        answers[name] = lstm_answers(model, vocabulary, test)
    write_answers(arguments.out, test, answers)
    print(table({name: shares(test, given) for name, given in answers.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
