"""Checks the CUDA operators against the reference library, on a GPU, and times them.

    python scripts/check_cuda_ops.py --cuda libmblm_ops_cuda.so --reference libmblm_ops_reference.so [--only PARTS]

Exit status 1 when an operator differs. `patch` checks LocalPatch, which takes some minutes; it needs the whole of an H100 or
H200. Times say what fraction of the memory's speed an operator reaches; `chain` times
whole steps of the published 2D ST shape. MBLM_NO_PDL=1 switches programmatic dependent launches off.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from multiscale.cuda_check.correctness import check_all
from multiscale.cuda_check.library import Library
from multiscale.cuda_check.patch_check import check_patches, patch_times
from multiscale.cuda_check.timing import chain_table, describe_device, op_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="needed for the check")
    parser.add_argument("--only", default="check,patch,ops,chain", help="parts, separated by commas")
    parser.add_argument("--ops", default="", help="operators to time, separated by commas; all by default")
    parser.add_argument("--repeats", type=int, default=10_000, help="patches of each stage of LocalPatch's check")
    parser.add_argument("--seeds", type=int, default=10, help="stages of LocalPatch's check")
    parser.add_argument("--agreement-bytes", type=int, default=65_536, help="bytes whose greedy followers are compared")
    options = parser.parse_args()
    parts = options.only.split(",")
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
        is_right &= check_patches(reference, cuda, options.repeats, options.seeds, options.agreement_bytes)
    if "ops" in parts:
        op_table(cuda, set(filter(None, options.ops.split(","))))
    if "chain" in parts:
        chain_table(cuda)
        patch_times(cuda)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
