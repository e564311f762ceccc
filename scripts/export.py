#!/usr/bin/env python3
"""Exports a checkpoint (ours or the reference package's) as a bundle that mblm-server loads.

    python scripts/export.py --checkpoint runs/books/books.pth --config scripts/configs/books.yaml --out models/books

Precisions: fp32; fp16 (weights stored in half precision, computed in float32); int8 (8-bit weights in blocks of 64, 8-bit
activations inside matrix products). After writing, the bundle is reloaded and compared with the PyTorch model on prompts of
awkward lengths, and only then takes the place of whatever bundle DIR holds; above the tolerance it stays in DIR.failed, what
DIR holds stays as it is, and the command fails. A DIR that is a symbolic link stays one: the folder behind it is replaced.

--cuda adds what a CUDA device runs, with activations and weights of products in that type. What the type costs is measured
against PyTorch in float64, on the CPU, with the reference operators (`node scripts/build-native.mjs` builds them).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from multiscale.export.bundle_writer import check_target, move_bundle, read_manifest, write_bundle, write_manifest
from multiscale.export.cuda.cpu_graph import REFERENCE_LIBRARY, LibraryError
from multiscale.export.cuda.validate import measure
from multiscale.export.cuda.work_type import WorkType
from multiscale.export.manifest import chat_entry
from multiscale.export.validate import compare, forward_logits, random_prompts
from multiscale.model.checkpoint import load_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.parity.text_windows import text_windows
from multiscale.vqa.data.generated import vqa_prompts
from multiscale.vqa.data.plan import ShardPlan


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint, {MODEL, LOSS}: a file or a folder of parts"
    )
    parser.add_argument("--config", required=True, type=Path, help="YAML whose `params:` describe the model")
    parser.add_argument("--out", required=True, type=Path, help="bundle folder to write")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="default: fp32")
    parser.add_argument("--cuda", choices=[work.value for work in WorkType], help="add graphs for CUDA in this type")
    parser.add_argument("--name", help="model id that clients send (default: the folder's name)")
    parser.add_argument("--eos-id", type=int, help="id that ends generation, if the model was trained with one")
    parser.add_argument("--chat-template", type=Path, help="Jinja file that turns messages into text")
    parser.add_argument("--chat-stop", action="append", help="text that ends the assistant's turn; may be repeated")
    parser.add_argument(
        "--vqa", type=Path, help="shards of a model for visual questions, or their info.json: its byte layout"
    )
    parser.add_argument("--training-facts", type=Path, help="JSON object copied into the manifest's `training`")
    parser.add_argument("--calibration-text", type=Path, help="text to measure the cost of reduced precision on")
    return parser.parse_args()


def read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"--training-facts: {path} is not JSON ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"--training-facts: {path} holds no JSON object")
    return facts


def export(arguments: argparse.Namespace) -> int:
    config = ModelConfig.from_yaml(arguments.config)
    model = load_checkpoint(arguments.checkpoint, config)
    facts = read_facts(arguments.training_facts) if arguments.training_facts else {}
    texts = text_windows(arguments.calibration_text, config.context_length) if arguments.calibration_text else []
    template = arguments.chat_template.read_text() if arguments.chat_template else None
    chat = chat_entry(template, arguments.chat_stop)
    layout = ShardPlan.read(arguments.vqa).layout if arguments.vqa else None
    if layout is not None:
        texts = vqa_prompts(layout)
    out, precision = check_target(arguments.out), arguments.precision
    # A link's own name is what clients know, not that of the folder it points to.
    name = arguments.name or Path(os.path.abspath(arguments.out)).name
    unchecked = out.with_name(out.name + ".failed")  # its place if the comparison fails or never ends
    print(f"writing {unchecked} ({precision}, {sum(p.numel() for p in model.parameters()):,} parameters)")
    work = WorkType(arguments.cuda) if arguments.cuda else None
    part = write_bundle(model, unchecked, name, precision, arguments.eos_id, facts, chat, work)
    # Random bytes are far from what a trained model saw: where text is given, reduced precision is judged on text.
    prompts = texts if texts and precision != "fp32" else random_prompts(model.config)
    print(f"comparing with PyTorch on {len(prompts)} prompts of up to {max(map(len, prompts))} bytes")
    comparison = compare(unchecked, forward_logits(model), prompts)
    manifest, kind_of_texts = read_manifest(unchecked), "images and questions" if layout else "text"
    manifest["validation"] = {
        "max_abs_logprob_error": comparison.max_logprob_error,
        "mean_divergence_bits_per_byte": comparison.mean_divergence,
        "prompts": kind_of_texts if prompts is texts else "random bytes",
        "prompt_lengths": [len(prompt) for prompt in prompts],
    }
    if layout is not None:
        manifest["vqa"] = layout.to_manifest()
    print(comparison.describe(precision))
    acceptable = comparison.is_acceptable(precision)
    if work is not None:
        print(part.describe())
        try:
            if not REFERENCE_LIBRARY.exists():
                raise LibraryError(f"{REFERENCE_LIBRARY} is not built")
            accuracy = measure(unchecked, model, texts or prompts, REFERENCE_LIBRARY)
        except LibraryError as error:
            print(f"CUDA: accuracy not measured, {error} (node scripts/build-native.mjs reference builds it)")
        else:
            manifest["validation"]["cuda"] = accuracy.to_manifest(kind_of_texts if texts else "random bytes")
            acceptable &= accuracy.is_acceptable(work)
            print(accuracy.describe(work))
    write_manifest(unchecked, manifest)
    if not acceptable:
        print(f"export.py: not within the tolerance; the bundle was left in {unchecked}", file=sys.stderr)
        return 1
    move_bundle(unchecked, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"wrote {out}: {size / 1e6:.1f} MB")
    return 0


def main() -> int:
    try:
        return export(parse_arguments())
    except (ValueError, OSError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
