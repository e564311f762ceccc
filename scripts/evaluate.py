#!/usr/bin/env python3
"""Measures a model on whole files.

    python scripts/evaluate.py text --bundle models/books --data BOOK.txt OTHER.txt
    python scripts/evaluate.py text --checkpoint runs/mine/mine.pth --config mine.yaml --data FOLDER --context 65536
    python scripts/evaluate.py position --checkpoint runs/mine/mine.pth --config mine.yaml --data BOOK.txt OTHER.txt
    python scripts/evaluate.py needle --checkpoint runs/mine/mine.pth --config mine.yaml --data BOOK.txt --distance 1000 100000
    python scripts/evaluate.py vqa --bundle models/mine --data data/clevr --baselines runs/baselines.json --out runs/vqa
    python scripts/evaluate.py vqa --checkpoint runs/mine/mine.pth --config mine.yaml --layout data/shards --data data/clevr

`text` prints bits per byte of every file and over all, beside xz and zstd on the same files. A file is read in windows of
`--context` bytes; each window starts from nothing, so longer windows flatter the model and shorter ones do not.
`position` reads whole files as one context each and prints bits per byte by position: where they fall, distance helps. With
`--window` also of the same bytes from a short context, which tells distance from a text that gets easier.
`needle` hides a number in a text and asks for it `--distance` bytes later; the digits are chosen among ten, by chance one in ten
is right. Both take memory for a part of the context at a time; a model with a table of positions reads up to its end.
`vqa` answers the questions of a folder in CLEVR's layout and prints accuracy by kind of question with 95 % intervals, beside
baselines if their answers are given (scripts/train_baselines.py); with --out also a plot and a page of examples.
A bundle is measured in PyTorch with the very weights that it serves (8-bit weights widened, activations in float32); with
`vqa --graphs` its graphs run instead, as in the server: slower, and the server's very answers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from pathlib import Path

import torch

from multiscale.arguments import require_at_least, require_device
from multiscale.bench.compressors import compressed_bits_per_byte
from multiscale.bench.long_context_plots import draw_needles, draw_positions
from multiscale.bench.long_contexts import (
    ask,
    bits_by_position,
    bits_in_windows,
    bits_of_bytes,
    interval,
    plant,
    position_bins,
)
from multiscale.data.corpus import Corpus, find_files
from multiscale.model.checkpoint import load_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.vqa.answering import answer_block
from multiscale.vqa.answers_file import read_answers
from multiscale.vqa.data.blocks import read_clevr
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.layout import VqaLayout
from multiscale.vqa.report import write_report
from multiscale.vqa.scores import shares, table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    text = tasks.add_parser("text", help="bits per byte of whole files")
    vqa = tasks.add_parser("vqa", help="accuracy of answers about images")
    position = tasks.add_parser("position", help="bits per byte by position in a file")
    needle = tasks.add_parser("needle", help="facts asked for far behind where they were told")
    for task in (text, position, needle, vqa):
        source = task.add_mutually_exclusive_group(required=True)
        source.add_argument("--bundle", type=Path, help="bundle folder")
        source.add_argument("--checkpoint", type=Path, help="checkpoint, file or folder of parts; needs --config")
        task.add_argument("--config", type=Path, help="YAML of the checkpoint")
        task.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for task in (text, position, needle):
        task.add_argument("--data", type=Path, nargs="+", required=True, help="files or folders")
        task.add_argument("--json", type=Path, help="also write the results to this file")
    position.add_argument("--limit-bytes", type=int, help="read only this many bytes of each file")
    position.add_argument(
        "--window", type=int, nargs="+", default=[], help="compare with contexts of at most so many bytes"
    )
    for task in (position, needle):
        task.add_argument("--plot", type=Path, help="also draw the results to this PNG")
    needle.add_argument("--length", type=int, help="bytes of a text up to the answer (default: the trained context)")
    needle.add_argument("--distance", type=int, nargs="+", required=True, help="bytes from the fact to the answer")
    needle.add_argument("--digits", type=int, default=5, help="of a number (default: 5)")
    needle.add_argument("--samples", type=int, default=20, help="texts per distance (default: 20)")
    needle.add_argument("--others", type=int, default=0, help="facts of other names told behind it (default: 0)")
    needle.add_argument(
        "--unaligned", action="store_true", help="begin fact and question at any byte: up to 7 bytes earlier than asked"
    )
    needle.add_argument("--seed", type=int, default=1)
    text.add_argument("--context", type=int, help="bytes per window (default: the trained context)")
    text.add_argument("--limit-bytes", type=int, help="read only this many bytes of each file")
    vqa.add_argument("--layout", type=Path, help="the checkpoint's shards, or their info.json")
    vqa.add_argument("--data", type=Path, required=True, help="CLEVR folder")
    vqa.add_argument("--graphs", action="store_true", help="run the bundle's graphs, as the server does (slow)")
    vqa.add_argument("--split", default="val", help="default: val")
    vqa.add_argument("--limit-images", type=int, help="read only this many images")
    vqa.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read images")
    vqa.add_argument("--baselines", type=Path, help="answers of baselines to the same questions")
    vqa.add_argument("--out", type=Path, help="folder for table, plot and page of examples")
    vqa.add_argument("--examples", type=int, default=24, help="images on the page (default: 24)")
    return parser.parse_args()


def read_model(arguments: argparse.Namespace) -> MultiscaleByteModel:
    if arguments.bundle is not None:
        from multiscale.export.read_bundle import load_model  # needs onnx, which checkpoints do not

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


def read_vqa_layout(arguments: argparse.Namespace) -> VqaLayout:
    if arguments.bundle is not None:
        from multiscale.vqa.ask_bundle import read_layout  # needs onnx, which checkpoints do not

        return read_layout(arguments.bundle)
    if arguments.layout is None:
        raise ValueError("--checkpoint needs --layout")
    return ShardPlan.read(arguments.layout).layout


def evaluate_vqa(arguments: argparse.Namespace) -> None:
    layout = read_vqa_layout(arguments)
    block = read_clevr(arguments.data, arguments.split, arguments.limit_images, layout.image, arguments.workers)
    baselines = read_answers(arguments.baselines, block) if arguments.baselines else {}
    if arguments.graphs:
        from multiscale.vqa.ask_bundle import graph_answers  # needs onnx, which checkpoints do not

        answers, probabilities = graph_answers(arguments.bundle, block)
    else:
        answers, probabilities = answer_block(read_model(arguments).to(arguments.device), layout, block)
    name = (arguments.bundle or arguments.checkpoint).stem
    results = {name: shares(block, answers)}
    results |= {other: shares(block, given) for other, given in baselines.items()}
    print(table(results))
    if arguments.out is not None:
        write_report(arguments.out, block, results, answers, probabilities, arguments.examples)
        print(f"wrote {arguments.out}")


def evaluate_text(arguments: argparse.Namespace) -> None:
    model = read_model(arguments).to(arguments.device)
    files = [path for item in arguments.data for path in find_files(item)]
    context = arguments.context or model.config.context_length
    rows = []
    for path in files:
        content = read_content(path, arguments.limit_bytes)
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


def evaluate_position(arguments: argparse.Namespace) -> None:
    model = read_model(arguments).to(arguments.device)
    limit = min(longest_context(model), arguments.limit_bytes or sys.maxsize)
    contents = [read_content(path, limit) for item in arguments.data for path in find_files(item)]
    bins = position_bins(max(len(content) for content in contents))
    bits = [bits_of_bytes(model, content, arguments.device) for content in contents]
    rows = bits_by_position(bits, bins)
    for window in arguments.window:
        bits = [bits_in_windows(model, content, window, arguments.device) for content in contents]
        for row, limited in zip(rows, bits_by_position(bits, bins), strict=True):
            row.setdefault("in_windows", {})[str(window)] = limited["bits_per_byte"]
    for row in rows:
        beside = "".join(f"  {bits:.4f} from {window}" for window, bits in row.get("in_windows", {}).items())
        print(
            f"{row['from']:>10} – {row['to']:<10} {row['bits_per_byte']:.4f} bits per byte{beside} "
            f"({row['bytes']} bytes of {row['files']} files)"
        )
    write_json(arguments.json, rows)
    if arguments.plot is not None:
        draw_positions(rows, arguments.plot)


def evaluate_needle(arguments: argparse.Namespace) -> None:
    model = read_model(arguments).to(arguments.device)
    length = arguments.length or model.config.context_length - arguments.digits
    if length + arguments.digits > longest_context(model):
        raise ValueError(f"--length: {length} bytes and the answer exceed the model's {longest_context(model)}")
    corpus = Corpus([path for item in arguments.data for path in find_files(item)])
    rows = []
    for distance in arguments.distance:
        right = total = 0
        for sample in range(arguments.samples):
            # Other text for every sample, as far as there is.
            offset = sample * length % max(1, len(corpus) - length)
            haystack = corpus.read(offset, min(length, len(corpus) - offset)).tobytes()
            seed, earlier = arguments.seed + sample, (0, 0)
            if arguments.unaligned:
                rng = random.Random(seed)
                earlier = rng.randrange(8), rng.randrange(8)
            needle = plant(
                haystack, distance - earlier[0], length - earlier[1], arguments.digits, seed, arguments.others
            )
            answered = ask(model, needle, arguments.device)
            right, total = right + answered[0], total + answered[1]
        low, high = interval(right, total)
        share = {"share": right / total, "low": low, "high": high, "chance": 0.1}
        rows.append({"distance": distance, "others": arguments.others, "right": right, "digits": total, **share})
        print(
            f"{distance:>10} bytes back: {right / total:.3f} of the digits right ({low:.3f} – {high:.3f}; chance 0.100)"
        )
    write_json(arguments.json, rows)
    if arguments.plot is not None:
        draw_needles(rows, arguments.plot)


def longest_context(model: MultiscaleByteModel) -> int:
    """Bytes up to where a table of positions ends."""
    return model.config.context_length if model.config.blocks[0].pos_emb_type == "fixed" else sys.maxsize


def read_content(path: Path, limit: int | None) -> bytes:
    """The first `limit` bytes of a file, which must have one."""
    corpus = Corpus([path])
    if len(corpus) == 0:
        raise ValueError(f"--data: {path} is empty")
    return corpus.read(0, min(len(corpus), limit or len(corpus))).tobytes()


def write_json(path: Path | None, results: object) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=2) + "\n")


COUNTS = ("limit_bytes", "context", "length", "distance", "digits", "samples", "limit_images", "workers")
"""Options that have to be at least 1."""
TASKS = {"text": evaluate_text, "position": evaluate_position, "needle": evaluate_needle, "vqa": evaluate_vqa}


def main() -> int:
    arguments = parse_arguments()
    try:
        require_at_least(1, arguments, *COUNTS)
        require_at_least(2, arguments, "window")
        require_at_least(0, arguments, "others")
        require_device(arguments.device)
        TASKS[arguments.task](arguments)
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
