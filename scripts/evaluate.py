#!/usr/bin/env python3
"""Measures a model on whole files.

    python scripts/evaluate.py text --bundle models/books --data BOOK.txt OTHER.txt
    python scripts/evaluate.py text --checkpoint runs/mine/mine.pth --config mine.yaml --data FOLDER --context 65536

`text` prints bits per byte of every file and over all, beside xz and zstd on the same files. A file is read in windows of
`--context` bytes; each window starts from nothing, so longer windows flatter the model and shorter ones do not.
A bundle is measured in PyTorch with the very weights that it serves (8-bit weights widened, activations in float32).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import torch

from multiscale.bench.compressors import compressed_bits_per_byte
from multiscale.data.corpus import Corpus, find_files
from multiscale.export.read_bundle import load_model
from multiscale.model.checkpoint import load_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = parser.add_subparsers(dest="task", required=True).add_parser("text", help="bits per byte of whole files")
    source = text.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="bundle folder")
    source.add_argument("--checkpoint", type=Path, help="checkpoint file; needs --config")
    text.add_argument("--config", type=Path, help="YAML of the checkpoint")
    text.add_argument("--data", type=Path, nargs="+", required=True, help="files or folders")
    text.add_argument("--context", type=int, help="bytes per window (default: the trained context)")
    text.add_argument("--limit-bytes", type=int, help="read only this many bytes of each file")
    text.add_argument("--json", type=Path, help="also write the results to this file")
    text.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def read_model(arguments: argparse.Namespace) -> MultiscaleByteModel:
    if arguments.bundle is not None:
        return load_model(arguments.bundle)
    if arguments.config is None:
        raise ValueError("--checkpoint needs --config")
    return load_checkpoint(arguments.checkpoint, ModelConfig.from_yaml(arguments.config))


@torch.inference_mode()
def total_bits(model: MultiscaleByteModel, content: bytes, context: int, device: str) -> float:
    """Bits that the model needs for the content, in windows of `context` bytes."""
    ids, nats = torch.frombuffer(bytearray(content), dtype=torch.uint8).long(), 0.0
    for window in ids.split(context):
        batch = window[None].to(device)
        logits = model.aligned_logits(batch)[0].float()
        nats += torch.nn.functional.cross_entropy(logits, batch[0], reduction="sum").item()
    return nats / math.log(2)


def main() -> int:
    arguments = parse_arguments()
    try:
        model = read_model(arguments).to(arguments.device)
        files = [path for item in arguments.data for path in find_files(item)]
        context = arguments.context or model.config.context_length
        if arguments.limit_bytes is not None and arguments.limit_bytes < 1:
            raise ValueError(f"--limit-bytes: {arguments.limit_bytes} is not at least 1")
        if context < 1:
            raise ValueError(f"--context: {context} is not at least 1")
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    rows = []
    for path in files:
        corpus = Corpus([path])
        content = corpus.read(0, min(len(corpus), arguments.limit_bytes or len(corpus))).tobytes()
        model_bits = total_bits(model, content, context, arguments.device) / len(content)
        rows.append(
            {"file": path.name, "bytes": len(content), "model": model_bits, **compressed_bits_per_byte(content)}
        )
        print(
            "  ".join(
                f"{key} {value:.4f}" if isinstance(value, float) else f"{value}" for key, value in rows[-1].items()
            )
        )
    size = sum(row["bytes"] for row in rows)
    names = [key for key in rows[0] if key not in ("file", "bytes")]
    overall = {name: sum(row[name] * row["bytes"] for row in rows) / size for name in names}
    print(
        f"all {len(rows)} files, {size} bytes, windows of {context}:  "
        + "  ".join(f"{k} {v:.4f}" for k, v in overall.items())
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"context": context, "files": rows, "overall": overall}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
