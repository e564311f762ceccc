"""The reference package `mblm` as an outside oracle. Nothing else in this package imports it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from multiscale.model.checkpoint import read_state_dict
from multiscale.model.config import ModelConfig


def reference_logits(checkpoint: Path, config: ModelConfig) -> Callable[[list[int]], np.ndarray]:
    """ids → logits after each of them (L, V), by the reference's own forward.

    Raises ValueError where the package is not installed or cannot hold the checkpoint: it knows no custom blocks, and
    Mamba-2 only where `mamba_ssm` can be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mblm import MBLM, MBLMModelConfig, MBLMReturnType
    except ImportError as error:
        raise ValueError(f"--reference: the package mblm cannot be imported ({error})") from None
    try:
        model = MBLM(MBLMModelConfig(**config.to_yaml_dict())).eval()
        model.load_state_dict(read_state_dict(checkpoint))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--reference: mblm cannot load {checkpoint}: {reason}") from None

    @torch.no_grad()
    def run(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids], dtype=torch.long), return_type=MBLMReturnType.LOGITS)[0].numpy()

    return run
