#!/usr/bin/env python3
"""Writes tiny random-weight bundles with golden outputs, for the TypeScript tests.

    python scripts/make_test_bundles.py --out test/.bundles

Each bundle gets a `golden.json`: for prompts of awkward lengths, the greedy continuation computed by PyTorch's full forward
(every byte from scratch, as the reference package generates) and the log-probs of its bytes. Models that answer questions
about images also get images (PNG, base64), questions, and the log-prob of every answer. Some bundles can also be run on a
device.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from multiscale.export.bundle_writer import read_manifest, write_bundle, write_manifest
from multiscale.export.cuda.work_type import WorkType
from multiscale.export.validate import awkward_lengths, forward_logits, log_softmax
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.vqa.layout import ANSWER_IDS, SPECIAL_IDS, ImageLayout, SpecialIds, VqaLayout
from multiscale.vqa.preprocess import image_content

NEW_BYTES = 20
QUESTIONS = ["Is it red?", "How many small metal things are left of the big sphere?", "what"]


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
    "vqa": (config([48, 32], [1024, 8], [mamba2(), transformer()]), "fp32", None),
    "vqa-published": (config([32, 32], [256, 5], [mamba2(), transformer()], vocab=260), "fp32", None),
    "vqa-jpeg": (config([32, 32], [512, 4], [mamba2(), transformer()]), "fp32", None),
    "with-eos": (config([48, 32], [512, 4], [mamba2(), transformer()], vocab=257), "fp16", 256),
    "mamba2-mamba2": (config([40, 48], [512, 3], [mamba2(headdim=20), mamba2(d_conv=3)]), "fp32", None),
}

CUDA = ("mamba2-transformer", "transformer-transformer", "mamba2-transformer-transformer", "mamba2-mamba2")
"""Bundles with graphs for CUDA, in float32."""

LAYOUTS = {
    "vqa": VqaLayout(align=8, image=ImageLayout(levels=32)),
    "vqa-published": VqaLayout(
        order="question_image_question_answer",
        max_question_bytes=60,
        image=ImageLayout(width=12, height=9, crop=0.2),
        special_ids=SpecialIds(**SPECIAL_IDS["above"]),
        answers={"yes": ANSWER_IDS["yes"], "no": ANSWER_IDS["no"], "red": 200},
    ),
    "vqa-jpeg": VqaLayout(image=ImageLayout(mode="jpeg", quality=60, restart_blocks=2)),
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


def asked(model: MultiscaleByteModel, layout: VqaLayout, seed: int) -> list[dict[str, Any]]:
    """Images with questions, and the log-prob of every answer by the full forward."""
    rng, forward, cases = np.random.default_rng(seed), forward_logits(model), []
    for rows, columns in ((60, 90), (33, 20)):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (rows, columns, 3)).astype(np.uint8)).save(file, "PNG")
        content = image_content(file.getvalue(), layout.image)
        for question in QUESTIONS:
            distribution = log_softmax(forward(layout.prompt(content, question))[-1:])[0]
            logprobs = {answer: float(distribution[answer_id]) for answer, answer_id in layout.answers.items()}
            image = base64.b64encode(file.getvalue()).decode()
            cases.append({"image": image, "question": question, "logprobs": logprobs})
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for seed, (name, (model_config, precision, eos_id)) in enumerate(BUNDLES.items()):
        model = random_model(model_config, seed)
        write_bundle(model, out / name, name, precision, eos_id, cuda=WorkType.FP32 if name in CUDA else None)
        generator = torch.Generator().manual_seed(seed)
        room = model_config.context_length - NEW_BYTES
        lengths = [length for length in awkward_lengths(model_config) if length <= room]
        prompts = [torch.randint(1, 256, (length,), generator=generator).tolist() for length in lengths]
        cases = [golden(model, prompt, NEW_BYTES) for prompt in prompts]
        length = min(3 * model_config.bytes_per_step(0) + 77, model_config.context_length)
        scores = scored(model, torch.randint(1, 256, (length,), generator=generator).tolist())
        golden_file = {"cases": cases, "scored": scores}
        if layout := LAYOUTS.get(name):
            write_manifest(out / name, {**read_manifest(out / name), "vqa": layout.to_manifest()})
            golden_file["asked"] = asked(model, layout, seed)
        (out / name / "golden.json").write_text(json.dumps(golden_file))
        print(f"{name}: {len(cases)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
