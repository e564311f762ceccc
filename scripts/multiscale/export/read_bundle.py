"""Reads a bundle back into a PyTorch state dict: exactly the weights that are served, with int8 and fp16 widened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from multiscale.export.bundle_writer import read_manifest
from multiscale.export.incremental_runner import read_constants
from multiscale.export.quantize import dequantize_blocks
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel


def read_config(folder: Path) -> ModelConfig:
    """Raises ValueError naming what the manifest lacks."""
    arch = read_manifest(folder).get("architecture")
    keys = ("seq_lens", "hidden_dims", "num_layers", "pad_token_id")
    for key in (*keys, "vocab_size", "blocks"):
        if not isinstance(arch, dict) or key not in arch:
            raise ValueError(f"{folder}: the manifest has no architecture.{key}")
    return ModelConfig.from_params(
        {**{key: arch[key] for key in keys}, "num_tokens": arch["vocab_size"], "block": arch["blocks"]}, str(folder)
    )


def load_model(folder: Path) -> MultiscaleByteModel:
    """The served model in PyTorch. Raises ValueError for bundles with padded attention heads or GRU stages."""
    model = MultiscaleByteModel(read_config(folder))
    expected = model.state_dict()
    constants = read_constants(folder)
    state = {name: torch.from_numpy(array) for name, array in _read_entries(folder).items() if name in expected}
    for name, tensor in expected.items():
        if name.endswith("rotary_emb.inv_freq"):
            state[name] = tensor
        elif name.startswith("start_tokens."):
            state[name] = torch.from_numpy(constants[name].copy())
    missing = sorted(expected.keys() - state.keys())
    if missing:
        raise ValueError(f"{folder} cannot be read back: {', '.join(missing[:4])}")
    model.load_state_dict({name: state[name].reshape(expected[name].shape) for name in expected})
    return model.eval()


def _initializers(folder: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("stage*.onnx")):
        model = onnx.load(path, load_external_data=True)
        tensors |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return tensors


def _read_entries(folder: Path) -> dict[str, np.ndarray]:
    """Undoes the naming scheme of `graph_builder`."""
    raw, entries = _initializers(folder), {}
    for name, array in raw.items():
        base, _, change = name.partition("#")
        if change == "int8":
            array = dequantize_blocks(array, raw[base + "#scales"])
        elif change == "neg_exp":
            array = np.log(-array)
        elif change.startswith("repeat"):
            array = array[:: int(change[6:])]
        elif change:
            continue
        array = array.astype(np.float32)
        if change == "int8" or (array.ndim == 2 and _is_matrix(base)):
            array = array.T
        entries |= _split(base, array)
    return {name: np.ascontiguousarray(array) for name, array in entries.items()}


def _is_matrix(name: str) -> bool:
    return name.endswith("weight") and "embedding" not in name and not name.startswith("pos_embs")


def _split(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Only to_q+to_kv is stacked: one third and two thirds of the rows."""
    parts = name.split("+")
    if len(parts) == 1:
        return {name: array}
    third = array.shape[0] // 3
    return {parts[0]: array[:third], parts[1]: array[third:]}
