"""Writes a bundle directory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from multiscale.export.after_start import compute_constants
from multiscale.export.cuda.bundle_part import CudaPart, write_cuda_part
from multiscale.export.cuda.support import check_supported
from multiscale.export.cuda.work_type import WorkType
from multiscale.export.graph_builder import Precision
from multiscale.export.manifest import (
    FORMAT,
    FORMAT_VERSION,
    architecture,
    chat_entry,
    file_entry,
    header,
    pack_constants,
    stage_entry,
)
from multiscale.export.stage_graph import build_stage_graph
from multiscale.export.weight_store import FILE_NAME, WeightStore
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

MANIFEST, CONSTANTS = "manifest.json", "constants.bin"


def write_bundle(
    model: MultiscaleByteModel,
    out: Path,
    name: str,
    precision: Precision,
    eos_id: int | None = None,
    training: dict[str, Any] | None = None,
    chat: dict[str, Any] | None = None,
    cuda: WorkType | None = None,
    cpu_graphs: bool = True,
) -> CudaPart | None:
    """Writes the bundle to a temporary folder beside `out` and moves it there when it is complete.

    `chat` is a `chat_entry`, by default a plain transcript. With `cuda` the bundle can also be run on a device, without
    `cpu_graphs` only there.

    Raises ValueError if `eos_id` is outside the vocabulary, `out` exists and is not a bundle, or CUDA cannot run the model.
    """
    config = model.config
    if cuda is not None:
        check_supported(config)
    if eos_id is not None and not 0 <= eos_id < config.num_tokens:
        raise ValueError(f"--eos-id: {eos_id} is outside the vocabulary of {config.num_tokens}")
    out = check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        chat, facts = chat or chat_entry(None, None), training or {}
        part = _write_files(model, folder, name, precision, eos_id, facts, chat, cuda, cpu_graphs)
        folder.chmod(0o755)
        move_bundle(folder, out)
        return part
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check_target(out: Path) -> Path:
    """The folder that `out` means, symbolic links followed: a link stays, and the folder that it points to is replaced.

    Raises ValueError if it exists and is not a bundle: only bundles are ever replaced.
    """
    if out.exists() and not (out / MANIFEST).exists():
        raise ValueError(f"--out: {out} exists and is not a bundle")
    return Path(os.path.realpath(out))


def move_bundle(folder: Path, out: Path) -> None:
    """Moves a bundle to `out`, in place of the bundle there, if any, which is deleted when the new one has its place."""
    out = check_target(out)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        old = Path(aside) / "old"
        if out.exists():
            out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


def _write_files(
    model: MultiscaleByteModel,
    folder: Path,
    name: str,
    precision: Precision,
    eos_id: int | None,
    training: dict[str, Any],
    chat: dict[str, Any],
    cuda: WorkType | None,
    cpu_graphs: bool,
) -> CudaPart | None:
    config = model.config
    weights = {key: tensor.detach().float().cpu().numpy() for key, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        constants = compute_constants(config, weights, precision, Path(scratch))
        exact = constants
        if cuda is not None and precision != "fp32":
            exact = compute_constants(config, weights, "fp32", Path(scratch))
    part = None if cuda is None else write_cuda_part(folder, config, weights, exact, cuda)
    stages = _write_cpu_graphs(folder if cpu_graphs else None, config, weights, precision)
    content, table = pack_constants(constants)
    (folder / CONSTANTS).write_bytes(content)
    pad = config.pad_token_id
    manifest = {
        **header(name, precision),
        "architecture": architecture(config),
        "special_ids": {"pad": pad, "bos": None, "eos": eos_id},
        "stages": stages,
        "initial_logits": {"tensor": "initial_logits"},
        "scoring_logits": {"tensor": "scoring_logits"},
        "chat": chat,
        "constants": {"file": CONSTANTS, "tensors": table},
        **({} if part is None else {"cuda": {**part.manifest, "only": not cpu_graphs}}),
        "files": {path.name: file_entry(path) for path in sorted(folder.iterdir())},
        "validation": None,
        "training": training,
    }
    write_manifest(folder, manifest)
    return part


def _write_cpu_graphs(
    folder: Path | None, config: ModelConfig, weights: dict[str, np.ndarray], precision: Precision
) -> list[dict[str, Any]]:
    """Returns the manifest's `stages`. Without a folder nothing is written: they only say what the stages are."""
    store, stages = WeightStore(keeps_content=folder is not None), []
    for stage in range(config.num_stages):
        is_local, is_alone = stage == config.num_stages - 1, config.num_stages == 1
        graph = build_stage_graph(config, weights, stage, "step" if is_local else "chunk", store, precision)
        prefill = build_stage_graph(config, weights, stage, "chunk", store, precision) if is_alone else None
        if folder is not None:
            (folder / f"stage{stage}.onnx").write_bytes(graph.model.SerializeToString())
            if prefill is not None:
                (folder / f"stage{stage}_prefill.onnx").write_bytes(prefill.model.SerializeToString())
        stages.append(stage_entry(config, stage, graph, prefill))
    if folder is not None:
        (folder / FILE_NAME).write_bytes(store.content())
    return stages


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    temporary = folder / (MANIFEST + ".tmp")
    temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises ValueError if it is not the manifest of a bundle of this format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{path}: not a bundle's manifest (format is not {FORMAT!r})")
    if (version := manifest.get("format_version")) != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version is {version!r}, not {FORMAT_VERSION}: export the model again")
    return manifest
