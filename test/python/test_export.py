"""Bundles against PyTorch: ours, and the reference package's own generate."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import random_config
from programs import run_script

import evaluate
import export
from multiscale.export.bundle_writer import move_bundle, read_manifest, write_bundle
from multiscale.export.incremental_runner import IncrementalRunner
from multiscale.export.quantize import dequantize_blocks, quantize_blocks
from multiscale.export.read_bundle import load_model
from multiscale.export.validate import compare, forward_logits, log_softmax, random_prompts
from multiscale.model.checkpoint import save_checkpoint
from multiscale.model.network import MultiscaleByteModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mblm import MBLM, MBLMModelConfig, MBLMReturnType

ROOT = Path(__file__).parents[2]


def run_export(folder: Path, files: dict[str, str], afresh: bool = False) -> subprocess.CompletedProcess[str]:
    """The command; `files`: names in the folder by option."""
    given = [text for option, file in files.items() for text in (f"--{option}", folder / file)]
    return run_script("export.py", *given, afresh=afresh)


@pytest.mark.parametrize("seed", range(16))
def test_fp32_bundle_equals_the_model(seed: int, tmp_path: Path) -> None:
    model = MultiscaleByteModel(random_config(seed)).eval()
    write_bundle(model, tmp_path / "b", "b", "fp32")
    comparison = compare(tmp_path / "b", forward_logits(model), random_prompts(model.config))
    assert comparison.max_logprob_error <= 1e-4


@pytest.mark.parametrize("seed", range(12))
def test_bundle_of_a_reference_checkpoint_equals_the_reference(seed: int, tmp_path: Path) -> None:
    """The reference's own generate and forward, on its own checkpoint, exported by the command."""
    config = random_config(seed, ("mamba1", "transformer"))
    reference = MBLM(MBLMModelConfig(**config.to_yaml_dict())).eval()
    torch.save({"MODEL": reference.state_dict(), "LOSS": 0.0}, tmp_path / "reference.pth")
    (tmp_path / "reference.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    files = {"checkpoint": "reference.pth", "config": "reference.yaml", "out": "bundle"}
    result = run_export(tmp_path, files, afresh=seed == 0)
    assert result.returncode == 0, result.stdout + result.stderr
    runner, rng = IncrementalRunner(tmp_path / "bundle"), random.Random(seed)
    for length in (0, 1, config.bytes_per_step(0), config.bytes_per_step(0) + 1):
        prompt = [rng.randrange(1, 256) for _ in range(length)]
        new = min(6, config.context_length - length)
        ids = (
            reference.generate(
                torch.tensor(prompt, dtype=torch.long),
                num_tokens_to_generate=new,
                temperature=1e-6,
                enable_progress=False,
            )
            .flatten()[-new:]
            .tolist()
        )
        runner.reset()
        logits = runner.initial_logits if not prompt else [runner.feed(byte) for byte in prompt][-1]
        for k, byte in enumerate(ids):
            seen = torch.tensor([prompt + ids[:k]], dtype=torch.long)
            with torch.no_grad():
                expected = log_softmax(reference(seen, return_type=MBLMReturnType.LOGITS)[0, -1:].numpy())[0]
            actual = log_softmax(logits[None])[0]
            assert np.abs(actual - expected).max() <= 1e-4
            assert int(actual.argmax()) == int(expected.argmax())
            logits = runner.feed(byte)


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 1e-5), ("int8", 2e-3)])
def test_reduced_precision_stays_close(precision: str, limit: float, tmp_path: Path) -> None:
    model = MultiscaleByteModel(random_config(1)).eval()
    with torch.no_grad():
        model.to_logits.weight *= 100  # as sure of itself as a trained model, so that errors show
    write_bundle(model, tmp_path / "b", "b", precision)
    assert compare(tmp_path / "b", forward_logits(model), random_prompts(model.config)).mean_divergence <= limit


@pytest.mark.parametrize("block", [32, 64])
def test_quantisation_error_is_at_most_half_a_step(block: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((128, 24)).astype(np.float32)
    values, scales = quantize_blocks(matrix, block)
    assert values.dtype == np.uint8
    assert np.abs(dequantize_blocks(values, scales) - matrix).max() <= scales.max() / 2 + 1e-7


def test_a_zero_block_is_quantised_to_zero() -> None:
    values, scales = quantize_blocks(np.zeros((64, 3), np.float32), 64)
    assert np.all(dequantize_blocks(values, scales) == 0)


def test_the_default_model_reads_back_as_pytorch() -> None:
    """The weights that are served, in PyTorch: same predictions up to the rounding of 8-bit activations."""
    folder = ROOT / "models" / "books"
    model, text = load_model(folder), b"It is a truth universally acknowledged, that a single man"
    expected = log_softmax(forward_logits(model)(list(text)))
    runner = IncrementalRunner(folder)
    actual = log_softmax(np.stack([runner.feed(byte) for byte in text]))
    divergence = (np.exp(expected) * (expected - actual)).sum(-1).mean() / np.log(2)
    assert divergence < 1e-3
    bits = -expected[np.arange(len(text) - 1), list(text[1:])].mean() / np.log(2)
    assert bits < 2.5  # it has learnt English


def test_command_refuses_what_does_not_fit(tmp_path: Path) -> None:
    config = random_config(1)
    save_checkpoint(tmp_path / "m.pth", MultiscaleByteModel(config), 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": {**config.to_yaml_dict(), "hidden_dims": [16, 16]}}))
    result = run_export(tmp_path, {"checkpoint": "m.pth", "config": "m.yaml", "out": "b"})
    assert result.returncode == 2
    assert "does not fit the config" in result.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.pth", "junk", "m.pth: not a checkpoint"),
        ("m.pth", [1], "m.pth: not a checkpoint (MODEL is no state dict)"),
        ("m.yaml", "params: [", "m.yaml: not YAML"),
        ("m.yaml", "params: null", "m.yaml: no `params:` section"),
        ("m.yaml", "params: [1]", "m.yaml: params: expected a section of keys"),
        ("facts.json", "[1]", "facts.json holds no JSON object"),
        ("facts.json", "{", "facts.json is not JSON"),
    ],
)
def test_command_names_the_file_it_cannot_read(
    name: str, content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    config = random_config(1)
    save_checkpoint(tmp_path / "m.pth", MultiscaleByteModel(config), 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    (tmp_path / "facts.json").write_text("{}")
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        torch.save({"MODEL": content}, tmp_path / name)
    files = {"out": "b", "config": "m.yaml", "checkpoint": "m.pth", "training-facts": "facts.json"}
    arguments = [text for option, file in files.items() for text in (f"--{option}", str(tmp_path / file))]
    monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
    assert export.main() == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "manifest.json: not JSON"),
        ("{}", "manifest.json: not a bundle's manifest"),
        ('{"format": "mblm-bundle", "format_version": 1}', "format_version is 1, not 2: export the model again"),
        ('{"format": "mblm-bundle", "format_version": 2}', "the manifest has no architecture.seq_lens"),
    ],
)
def test_a_folder_that_is_no_bundle_is_named(
    manifest: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    given = ["--bundle", str(tmp_path), "--data", str(tmp_path), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "text", *given])
    assert evaluate.main() == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("task", ["text", "position"])
def test_an_empty_file_is_named(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    config = random_config(1)
    save_checkpoint(tmp_path / "m.pth", MultiscaleByteModel(config), 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    (tmp_path / "empty.txt").touch()
    files = {"checkpoint": "m.pth", "config": "m.yaml", "data": "empty.txt"}
    given = [text for option, file in files.items() for text in (f"--{option}", str(tmp_path / file))]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", task, *given, "--device", "cpu"])
    assert evaluate.main() == 2
    assert f"--data: {tmp_path / 'empty.txt'} is empty" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["evaluate.py", task, *given, "--limit-bytes", "0"])
    assert evaluate.main() == 2
    assert "--limit-bytes: 0 is not at least 1" in capsys.readouterr().err


def test_a_bundle_outside_the_tolerance_replaces_nothing(tmp_path: Path) -> None:
    """Logits in the hundreds magnify float32 rounding beyond 1e-4; the bundle that is there stays."""
    config = random_config(1)
    model = MultiscaleByteModel(config)
    write_bundle(model, tmp_path / "b", "good", "fp32")
    with torch.no_grad():
        model.to_logits.weight *= 1000
    save_checkpoint(tmp_path / "m.pth", model, 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    result = run_export(tmp_path, {"checkpoint": "m.pth", "config": "m.yaml", "out": "b"})
    assert result.returncode == 1, result.stdout
    assert "the bundle was left in" in result.stderr
    assert read_manifest(tmp_path / "b")["name"] == "good"
    assert read_manifest(tmp_path / "b.failed")["validation"]["max_abs_logprob_error"] > 1e-4


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, from inside of the folder, too: clients know the bundle by the name that was given."""
    config = random_config(1)
    model = MultiscaleByteModel(config)
    save_checkpoint(tmp_path / "m.pth", model, 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": config.to_yaml_dict()}))
    write_bundle(model, tmp_path / "folders" / "first", "old", "fp32")
    (tmp_path / "link").symlink_to(tmp_path / "folders" / "first")
    for where, out, name in ((tmp_path, "link", "link"), (tmp_path / "folders" / "first", ".", "first")):
        monkeypatch.chdir(where)
        files = ["--checkpoint", str(tmp_path / "m.pth"), "--config", str(tmp_path / "m.yaml"), "--out", out]
        monkeypatch.setattr(sys, "argv", ["export.py", *files])
        assert export.main() == 0
        assert (tmp_path / "link").is_symlink()
        assert read_manifest(tmp_path / "link")["name"] == name
        assert [path.name for path in (tmp_path / "folders").iterdir()] == ["first"]


def test_there_is_a_bundle_while_the_old_one_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    present = []
    rmtree = shutil.rmtree

    def watched(*arguments: object, **options: object) -> None:
        present.append((tmp_path / "old" / "manifest.json").exists())
        rmtree(*arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    move_bundle(tmp_path / "new", tmp_path / "old")
    assert present
    assert all(present)
    assert (tmp_path / "old" / "manifest.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    # If the new one cannot take its place, the old one does again.
    with pytest.raises(OSError, match="nowhere"):
        move_bundle(tmp_path / "nowhere", tmp_path / "old")
    assert (tmp_path / "old" / "manifest.json").read_text() == "new"


def test_manifest_states_what_is_there(tmp_path: Path) -> None:
    model = MultiscaleByteModel(random_config(2)).eval()
    write_bundle(model, tmp_path / "b", "named", "fp32", eos_id=3, training={"steps": 7})
    manifest = read_manifest(tmp_path / "b")
    assert manifest["name"] == "named"
    assert manifest["special_ids"]["eos"] == 3
    assert manifest["training"] == {"steps": 7}
    assert set(manifest["files"]) == {p.name for p in (tmp_path / "b").iterdir()} - {"manifest.json"}
    assert json.loads((tmp_path / "b" / "manifest.json").read_text()) == manifest
