#!/usr/bin/env python3
"""Trains a Multiscale Byte Language Model.

    python scripts/train.py --config scripts/configs/books.yaml
    python scripts/train.py --config FILE.yaml --run-dir runs/mine --resume
    python scripts/train.py --config FILE.yaml --init-from runs/text/text.pth
    python scripts/train.py --config FILE.yaml --plan --memory-gb 80
    torchrun --nproc-per-node 4 scripts/train.py --config FILE.yaml train.batch_size=8

The YAML has three sections: `params` (the model, as in the reference package), `io` (data and output) and `train`. Any key
can be overridden on the command line as section.key=value. The run folder gets the resolved config, metrics.csv, TensorBoard
events, curves.png, NAME.pth (what scripts/export.py reads) and state.pt (for --resume).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from multiscale.arguments import require_above_zero, require_at_least
from multiscale.train.config import RunConfig
from multiscale.train.memory_report import report
from multiscale.train.processes import join_processes
from multiscale.train.trainer import Trainer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path, help="training YAML")
    parser.add_argument("--run-dir", type=Path, help="run folder (default: io.output_dir/io.name_model)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the run folder")
    parser.add_argument(
        "--init-from", type=Path, help="checkpoint to begin with (fine-tuning), such as one trained on text: same shape"
    )
    parser.add_argument(
        "--stop-after", type=float, metavar="SECONDS", help="break off after so long, to go on with --resume"
    )
    parser.add_argument("--plan", action="store_true", help="print how much memory the run needs, and do nothing else")
    parser.add_argument(
        "--memory-gb", type=float, default=80, metavar="GIB", help="with --plan: of one device (default: 80)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="with --plan: how many torchrun will start (default: 1)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    # Intermixed: overrides may stand before, between and behind options.
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace the YAML's")
    return parser.parse_intermixed_args()


def print_plan(config: RunConfig, arguments: argparse.Namespace) -> None:
    if config.io.dataset_id == "vqa":
        raise ValueError("--plan: rows of data set vqa are packed, their memory depends on the data")
    print(report(config, arguments.memory_gb, arguments.processes, arguments.device != "cpu"))


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        require_above_zero(arguments, "stop_after", "memory_gb")
        require_at_least(1, arguments, "processes")
        if arguments.resume and arguments.init_from is not None:
            raise ValueError("--init-from: a run that is resumed has weights already")
        config = RunConfig.from_yaml(arguments.config, arguments.overrides)
        if arguments.plan:
            print_plan(config, arguments)
            return 0
        run_dir = arguments.run_dir or Path(config.io.output_dir) / config.io.name_model
        if (run_dir / "state.pt").exists() and not arguments.resume:
            raise ValueError(f"{run_dir} holds a run already: give --resume to continue it or another --run-dir")
        if arguments.resume and not (run_dir / "state.pt").exists():
            raise ValueError(f"--resume: {run_dir / 'state.pt'} does not exist")
        group = join_processes(arguments.device)
        trainer = Trainer(config, run_dir, group, arguments.init_from)
        if arguments.resume:
            trainer.resume()
    except (ValueError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    try:
        trainer.run(arguments.stop_after)
    except FloatingPointError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, say: what was saved before is whole
        print(f"train.py: {run_dir}: {error}", file=sys.stderr)
        return 1
    finally:
        group.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
