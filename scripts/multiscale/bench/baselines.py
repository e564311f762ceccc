"""What PyTorch users have: the reference package's generation, and a hand-cached eager decode, on the served weights."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import torch

from multiscale.bench.cached_decode import CachedDecoder
from multiscale.export.read_bundle import load_model
from multiscale.model.network import MultiscaleByteModel


def eager_bytes_per_second(bundle: Path, num_bytes: int, threads: int) -> float:
    """Greedy decode with static caches in eager PyTorch."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        model = load_model(bundle)
        decoder = CachedDecoder(model.state_dict(), model.config)
        ids = torch.tensor([84])
        for _ in range(16):
            ids = decoder.feed(ids).argmax(-1)
        started = time.perf_counter()
        for _ in range(num_bytes):
            ids = decoder.feed(ids).argmax(-1)
        return num_bytes / (time.perf_counter() - started)


def build_reference(model: MultiscaleByteModel) -> torch.nn.Module:
    """The reference package's `MBLM` with the same weights.

    Its Mamba-2 needs CUDA; on the CPU our own Mamba-2 stage is plugged in through the package's interface for custom blocks.
    Everything else, the hierarchy and the transformer included, is the package's code.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mblm import MBLM, MBLMModelConfig
        from mblm.model.block import StageBlock

    class PluggedBlock(StageBlock):
        block_type: str = "plugged"
        stage: int

        def to_model(self, model_dim: int, num_layers: int) -> torch.nn.Module:
            return model.config.blocks[self.stage].build(model_dim, num_layers)

    config = model.config
    blocks = [
        PluggedBlock(stage=i, pos_emb_type=block.pos_emb_type)
        if block.block_type == "mamba2"
        else MBLMModelConfig.parse_block(block.model_dump(mode="json"))
        for i, block in enumerate(config.blocks)
    ]
    reference = MBLM(
        MBLMModelConfig(
            num_tokens=config.num_tokens,
            pad_token_id=config.pad_token_id,
            hidden_dims=config.hidden_dims,
            seq_lens=config.seq_lens,
            num_layers=config.num_layers,
            train_checkpoint_chunks=None,
            block=blocks,
        )
    )
    reference.load_state_dict(model.state_dict())
    return reference.eval()


def reference_seconds_per_byte(reference: torch.nn.Module, context: int, threads: int) -> float:
    """One byte of the reference's `generate` is one forward over everything before it."""
    from mblm import MBLMReturnType

    torch.set_num_threads(threads)
    ids = torch.randint(32, 127, (1, context))
    with torch.inference_mode():
        started = time.perf_counter()
        reference.forward(ids, return_type=MBLMReturnType.LOGITS)
        return time.perf_counter() - started


def read_gigabytes_per_second(num_bytes: int) -> float:
    """How fast one thread reads a buffer of the weights' size."""
    torch.set_num_threads(1)
    data = torch.ones(num_bytes // 4)
    best = 0.0
    for _ in range(20):
        started = time.perf_counter()
        torch.dot(data, data)
        best = max(best, data.nbytes / (time.perf_counter() - started))
    return best / 1e9


def median(values: list[float]) -> float:
    return float(np.median(values))
