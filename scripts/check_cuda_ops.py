"""Checks the CUDA operators against the reference library, on a GPU, and times them.

    python scripts/check_cuda_ops.py --cuda libmblm_ops_cuda.so --reference libmblm_ops_reference.so [--only PARTS]

Exit status 1 when an operator differs. `patch` checks LocalPatch of every shape that the shipped library has a kernel for, on the
whole of an H100 or H200, for half an hour; `mamba` checks MambaStep, in a minute. --shapes, --patch-parts and --seeds take a part
of it, so that it can be done in pieces. Times say what fraction of the memory's speed an operator reaches; `chain` times whole
steps of the published 2D ST shape, `patch-times` LocalPatch, `mamba-times` MambaStep. MBLM_NO_PDL=1 switches programmatic
dependent launches off.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from multiscale.cuda_check.correctness import check_all
from multiscale.cuda_check.library import Library
from multiscale.cuda_check.mamba_check import check_mamba, step_times
from multiscale.cuda_check.patch_check import PARTS, PatchChecks, check_patches, patch_times
from multiscale.cuda_check.patches import StageShape, listed_shapes
from multiscale.cuda_check.timing import chain_table, describe_device, op_table


def shape_list(text: str) -> list[StageShape]:
    return [StageShape.parse(part) for part in text.split(",")]


def part_list(text: str) -> list[str]:
    parts = text.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)} ({', '.join(PARTS)})")
    return parts


def seed_range(text: str) -> range:
    """`0-4` or `3`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="needed for the check")
    parser.add_argument(
        "--only", default="check,patch,mamba,ops,chain,patch-times,mamba-times", help="parts, separated by commas"
    )
    parser.add_argument("--ops", default="", help="operators to time, separated by commas; all by default")
    parser.add_argument("--shapes", type=shape_list, help="of LocalPatch, as 512x2x64,1024x2x64; all by default")
    parser.add_argument("--patch-parts", type=part_list, default=PARTS, help=f"of its check: {','.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=10_000, help="patches or steps of each stage")
    parser.add_argument(
        "--seeds", type=seed_range, default=range(10), help="stages that are repeated, as 0-4; 0-9 by default"
    )
    parser.add_argument("--agreement-bytes", type=int, default=65_536, help="bytes whose greedy followers are compared")
    options = parser.parse_args()
    parts = options.only.split(",")
    shapes = options.shapes or listed_shapes()
    cuda = Library(options.cuda)
    print(describe_device())
    is_right = True
    if "check" in parts:
        if options.reference is None:
            parser.error("--reference is needed for the check")
        started = time.monotonic()
        is_right = check_all(Library(options.reference), cuda)
        print(f"checked in {time.monotonic() - started:.0f} s")
    if "patch" in parts:
        reference = Library(options.reference) if options.reference else None
        checks = PatchChecks(shapes, options.patch_parts, options.repeats, options.seeds, options.agreement_bytes)
        is_right &= check_patches(reference, cuda, checks)
    if "mamba" in parts:
        reference = Library(options.reference) if options.reference else None
        is_right &= check_mamba(reference, cuda, options.repeats, options.seeds)
    if "ops" in parts:
        op_table(cuda, set(filter(None, options.ops.split(","))))
    if "chain" in parts:
        chain_table(cuda)
    if "patch-times" in parts:
        patch_times(cuda, shapes)
    if "mamba-times" in parts:
        step_times(cuda)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
