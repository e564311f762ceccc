#!/usr/bin/env python3
"""Writes tiny random-weight bundles with golden outputs, for the TypeScript tests.

    python scripts/make_test_bundles.py --out test/.bundles

Each bundle gets a `golden.json`: for prompts of awkward lengths, the greedy continuation computed by PyTorch's full forward
(every byte from scratch, as the reference package generates) and the log-probs of its bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from multiscale.export.bundle_writer import write_bundle
from multiscale.export.validate import awkward_lengths, forward_logits, log_softmax
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

NEW_BYTES = 20


def mamba2(**fields: Any) -> dict[str, Any]:
    return {"block_type": "mamba2", "d_state": 16, "d_conv": 4, "expand": 2, "headdim": 16, **fields}


def mamba1(**fields: Any) -> dict[str, Any]:
    return {"block_type": "mamba1", "d_state": 8, "d_conv": 3, "expand": 2, **fields}


def transformer(heads: int = 2, dim: int = 16, rotary: bool = True, **fields: Any) -> dict[str, Any]:
    return {"attn_head_dims": dim, "attn_num_heads": heads, "attn_use_rot_embs": rotary, **fields}


def config(dims: list[int], lens: list[int], blocks: list[dict[str, Any]], vocab: int = 256) -> ModelConfig:
    fields = {"hidden_dims": dims, "seq_lens": lens, "num_layers": [2] * len(dims), "block": blocks}
    return ModelConfig.from_params({"num_tokens": vocab, "pad_token_id": 0, **fields})


BUNDLES: dict[str, tuple[ModelConfig, str, int | None]] = {
    "transformer": (config([32], [96], [transformer(pos_emb_type="fixed")]), "fp32", None),
    "mamba2": (config([48], [4096], [mamba2()]), "fp32", None),
    "mamba2-transformer": (config([64, 48], [1024, 4], [mamba2(), transformer(3, pos_emb_type="fixed")]), "fp32", None),
    "mamba2-transformer-int8": (config([64, 64], [1024, 4], [mamba2(), transformer(4)]), "int8", None),
    "transformer-transformer": (
        config([40, 32], [40, 3], [transformer(2, 24, pos_emb_type="fixed"), transformer(rotary=False)]),
        "fp32",
        None,
    ),
    "mamba1-mamba1": (config([32, 40], [512, 5], [mamba1(pos_emb_type="rope"), mamba1()]), "fp32", None),
    "mamba2-transformer-transformer": (
        config([48, 32, 32], [256, 4, 3], [mamba2(), transformer(), transformer(pos_emb_type="rope")]),
        "fp32",
        None,
    ),
    "gru-mix": (
        config([32, 48, 32], [64, 3, 4], [{"block_type": "gru"}, mamba2(), {"block_type": "gru"}]),
        "fp32",
        None,
    ),
    "with-eos": (config([48, 32], [512, 4], [mamba2(), transformer()], vocab=257), "fp16", 256),
}


def random_model(model_config: ModelConfig, seed: int) -> MultiscaleByteModel:
    """Weights sharp enough that greedy output is not one repeated byte."""
    torch.manual_seed(seed)
    model = MultiscaleByteModel(model_config).eval()
    with torch.no_grad():
        model.to_logits.weight *= 6
        for projection in model.to_next_stage_proj:
            for parameter in projection.parameters():
                parameter *= 3
    return model


def golden(model: MultiscaleByteModel, prompt: list[int], new_bytes: int) -> dict[str, Any]:
    forward, ids, logprobs = forward_logits(model), list(prompt), []
    for _ in range(new_bytes):
        distribution = log_softmax(forward(ids)[-1:])[0]
        choice = int(distribution.argmax())
        logprobs.append(float(distribution[choice]))
        ids.append(choice)
    return {"prompt": prompt, "greedy": ids[len(prompt) :], "logprobs": logprobs}


def scored(model: MultiscaleByteModel, ids: list[int]) -> dict[str, Any]:
    """Log-probs of every byte as the training loss sees them."""
    with torch.no_grad():
        distributions = log_softmax(model.aligned_logits(torch.tensor([ids]))[0].numpy())
    return {"ids": ids, "logprobs": [float(row[byte]) for row, byte in zip(distributions, ids, strict=True)]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for seed, (name, (model_config, precision, eos_id)) in enumerate(BUNDLES.items()):
        model = random_model(model_config, seed)
        write_bundle(model, out / name, name, precision, eos_id)
        generator = torch.Generator().manual_seed(seed)
        room = model_config.context_length - NEW_BYTES
        lengths = [length for length in awkward_lengths(model_config) if length <= room]
        prompts = [torch.randint(1, 256, (length,), generator=generator).tolist() for length in lengths]
        cases = [golden(model, prompt, NEW_BYTES) for prompt in prompts]
        length = min(3 * model_config.bytes_per_step(0) + 77, model_config.context_length)
        scores = scored(model, torch.randint(1, 256, (length,), generator=generator).tolist())
        (out / name / "golden.json").write_text(json.dumps({"cases": cases, "scored": scores}))
        print(f"{name}: {len(cases)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
