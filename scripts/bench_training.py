#!/usr/bin/env python3
"""Measures training steps of long contexts on one GPU and prints a table.

    python scripts/bench_training.py
    python scripts/bench_training.py --only 5m --precision fp32 bf16 --steps 5 --json bench-training.json

Rows: a step at 5 000 000 bytes (scripts/configs/five-million.yaml) in fp32 and under bf16 autocast; a step of the published 3D
model at 1 MiB (scripts/configs/published-3d.yaml), as it is and with train.chunk_tokens; and the same by the reference package
`mblm` where it can be imported (its Mamba-2 needs --mamba-ssm; without, it builds Mamba-1 layers). A step is loss, gradients,
clipping and AdamW on random bytes. Bytes/s is the median; the memory is the most that tensors held, and what PyTorch reserved for
them, beside the planner's prediction, which is for steps without --compile.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multiscale.arguments import require_at_least, require_device
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.chunked import Chunking, chunked_loss
from multiscale.train.config import RunConfig
from multiscale.train.memory_plan import MemoryPlanner
from multiscale.train.optimizer import build_optimizer
from multiscale.train.trainer import compile_layers

CONFIGS = Path(__file__).parent / "configs"
GIB = 2**30
CASES: dict[str, tuple[str, list[str]]] = {
    "5m": ("five-million.yaml", []),
    "1mi": ("published-3d.yaml", ["train.gradient_accumulate_every=1"]),
    "1mi-chunks": ("published-3d.yaml", ["train.gradient_accumulate_every=1", "train.chunk_tokens=16384"]),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*CASES, "reference"), default=[*CASES, "reference"])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "tf32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=3, help="measured steps after one that is not (default: 3)")
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    parser.add_argument("--mamba-ssm", metavar="FOLDER", help="unpacked sources of mamba-ssm, for the reference")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    # Intermixed: overrides may stand before, between and behind options.
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace the configs'")
    return parser.parse_intermixed_args()


def measure(
    model: nn.Module, loss_of: Callable[[Tensor], Tensor], config: RunConfig, steps: int, device: str
) -> dict[str, Any]:
    """Runs steps of training; the first is not measured."""
    train, is_gpu = config.train, device.startswith("cuda")
    torch.set_float32_matmul_precision("high" if train.precision == "tf32" else "highest")
    optimizer = build_optimizer(model, train)
    ids = torch.randint(1, 256, (train.batch_size, config.input_seq_len), device=device)
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, losses = [], []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=train.precision == "bf16"):
            loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.gradient_clipping or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())  # waits for the device
        if is_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[1:])
    return {
        "seconds": median,
        "bytes_per_second": ids.numel() / median,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if is_gpu else None,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB if is_gpu else None,
        "loss": losses[-1],
    }


def run_ours(config: RunConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(1)
    model = MultiscaleByteModel(config.model).to(arguments.device).train()
    if arguments.compile:
        compile_layers(model)
    chunking = Chunking.of(config.model, config.train)

    def loss_of(ids: Tensor) -> Tensor:
        return model.loss(ids) if chunking is None else chunked_loss(model, ids, chunking)

    return measure(model, loss_of, config, arguments.steps, arguments.device)


def planned_gib(config: RunConfig, is_gpu: bool) -> float:
    return MemoryPlanner(config, is_gpu=is_gpu).plan(config.input_seq_len).peak / GIB


def run_reference(config: RunConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """Raises ImportError without the package. It builds Mamba-1 where mamba-ssm is missing: the row says so."""
    if arguments.mamba_ssm is not None and "mamba_ssm" not in sys.modules:
        # Of the compiled extensions, Mamba-2 only has use for a convolution, which PyTorch has too.
        sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
        sys.path.insert(0, arguments.mamba_ssm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mblm import MBLM, MBLMModelConfig, MBLMReturnType

        torch.manual_seed(1)
        model = MBLM(MBLMModelConfig(**config.model.to_yaml_dict())).to(arguments.device).train()
    kind = "mamba1" if any("x_proj" in name for name, _ in model.named_parameters()) else "mamba2"
    if importlib.util.find_spec("causal_conv1d") is None:
        for module in model.modules():
            if hasattr(module, "use_mem_eff_path"):
                module.use_mem_eff_path = False
    config = config.model_copy(update={"train": config.train.model_copy(update={"chunk_tokens": None})})

    def loss_of(ids: Tensor) -> Tensor:
        return model(ids, return_type=MBLMReturnType.LOSS)

    return {**measure(model, loss_of, config, arguments.steps, arguments.device), "note": kind}


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row that cannot be measured says why, and the others are measured all the same."""
    try:
        return run()
    except (torch.OutOfMemoryError, ImportError, RuntimeError) as error:
        return {"note": f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def table(rows: list[dict[str, Any]]) -> str:
    names = ("case", "precision", "context", "seconds", "MB/s", "peak GiB", "reserved", "planned", "note")
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    for row in rows:

        def number(key: str, scale: float = 1.0, digits: int = 2, row: dict[str, Any] = row) -> str:
            value = row.get(key)
            return "–" if value is None else f"{value / scale:.{digits}f}"

        lines.append(
            " | ".join(
                (
                    *(row["case"], row["precision"], str(row["context"]), number("seconds", digits=3)),
                    *(number("bytes_per_second", 1e6, 3), number("peak_gib"), number("reserved_gib")),
                    *(number("planned_gib"), row.get("note", "")),
                )
            )
        )
    return "\n".join(f"| {line} |" for line in lines)


def main() -> int:
    arguments = parse_arguments()
    rows: list[dict[str, Any]] = []
    # Plans are made meanwhile, on the CPU.
    planners = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    try:
        require_at_least(1, arguments, "steps")
        require_device(arguments.device)
        for case in arguments.only:
            file, overrides = CASES["1mi" if case == "reference" else case]
            run = run_reference if case == "reference" else run_ours
            for precision in arguments.precision:
                given = [*overrides, f"train.precision={precision}", *arguments.overrides]
                config = RunConfig.from_yaml(CONFIGS / file, given)
                plan = planners.submit(planned_gib, config, arguments.device != "cpu") if run is run_ours else None
                row = attempt(lambda run=run, config=config: run(config, arguments))
                rows.append({"case": case, "precision": precision, "context": config.input_seq_len, **row})
                print(rows[-1], file=sys.stderr, flush=True)
                rows[-1]["planned_gib"] = plan
        for row in rows:
            row["planned_gib"] = row["planned_gib"].result() if row["planned_gib"] else None
    except (ValueError, OSError) as error:
        print(f"bench_training.py: {error}", file=sys.stderr)
        return 2
    finally:
        planners.shutdown(cancel_futures=True)
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    print(f"{where}, PyTorch {torch.__version__}\n\n{table(rows)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"device": where, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
