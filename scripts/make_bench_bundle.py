#!/usr/bin/env python3
"""Writes a bundle of a published shape, or a smaller one like it, or of a config's, with random weights, for benchmarks.

    python scripts/make_bench_bundle.py --shape 2d-st --cuda fp16 --out bench-2d-st [--check-fp64 4096]
    python scripts/make_bench_bundle.py --config scripts/configs/books.yaml --cuda fp16 --out bench-books

--check-fp64 N also writes what PyTorch's full forward gives in float64 for N bytes (on a GPU where there is one):
check-bytes.bin, and check-logprobs.npy, float32 (N, V), the log-probs after each byte.

Needs torch, numpy, onnx, onnxruntime, pydantic and PyYAML.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

MODULES = ("torch", "numpy", "onnx", "onnxruntime", "pydantic", "yaml")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--shape", choices=("2d-st", "2d-ss", "3d-stt"), help="a published one")
    model.add_argument("--config", type=Path, help="a model's YAML; --layers-divisor and --width do not go with it")
    parser.add_argument(
        "--cuda", required=True, choices=("none", "fp32", "fp16", "bf16"), help="type of weights on the device"
    )
    parser.add_argument("--out", required=True, type=Path, help="bundle folder to write")
    parser.add_argument("--layers-divisor", type=int, default=1, help="a smaller model: layers divided by this")
    parser.add_argument("--width", type=int, default=1024, help="of all stages, a multiple of 64 (default: 1024)")
    parser.add_argument(
        "--cpu-graphs",
        choices=("none", "fp32", "fp16", "int8"),
        default="none",
        help="graphs for the CPU, too, in this precision (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--check-fp64", type=int, default=0, metavar="N", help="bytes of reference log-probs")
    arguments = parser.parse_args()
    if arguments.config is not None and (arguments.layers_divisor != 1 or arguments.width != 1024):
        parser.error("--layers-divisor and --width go with --shape")
    if arguments.layers_divisor < 1 or arguments.check_fp64 < 0:
        parser.error("--layers-divisor must be at least 1, --check-fp64 at least 0")
    if arguments.width < 64 or arguments.width % 64:
        parser.error("--width must be a multiple of 64")
    if arguments.cuda == "none" and arguments.cpu_graphs == "none":
        parser.error("--cuda none needs --cpu-graphs")
    return arguments


def make(arguments: argparse.Namespace) -> None:
    from multiscale.bench.float64_check import write_check
    from multiscale.bench.published_shapes import random_model, shape_config
    from multiscale.export.bundle_writer import write_bundle
    from multiscale.export.cuda.work_type import WorkType
    from multiscale.model.config import ModelConfig

    begun = time.monotonic()
    if arguments.config is not None:
        config = ModelConfig.from_yaml(arguments.config)
    else:
        config = shape_config(arguments.shape, arguments.layers_divisor, arguments.width)
    model = random_model(config, arguments.seed)
    print(f"{arguments.shape or arguments.config.stem}: {sum(p.numel() for p in model.parameters()):,} parameters")
    has_cpu_graphs = arguments.cpu_graphs != "none"
    precision = arguments.cpu_graphs if has_cpu_graphs else "fp32"
    work = None if arguments.cuda == "none" else WorkType(arguments.cuda)
    name = Path(os.path.abspath(arguments.out)).name
    part = write_bundle(model, arguments.out, name, precision, cuda=work, cpu_graphs=has_cpu_graphs)
    if part is not None:
        print(part.describe())
    print(f"wrote {arguments.out} in {time.monotonic() - begun:.0f} s")
    if arguments.check_fp64:
        begun = time.monotonic()
        device = write_check(model, arguments.out, arguments.check_fp64, arguments.seed)
        print(f"float64 log-probs of {arguments.check_fp64} bytes on {device} in {time.monotonic() - begun:.0f} s")


def main() -> int:
    arguments = parse_arguments()
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"make_bench_bundle.py: Python has no {', '.join(missing)}", file=sys.stderr)
        return 2
    os.environ["MULTISCALE_SSD"] = "torch"  # the definition, also where faster kernels are installed
    try:
        make(arguments)
    except (ValueError, OSError) as error:
        print(f"make_bench_bundle.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
