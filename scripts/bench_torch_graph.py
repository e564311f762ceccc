#!/usr/bin/env python3
"""What PyTorch reaches on a CUDA device with caches and CUDA graphs: a line of bytes per second for each number of streams.

    python scripts/bench_torch_graph.py --bundle models/mine --dtype fp16 --streams 1,4,8

The model has the bundle's shape and random weights; caches are static, a step of the top stage and all bytes under it are one
graph, the sampler included. `--check N` compares N greedy bytes of the graph with PyTorch's full forward instead.
Needs torch with CUDA, and what export.py needs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch

from multiscale.bench.cached_decode import CachedDecoder, StateDict
from multiscale.bench.graph_decode import GraphDecoder
from multiscale.bench.published_shapes import random_model
from multiscale.export.read_bundle import read_config
from multiscale.model.config import ModelConfig

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WARM_UP_SECONDS = 0.5
FIRST_ID = 84


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, type=Path, help="a bundle that has the shape")
    parser.add_argument("--dtype", default="fp16", choices=DTYPES, help="of weights and activations (default: fp16)")
    parser.add_argument("--streams", default="1,4,8", help="numbers of streams (default: 1,4,8)")
    parser.add_argument("--top-p", type=float, default=0.9, help="at temperature 1; 0 is greedy (default: 0.9)")
    parser.add_argument("--seconds", type=float, default=3, help="for each number of streams (default: 3)")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare N greedy bytes instead of measuring")
    arguments = parser.parse_args()
    if not 0 <= arguments.top_p <= 1 or arguments.seconds <= 0 or arguments.check < 0:
        parser.error("--top-p must be from 0 to 1, --seconds above 0, --check at least 0")
    return arguments


def bytes_per_second(weights: StateDict, config: ModelConfig, streams: int, top_p: float, seconds: float) -> float:
    first = torch.full((streams,), FIRST_ID, device="cuda")
    decoder = GraphDecoder(CachedDecoder(weights, config, streams), first, top_p)

    def run_for(duration: float) -> float:
        """Steps a second. Every step is waited for, as by a server that sends its bytes on."""
        begun, steps = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < duration or steps == 0:
            decoder.step().cpu()
            steps += 1
        return steps / passed

    run_for(WARM_UP_SECONDS)
    return run_for(seconds) * streams * config.bytes_per_step(0)


def check_greedy(model: torch.nn.Module, weights: StateDict, config: ModelConfig, num_bytes: int) -> int:
    """Prints how many of the graph's greedy bytes a full forward would choose, too; returns how many it would not."""
    decoder = GraphDecoder(CachedDecoder(weights, config), torch.tensor([FIRST_ID], device="cuda"), 0.0)
    ids = [FIRST_ID, *decoder.first_ids[0].tolist()]
    while len(ids) <= num_bytes:
        ids += decoder.step()[0].tolist()
    expected = model(torch.tensor([ids[:-1]], device="cuda"))[0].argmax(-1).tolist()
    num_wrong = sum(a != b for a, b in zip(expected, ids[1:], strict=True))
    print(f"greedy bytes as the full forward's: {len(expected) - num_wrong} of {len(expected)}")
    return num_wrong


def main() -> int:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print("bench_torch_graph.py: PyTorch finds no CUDA device", file=sys.stderr)
        return 2
    os.environ["MULTISCALE_SSD"] = "torch"
    torch.backends.cuda.matmul.allow_tf32 = False
    config = read_config(arguments.bundle)
    with torch.inference_mode():
        model = random_model(config, 0).to("cuda")
        kept = {"A_log", "dt_bias", "D"}  # of the SSM, which is float32
        dtype = DTYPES[arguments.dtype]
        weights = {
            name: value if name.rsplit(".", 1)[-1] in kept or "inv_freq" in name else value.to(dtype)
            for name, value in model.state_dict().items()
        }
        if arguments.check:
            return 1 if check_greedy(model, weights, config, arguments.check) and arguments.dtype == "fp32" else 0
        for streams in map(int, arguments.streams.split(",")):
            rate = bytes_per_second(weights, config, streams, arguments.top_p, arguments.seconds)
            print(json.dumps({"streams": streams, "bytes_per_second": round(rate)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
