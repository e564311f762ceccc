#!/usr/bin/env python3
"""Compares this package's Mamba-2 stage with `mamba_ssm` on a GPU: outputs and gradients, same weights.

    python scripts/check_mamba_ssm.py [--mamba-ssm SOURCE_FOLDER]

mamba_ssm's compiled extensions are not needed (only its Triton kernels are used): `--mamba-ssm` may point at an unpacked source
distribution. Prints a table of relative errors and PASS or FAIL; exits 1 on FAIL.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import os
import sys
import types

import torch
from torch import Tensor, nn

SHAPES = [  # width, layers, d_state, d_conv, expand, headdim, batch, length
    (256, 2, 64, 4, 2, 64, 2, 300),
    (512, 3, 128, 4, 2, 64, 1, 1025),
    (640, 1, 64, 4, 2, 64, 3, 64),
    (128, 2, 16, 3, 2, 32, 2, 77),
]
TOLERANCE = 2e-3
"""Triton multiplies float32 in TF32 by default: relative errors of 3e-4 per product are its own."""


def import_mamba2(source: str | None) -> type[nn.Module]:
    """`mamba_ssm.modules.mamba2.Mamba2` without importing what needs compiled extensions."""
    if source is not None:
        package = types.ModuleType("mamba_ssm")
        package.__path__ = [os.path.join(source, "mamba_ssm")]
        sys.modules["mamba_ssm"] = package
    sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    return importlib.import_module("mamba_ssm.modules.mamba2").Mamba2


class MambaSsmStage(nn.Module):
    """The reference's mixer: pre-norm residual `mamba_ssm` layers and a final norm."""

    def __init__(self, ours: nn.Module, mamba2: type[nn.Module], shape: tuple[int, ...]):
        super().__init__()
        width, _, d_state, d_conv, expand, headdim, *_ = shape
        self.norms = nn.ModuleList(copy.deepcopy(layer.norm) for layer in ours.layers)
        self.norm_f = copy.deepcopy(ours.norm_f)
        self.mixers = nn.ModuleList()
        for layer in ours.layers:
            mixer = mamba2(
                width, d_state=d_state, d_conv=d_conv, expand=expand, headdim=headdim, use_mem_eff_path=False
            )
            mixer.load_state_dict(layer.mixer.state_dict())
            self.mixers.append(mixer)

    def forward(self, x: Tensor) -> Tensor:
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + mixer(norm(x))
        return self.norm_f(x)


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


def compare(shape: tuple[int, ...], mamba2: type[nn.Module]) -> dict[str, float]:
    """Relative errors of outputs and of input and weight gradients."""
    from multiscale.model.blocks.mamba2 import Mamba2Block

    width, layers, d_state, d_conv, expand, headdim, batch, length = shape
    config = Mamba2Block(d_state=d_state, d_conv=d_conv, expand=expand, headdim=headdim)
    ours = config.build(width, layers).cuda()
    theirs = MambaSsmStage(ours, mamba2, shape).cuda()
    x = torch.randn(batch, length, width, device="cuda").requires_grad_()
    probe = torch.randn(batch, length, width, device="cuda")
    y = ours(x)
    (gx,) = torch.autograd.grad((y * probe).sum(), x, retain_graph=True)
    gw = torch.autograd.grad((y * probe).sum(), ours.layers[0].mixer.in_proj.weight)[0]
    y_ref = theirs(x)
    (gx_ref,) = torch.autograd.grad((y_ref * probe).sum(), x, retain_graph=True)
    gw_ref = torch.autograd.grad((y_ref * probe).sum(), theirs.mixers[0].in_proj.weight)[0]
    return {
        "output": relative_error(y, y_ref),
        "input gradient": relative_error(gx, gx_ref),
        "weight gradient": relative_error(gw, gw_ref),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mamba-ssm", help="folder that holds mamba_ssm/, when it is not installed")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("check_mamba_ssm.py: needs a CUDA device", file=sys.stderr)
        return 2
    os.environ["MULTISCALE_SSD"] = "torch"  # compare our own path, not mamba_ssm with itself
    torch.manual_seed(0)
    mamba2 = import_mamba2(arguments.mamba_ssm)
    worst = 0.0
    print(torch.cuda.get_device_name())
    for shape in SHAPES:
        errors = compare(shape, mamba2)
        worst = max(worst, *errors.values())
        print(shape, "  ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    verdict = "PASS" if worst <= TOLERANCE else "FAIL"
    print(f"{verdict}: worst relative error {worst:.1e}, tolerance {TOLERANCE:.0e}")
    return 0 if verdict == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())
