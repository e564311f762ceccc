"""What the shipped CUDA library says to local stages that it has no kernel for. No GPU is touched."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from multiscale.cuda_check.library import Library
from multiscale.cuda_check.patches import listed_shapes
from multiscale.export.cuda.patch_scratch import patch_scratch_bytes

ROOT = Path(__file__).parents[2]
SIZES = {"B": 1, "P": 8, "D": 1024, "V": 256, "H": 16, "d": 64, "F": 2048, "L": 2, "children": 8}


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(ROOT / "native/prebuilt/linux-x64/libmblm_ops_cuda.so")


def refusal(library: Library, work: torch.dtype = torch.float16, **sizes: int) -> str:
    """Of a call without tensors; where there is a GPU, only a refused one touches none of them."""
    library.run("LocalPatch", library.prepare("LocalPatch", work, {**SIZES, "scratch_bytes": 0, **sizes}))
    with pytest.raises(RuntimeError) as raised:
        library.raise_errors()
    return str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may be refused first")
def test_a_shape_that_is_not_compiled_in_is_refused_with_the_command_that_adds_it(library: Library) -> None:
    said = refusal(library, D=640, H=10, F=1920)
    assert "no kernel for a width of 640 with a feed-forward of 1920 and heads of 64 channels" in said
    command = re.search(r"node scripts/build-native.mjs cuda --install (--shape \S+)", said)
    assert command is not None
    arguments = ["node", "scripts/build-native.mjs", "--list", *command[1].split(" ")]
    listed = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert set(listed) == {str(shape) for shape in listed_shapes()} | {"640x3x64"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may be refused first")
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"D": 1000}, "its width must be a multiple of 128, at most 1024; it is 1000"),
        ({"D": 2048}, "its width must be a multiple of 128, at most 1024; it is 2048"),
        (
            {"H": 8},
            "its heads must have 32, 64 or 128 channels, together the width; they are 8 of 64, the width is 1024",
        ),
        ({"H": 64, "d": 16}, "they are 64 of 16"),
        ({"F": 1536}, "its feed-forward must be 1, 2, 3 or 4 times as wide as the stage (1024); it is 1536 wide"),
        ({"F": 5120}, "it is 5120 wide"),
        (
            {"P": 33},
            "patches may have 32 bytes, the vocabulary 512 ids, the stage 32 layers at most; they have 33, 256, 2",
        ),
        ({"V": 513}, "they have 8, 513, 2"),
        ({"B": 3}, "rows must be 1, 2, 4 or 8"),
    ],
)
def test_sizes_that_no_kernel_has_are_refused(sizes: dict[str, int], message: str, library: Library) -> None:
    assert message in refusal(library, **sizes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU would be used")
def test_shapes_that_are_listed_are_compiled_in(library: Library) -> None:
    """What is left to refuse them for is that there is no GPU."""
    for shape in listed_shapes():
        said = refusal(library, D=shape.width, H=shape.width // shape.head, d=shape.head, F=shape.width * shape.ff)
        assert "no kernel" not in said
        assert "CUDA" in said


def test_other_types_than_float16_are_refused(library: Library) -> None:
    assert "its weights must be float16" in refusal(library, torch.bfloat16)


def test_scratch_grows_with_what_is_exchanged() -> None:
    fixed, per_row = patch_scratch_bytes(1024, 2048, 21, 256, 8)
    assert (fixed, per_row) == (4096, 8 + 8 * 256 + 16 * 9 * 128 + 16 * (1024 * 46) + 48 * 128 * 21 * 9)
    assert patch_scratch_bytes(1024, 2048, 21, 256, 9)[1] == patch_scratch_bytes(1024, 2048, 21, 256, 32)[1] > per_row
