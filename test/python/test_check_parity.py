"""The parity command: agreement, disagreement, tampering, and the reference package."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import random_config
from programs import run_script

from multiscale.export.bundle_writer import write_bundle
from multiscale.model.checkpoint import save_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.parity.text_windows import text_windows

MAMBA1 = {"block_type": "mamba1", "d_state": 8, "d_conv": 4, "expand": 2}
TRANSFORMER = {"attn_head_dims": 16, "attn_num_heads": 2, "attn_use_rot_embs": True}


@pytest.fixture
def config() -> ModelConfig:
    fields: dict[str, Any] = {"hidden_dims": [64, 32], "seq_lens": [64, 4], "num_layers": [1, 2]}
    return ModelConfig.from_params(
        {"num_tokens": 256, "pad_token_id": 0, "block": [MAMBA1, TRANSFORMER], **fields}, "test"
    )


@pytest.fixture
def model(config: ModelConfig, tmp_path: Path) -> MultiscaleByteModel:
    """A model, its checkpoint and its YAML."""
    model = MultiscaleByteModel(config).eval()
    save_checkpoint(tmp_path / "m.pth", model, 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    return model


def check_parity(folder: Path, *options: str, afresh: bool = False) -> subprocess.CompletedProcess[str]:
    files = ("--checkpoint", folder / "m.pth", "--config", folder / "m.yaml")
    return run_script("check_parity.py", folder / "bundle", *files, *options, afresh=afresh)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_bundle_agrees_with_its_checkpoint(precision: Any, model: MultiscaleByteModel, tmp_path: Path) -> None:
    write_bundle(model, tmp_path / "bundle", "b", precision)
    result = check_parity(tmp_path, "--reference", afresh=precision == "fp32")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the PyTorch model: worst" in result.stdout
    assert "the reference package: worst" in result.stdout
    assert ("its own weights in PyTorch: worst" in result.stdout) == (precision != "fp32")


def test_a_bundle_of_other_weights_is_told(model: MultiscaleByteModel, config: ModelConfig, tmp_path: Path) -> None:
    with torch.no_grad():
        model.stage_models[0].layers[0].mixer.D += 0.1
    write_bundle(model, tmp_path / "bundle", "b", "fp32")
    result = check_parity(tmp_path)
    assert result.returncode == 1
    assert "outside the tolerance against the PyTorch model" in result.stderr


def test_a_changed_file_is_told(model: MultiscaleByteModel, tmp_path: Path) -> None:
    write_bundle(model, tmp_path / "bundle", "b", "fp32")
    content = bytearray((tmp_path / "bundle" / "weights.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bundle" / "weights.bin").write_bytes(content)
    result = check_parity(tmp_path)
    assert result.returncode == 1
    assert "weights.bin differs from the manifest's size or SHA-256" in result.stderr


def test_another_architecture_is_refused(model: MultiscaleByteModel, tmp_path: Path) -> None:
    write_bundle(MultiscaleByteModel(random_config(1)).eval(), tmp_path / "bundle", "b", "fp32")
    result = check_parity(tmp_path)
    assert result.returncode == 2
    assert "another architecture" in result.stderr


def test_a_folder_without_a_manifest_is_refused(model: MultiscaleByteModel, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    result = check_parity(tmp_path)
    assert result.returncode == 2
    assert "is not a bundle" in result.stderr


def test_text_windows_span_the_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10
    (tmp_path / "text").write_bytes(content)
    windows = text_windows(tmp_path / "text", 100)
    assert bytes(windows[0]) == content[:100]
    assert bytes(windows[-1]) == content[-100:]


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"x" * 10)
    with pytest.raises(ValueError, match="has 10 bytes, at least 512 are needed"):
        text_windows(tmp_path / "text", 4000)
