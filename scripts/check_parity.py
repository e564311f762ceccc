#!/usr/bin/env python3
"""Compares an existing bundle with the checkpoint it was exported from.

    python scripts/check_parity.py models/books --checkpoint runs/books/books.pth --config scripts/configs/books.yaml

Three comparisons, each over every position of prompts of awkward lengths (or of windows of --text), fed byte by byte and
prefilled in chunks: with the PyTorch model; with --reference, with the reference package's own forward; and for reduced
precision, with PyTorch running the weights that the bundle holds. The last leaves only the arithmetic: none for fp16,
which computes in float32 and is held to that tolerance; the rounding of activations for int8.
Exits 1 if any of them is outside its tolerance or a file differs from the manifest, 2 on bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multiscale.export.bundle_writer import read_manifest
from multiscale.export.read_bundle import load_model, read_config
from multiscale.export.validate import compare, forward_logits, random_prompts
from multiscale.model.checkpoint import load_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.parity.integrity import file_problems
from multiscale.parity.reference import reference_logits
from multiscale.parity.text_windows import text_windows

Logits = Callable[[list[int]], np.ndarray]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint file: {MODEL, LOSS}")
    parser.add_argument("--config", required=True, type=Path, help="YAML whose `params:` describe the model")
    parser.add_argument("--reference", action="store_true", help="compare with the reference package mblm as well")
    parser.add_argument("--text", type=Path, help="prompts from this file instead of random bytes")
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.bundle
    failures = file_problems(folder)
    if failures:
        return report(failures)
    model = load_checkpoint(arguments.checkpoint, ModelConfig.from_yaml(arguments.config))
    held = read_config(folder)
    if any(getattr(held, key) != getattr(model.config, key) for key in ("blocks", "hidden_dims", "seq_lens")):
        raise ValueError(f"{folder} holds another architecture than {arguments.config}")
    precision = read_manifest(folder)["precision"]
    longest = model.config.context_length
    prompts = text_windows(arguments.text, longest) if arguments.text else random_prompts(model.config)
    sources: list[tuple[str, Logits, str]] = [("the PyTorch model", forward_logits(model), precision)]
    if arguments.reference:
        sources.append(("the reference package", reference_logits(arguments.checkpoint, model.config), precision))
    if precision != "fp32":
        sources += own_weights(folder, precision)
    for name, logits, tolerance in sources:
        comparison = compare(folder, logits, prompts)
        print(f"{folder.name} and {name}: {comparison.describe(tolerance)}")
        if not comparison.is_acceptable(tolerance):
            failures.append(f"outside the tolerance against {name}")
    return report(failures)


def own_weights(folder: Path, precision: str) -> list[tuple[str, Logits, str]]:
    """The bundle's weights in PyTorch, where they can be read back; says so where not."""
    try:
        model = load_model(folder)
    except ValueError as error:
        print(f"not compared with its own weights in PyTorch: {error}")
        return []
    return [("its own weights in PyTorch", forward_logits(model), "fp32" if precision == "fp16" else precision)]


def report(failures: list[str]) -> int:
    for failure in failures:
        print(f"check_parity.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    try:
        return check(parse_arguments())
    except (ValueError, OSError) as error:
        print(f"check_parity.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
