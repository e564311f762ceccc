"""Checkpoint files in the reference package's format: {"MODEL": state dict, "LOSS": float}."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.model.registry import parse_block

StateDict = dict[str, Tensor]

# Names before mblm 0.4 → names since.
_LEGACY_NAMES = (
    (re.compile(r"^token_embs_rev\.0\.weight$"), "token_embs_rev.0.embedding.weight"),
    (re.compile(r"^token_embs_rev\.(\d+)\.0\.weight$"), r"token_embs_rev.\1.embedding.weight"),
    (re.compile(r"^token_embs_rev\.(\d+)\.2\.(weight|bias)$"), r"token_embs_rev.\1._post.1.\2"),
    (re.compile(r"^token_embs_rev\.(\d+)\.3\.(weight|bias)$"), r"token_embs_rev.\1._post.2.\2"),
    (re.compile(r"^token_embs_rev\.(\d+)\.4\.(weight|bias)$"), r"token_embs_rev.\1._post.3.\2"),
)


def write_atomically(path: str | Path, payload: Any) -> None:
    """`torch.save` that leaves either the old file or the complete new one, whatever happens. Raises OSError naming the file."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # half a file on a full disk
        if isinstance(cause := error.__context__, OSError):  # of which PyTorch makes an error of its own
            raise OSError(cause.errno, cause.strerror, str(path)) from None
        raise


def save_checkpoint(path: str | Path, model: MultiscaleByteModel | StateDict, loss: float) -> None:
    """Writes a file that this package and the reference both load."""
    state = model if isinstance(model, dict) else model.state_dict()
    write_atomically(path, {"MODEL": {name: t.detach().cpu() for name, t in state.items()}, "LOSS": float(loss)})


def save_parts(folder: Path, state: StateDict, max_bytes: int) -> None:
    """Several files of at most `max_bytes` bytes of weights each (more only for a single tensor that is larger)."""
    parts: list[StateDict] = [{}]
    size = 0
    for name, tensor in state.items():
        if parts[-1] and size + tensor.nbytes > max_bytes:
            parts.append({})
            size = 0
        parts[-1][name] = tensor.detach().cpu().clone()
        size += tensor.nbytes
    for index, part in enumerate(parts):
        write_atomically(folder / f"part-{index + 1}-of-{len(parts)}.pth", {"MODEL": part, "LOSS": math.nan})


def read_state_dict(path: str | Path) -> StateDict:
    """State dict of a checkpoint, with present-day names: a file, or a folder of parts. Raises ValueError for anything else."""
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    parts = sorted(path.glob("part-*-of-*.pth"))
    if not parts or len(parts) != int(parts[0].stem.rsplit("-", 1)[1]):
        raise ValueError(f"{path}: not a checkpoint ({len(parts)} files named part-I-of-N.pth)")
    return {name: tensor for part in parts for name, tensor in _read_file(part).items()}


def read_entries(path: Path, what: str, *names: str) -> dict[str, Any]:
    """What `torch.save` wrote, in the CPU's memory. Raises ValueError if it is not `what`, which has entries of these names."""
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the unpickler stumbles over in a file that is none
        raise ValueError(f"{path}: not {what} ({type(error).__name__})") from None
    for name in names:
        if not isinstance(payload, dict) or name not in payload:
            raise ValueError(f"{path}: not {what} (no {name} entry)")
    return payload


def _read_file(path: Path) -> StateDict:
    payload = read_entries(path, "a checkpoint", "MODEL")
    state = payload["MODEL"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path}: not a checkpoint (MODEL is no state dict)")
    return {_current_name(name): tensor for name, tensor in state.items()}


def _current_name(name: str) -> str:
    name = name.removeprefix("module.").removeprefix("_orig_mod.")
    for pattern, replacement in _LEGACY_NAMES:
        name, count = pattern.subn(replacement, name)
        if count:
            break
    return name


def resolve_blocks(config: ModelConfig, state: StateDict) -> ModelConfig:
    """Corrects mamba1/mamba2 by the weights: the reference picks one by what it can import, whatever its YAML says."""
    blocks = []
    for stage, block in enumerate(config.blocks):
        if block.block_type in ("mamba1", "mamba2"):
            is_mamba1 = f"stage_models.{stage}.layers.0.mixer.x_proj.weight" in state
            block = parse_block({**block.model_dump(), "block_type": "mamba1" if is_mamba1 else "mamba2"})
        blocks.append(block)
    return config.model_copy(update={"block": blocks})


def load_checkpoint(path: str | Path, config: ModelConfig) -> MultiscaleByteModel:
    """Model with the checkpoint's weights (ours or the reference's), in eval mode. Raises ValueError on a mismatch."""
    state = read_state_dict(path)
    model = MultiscaleByteModel(resolve_blocks(config, state))
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected.keys() - state.keys()]
    problems += [f"unexpected {name}" for name in state.keys() - expected.keys()]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the config needs {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if expected[name].shape != state[name].shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit the config: " + "; ".join(sorted(problems)[:8]))
    model.load_state_dict(state)
    return model.eval()


def initialize(model: MultiscaleByteModel, path: str | Path) -> None:
    """Loads what a checkpoint of the same shape has, for fine-tuning.

    Tables of positions and ids may differ in length: the rows that both have are taken. Raises ValueError where any other
    tensor is missing or has another shape.
    """
    state, own = read_state_dict(path), model.state_dict()
    for name, tensor in own.items():
        given = state.get(name)
        fits = given is not None and given.shape[1:] == tensor.shape[1:]
        is_table = name.startswith(("pos_embs.", "token_embs_rev.", "to_logits.")) and "_post" not in name
        if not fits or (given.shape != tensor.shape and not is_table):
            shape = "missing" if given is None else tuple(given.shape)
            raise ValueError(f"--init-from: {name} is {shape} in {path}, the config needs {tuple(tensor.shape)}")
        rows = min(len(given), len(tensor)) if tensor.dim() else None
        tensor[:rows].copy_(given[:rows]) if rows is not None else tensor.copy_(given)
