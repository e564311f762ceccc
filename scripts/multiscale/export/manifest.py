"""The bundle's manifest: everything the server needs to know, and nothing it has to guess."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import multiscale
from multiscale.export.graph_builder import IR_VERSION, OPSET
from multiscale.export.stage_graph import StageGraph, max_rows, max_steps
from multiscale.model.config import ModelConfig

FORMAT, FORMAT_VERSION = "mblm-bundle", 2
ONNXRUNTIME_VERSION = "1.30.0"
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A plain transcript, for models that were not trained on conversations (Jinja, as in Hugging Face tokenizers)."""
DEFAULT_CHAT_STOP = ["\n\nuser:", "\n\nsystem:"]
_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64", onnx.TensorProto.INT32: "int32"}


def architecture(config: ModelConfig) -> dict[str, Any]:
    steps = max_steps(config, 0)
    return {
        "num_stages": config.num_stages,
        "vocab_size": config.num_tokens,
        "pad_token_id": config.pad_token_id,
        "seq_lens": list(config.seq_lens),
        "hidden_dims": list(config.hidden_dims),
        "num_layers": list(config.num_layers),
        "bytes_per_step": [config.bytes_per_step(i) for i in range(config.num_stages)],
        "blocks": [block.model_dump(mode="json") for block in config.blocks],
        "context_length": config.context_length,
        "max_length": None if steps is None else steps * config.bytes_per_step(0),
    }


def stage_entry(config: ModelConfig, stage: int, graph: StageGraph, prefill: StageGraph | None) -> dict[str, Any]:
    """`graph` is what decoding runs; `prefill` the chunk form of a model with a single stage."""
    is_local = stage == config.num_stages - 1
    return {
        "index": stage,
        "role": "local" if is_local else ("global" if stage == 0 else "middle"),
        "block_type": config.blocks[stage].block_type,
        "graph": f"stage{stage}.onnx",
        "prefill_graph": f"stage{stage}_prefill.onnx" if prefill else None,
        "bytes_per_step": config.bytes_per_step(stage),
        "seq_len": config.seq_lens[stage],
        "width": config.hidden_dims[stage],
        "max_steps": max_steps(config, stage),
        "max_rows": max_rows(config, stage),
        "inputs": [_value_info(v) for v in graph.model.graph.input],
        "outputs": [_value_info(v) for v in graph.model.graph.output],
        "states": [
            {
                "layer": state.layer,
                "kind": state.kind,
                "past": state.past,
                "present": state.present,
                "dtype": "float32",
                "shape": list(state.shape),
                "update": state.update,
                "reset": state.reset,
                "initial": {"tensor": f"stage{stage}.after_start.{state.layer}.{state.kind}"},
            }
            for state in graph.builder.states
        ],
        "start_context": None if is_local else {"tensor": f"stage{stage}.start_context"},
        "num_parameters": graph.builder.num_parameters,
        "weight_bytes": graph.builder.weight_bytes,
    }


def chat_entry(template: str | None, stop: list[str] | None) -> dict[str, Any]:
    """How conversations become text, and what ends the assistant's turn beside the end id."""
    if template is None:
        return {"template": DEFAULT_CHAT_TEMPLATE, "stop": DEFAULT_CHAT_STOP if stop is None else stop}
    return {"template": template, "stop": stop or []}


def _value_info(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    return {"name": value.name, "dtype": _DTYPES[tensor.elem_type], "shape": shape}


def pack_constants(constants: dict[str, np.ndarray]) -> tuple[bytes, dict[str, Any]]:
    """`constants.bin` and its table: little-endian float32, 64-byte aligned."""
    content, table = bytearray(), {}
    for name, array in constants.items():
        content += b"\0" * (-len(content) % 64)
        data = np.ascontiguousarray(array, "<f4").tobytes()
        table[name] = {"dtype": "float32", "shape": list(array.shape), "offset": len(content), "bytes": len(data)}
        content += data
    return bytes(content), table


def file_entry(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def header(name: str, precision: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "producer": {
            "name": "multiscale",
            "version": multiscale.__version__,
            "onnxruntime": ONNXRUNTIME_VERSION,
            "opset": OPSET,
            "ir_version": IR_VERSION,
        },
        "precision": precision,
    }
