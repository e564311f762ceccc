"""Which models the device graphs can be written for."""

from __future__ import annotations

from collections.abc import Callable

from multiscale.export.cuda.block import BlockContext
from multiscale.export.cuda.forms import Norm, Residual, StepAt
from multiscale.export.cuda.mamba2 import emit_mamba2
from multiscale.export.cuda.transformer import emit_transformer
from multiscale.model.config import ModelConfig

MAX_PATCH = 32
"""Bytes of a local patch: all of them are unrolled in one graph (`MAX_PATCH` of `native/ops.h`)."""

EMITTERS: dict[str, Callable[[BlockContext, Residual, StepAt], Residual]] = {
    "transformer": emit_transformer,
    "mamba2": emit_mamba2,
}
FINAL_NORMS = {"transformer": ("norm.g", Norm.CLAMP), "mamba2": ("norm_f.weight", Norm.EPSILON)}


def check_supported(config: ModelConfig) -> None:
    """Raises ValueError that says why a model cannot run on CUDA."""
    if config.num_stages == 1:
        raise ValueError("--cuda: models with one stage are served on the CPU; leave --cuda out")
    for stage, block in enumerate(config.blocks):
        if block.block_type not in EMITTERS:
            known = " and ".join(sorted(EMITTERS))
            raise ValueError(
                f"--cuda: stage {stage} is made of {block.block_type!r} blocks; on CUDA there are {known}, "
                "other models are served on the CPU: leave --cuda out"
            )
        if block.block_type == "transformer" and block.attn_head_dims % 2:
            raise ValueError(f"--cuda: attn_head_dims of stage {stage} must be even, it is {block.attn_head_dims}")
    if config.seq_lens[-1] > MAX_PATCH:
        raise ValueError(
            f"--cuda: local patches may have up to {MAX_PATCH} bytes, the model's have {config.seq_lens[-1]}"
        )
