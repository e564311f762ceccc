"""The graphs for CUDA, run on the CPU with the reference operators, against PyTorch's full forward."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from conftest import random_config
from programs import run_script

import export as export_command
from multiscale.bench.float64_check import BYTES_FILE, LOGPROBS_FILE
from multiscale.bench.published_shapes import random_model as random_weights
from multiscale.bench.published_shapes import shape_config, text_like
from multiscale.export.bundle_writer import read_manifest, write_bundle
from multiscale.export.cuda.cpu_graph import REFERENCE_LIBRARY, CpuGraph, LibraryError
from multiscale.export.cuda.runner import CudaGraphRunner, FormName, read_weights
from multiscale.export.cuda.support import check_supported
from multiscale.export.cuda.validate import measure, summarize
from multiscale.export.cuda.work_type import ONNX_TYPES, WorkType
from multiscale.export.incremental_runner import read_constants
from multiscale.export.validate import forward_logits, log_softmax, random_prompts
from multiscale.model.checkpoint import save_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel

ROOT = Path(__file__).parents[2]
FORMS: tuple[FormName, ...] = ("small", "large", "fused")


@pytest.fixture(scope="module", autouse=True)
def _reference_operators() -> None:
    subprocess.run(["node", ROOT / "scripts/build-native.mjs", "reference"], check=True, capture_output=True)
    assert REFERENCE_LIBRARY.exists()


def mamba2(**fields: Any) -> dict[str, Any]:
    return {"block_type": "mamba2", "d_state": 8, "d_conv": 4, "expand": 2, "headdim": 16, **fields}


def transformer(heads: int = 2, dim: int = 16, rotary: bool = True, **fields: Any) -> dict[str, Any]:
    sizes = {"attn_head_dims": dim, "attn_num_heads": heads}
    return {"block_type": "transformer", **sizes, "attn_use_rot_embs": rotary, **fields}


def config(dims: list[int], lens: list[int], blocks: list[dict[str, Any]], vocab: int = 256) -> ModelConfig:
    fields = {"hidden_dims": dims, "seq_lens": lens, "num_layers": [2] * len(dims), "block": blocks}
    return ModelConfig.from_params({"num_tokens": vocab, "pad_token_id": 0, **fields})


CONFIGS = {
    "mamba2, transformer": config([32, 48], [64, 4], [mamba2(), transformer()]),
    "transformers": config([48, 32], [9, 5], [transformer(3, pos_emb_type="fixed"), transformer(rotary=False)]),
    "three stages": config(
        [32, 48, 32], [9, 3, 4], [mamba2(), transformer(pos_emb_type="rope"), transformer(pos_emb_type="fixed")]
    ),
    "recurrent middle stage": config(
        [32, 48, 32], [9, 3, 4], [transformer(), mamba2(pos_emb_type="fixed"), transformer()]
    ),
    "recurrent local stage": config([40, 48], [64, 3], [transformer(1, 40), mamba2(d_conv=3)], vocab=257),
    "recurrent stages with positions": config(
        [32, 40], [9, 4], [mamba2(pos_emb_type="fixed"), mamba2(pos_emb_type="rope", headdim=10)]
    ),
    "odd sizes": config([34, 38], [9, 5], [mamba2(headdim=4, d_state=5), transformer(3, 10)], vocab=259),
    "patches of one byte": config([32, 32], [9, 1], [transformer(rotary=False), transformer()]),
    "patches of 32 bytes": config([32, 32], [4, 32], [mamba2(), transformer()]),
}


def random_model(model_config: ModelConfig, seed: int = 0) -> MultiscaleByteModel:
    """Norms, biases and gains differ from what they begin as, so that a wrong one shows."""
    torch.manual_seed(seed)
    model = MultiscaleByteModel(model_config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "start_tokens" not in name and "A_log" not in name:
                parameter += 0.2 * torch.randn_like(parameter)
        model.to_logits.weight *= 4
    return model


def write(model: MultiscaleByteModel, folder: Path, work: WorkType = WorkType.FP32, precision: str = "fp32") -> Path:
    write_bundle(model, folder, "b", precision, cuda=work)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_float32_equals_the_model(name: str, tmp_path: Path) -> None:
    model = random_model(CONFIGS[name])
    accuracy = measure(write(model, tmp_path / "b"), model, random_prompts(model.config))
    assert accuracy.max_logprob_error <= 1e-4
    assert accuracy.greedy_agreement > 0.99


@pytest.mark.parametrize("seed", [1, 2, 3, 5, 6, 7])
def test_float32_equals_models_of_random_shapes(seed: int, tmp_path: Path) -> None:
    model = random_model(random_config(seed, ("mamba2", "transformer")), seed)
    accuracy = measure(write(model, tmp_path / "b"), model, random_prompts(model.config, seed))
    assert accuracy.max_logprob_error <= 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_greedy_bytes_are_those_of_the_full_forward(form: FormName, tmp_path: Path) -> None:
    """Bytes that the graph chooses go back into it, and over borders of all stages."""
    model = random_model(CONFIGS["three stages"])
    forward, runner = forward_logits(model), CudaGraphRunner(write(model, tmp_path / "b"), 2)
    prompts = [[7, 9, 200], list(range(40, 55))]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(26):
            ids.append(int(forward(ids)[-1].argmax()))
        expected.append(ids[len(prompt) :])
    assert runner.generate(prompts, 26, form) == expected
    assert runner.generate(prompts[1:], 26, form, chunk=1) == expected[1:]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["three stages", "recurrent local stage"])
def test_a_sequence_does_not_depend_on_its_neighbours(name: str, form: FormName, tmp_path: Path) -> None:
    """Same bits beside others that end before it, in another slot, which others have used.

    Never one row alone: the CPU's Gemm has another way of doing that. The small form has not.
    """
    model = random_model(CONFIGS[name])
    runner = CudaGraphRunner(write(model, tmp_path / "b"), 4)
    ids, other = list(range(1, 45)), [5] * 44
    many = runner.logits([other, [1, 2, 3], [4] * 20, ids], form)[3]
    few = runner.logits([ids] if form == "small" else [ids, other], form)[0]
    assert np.array_equal(many, few)


@pytest.mark.parametrize("work", WorkType)
@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("mamba2, transformer", ["MambaStep", "LocalPatch"]),
        ("three stages", ["MambaStep", "", "LocalPatch"]),
        ("recurrent middle stage", ["", "MambaStep", "LocalPatch"]),
        ("odd sizes", ["MambaStep", "LocalPatch"]),
        ("recurrent stages with positions", ["MambaStep", ""]),
        ("transformers", ["", "LocalPatch"]),
    ],
)
def test_fused_operators_give_the_bits_of_the_others(
    name: str, operators: list[str], work: WorkType, tmp_path: Path
) -> None:
    """Logits of sequences that are in different places, over borders of all stages, and the states that remain."""
    folder = write(random_model(CONFIGS[name]), tmp_path / "b", work)
    entries = read_manifest(folder)["cuda"]["stages"]
    for entry, operator in zip(entries, operators, strict=True):
        assert ("fused" in entry) == bool(operator)
        if operator:
            kinds = [node.op_type for node in onnx.load(folder / entry["fused"]["graph"]).graph.node]
            assert kinds.count(f"{operator}_{work.suffix}") == 1
            assert len(kinds) <= 6  # what is before and behind the layers
    prompts = [list(range(1, 35)), [7, 9, 200], list(range(60, 90))]
    runners = {form: CudaGraphRunner(folder, 4) for form in ("small", "fused")}
    logits = {form: runner.logits(prompts, form) for form, runner in runners.items()}
    for small, fused in zip(logits["small"], logits["fused"], strict=True):
        assert np.isfinite(small).all()
        assert np.array_equal(small, fused)
    for small, fused in zip(runners["small"].states, runners["fused"].states, strict=True):
        for kind, state in small.items():
            assert np.array_equal(state.memory.view(np.uint8), fused[kind].memory.view(np.uint8))


def test_chunks_of_any_size_give_the_same_bits(tmp_path: Path) -> None:
    model = random_model(CONFIGS["mamba2, transformer"])
    runner = CudaGraphRunner(write(model, tmp_path / "b"), 2)
    prompts = [list(range(1, 46)), list(range(101, 146))]
    chunks = [runner.logits(prompts, "large", chunk) for chunk in (1, 2, 5, 11)]
    for other in chunks[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(chunks[0], other, strict=True))


@pytest.mark.parametrize(("work", "limit"), [(WorkType.FP16, 1e-4), (WorkType.BF16, 5e-3)])
@pytest.mark.parametrize("name", ["mamba2, transformer", "transformers", "recurrent stages with positions"])
def test_half_precision_stays_close(name: str, work: WorkType, limit: float, tmp_path: Path) -> None:
    model = random_model(CONFIGS[name])
    accuracy = measure(write(model, tmp_path / "b", work), model, random_prompts(model.config))
    assert 0 < accuracy.mean_divergence <= limit
    assert accuracy.max_logprob_error > 1e-5  # it is another precision
    assert accuracy.is_acceptable(work)


def test_summary_of_known_errors() -> None:
    expected = np.log(np.array([[0.7, 0.3, 1e-9], [0.4, 0.6 - 1e-9, 1e-9]]))
    actual = np.log(np.array([[0.6, 0.4, 1e-7], [0.6, 0.4 - 1e-9, 1e-9]]))
    accuracy = summarize(actual, expected)
    errors = np.log([7 / 6, 4 / 3, 6 / 4, 6 / 4])
    assert accuracy.max_logprob_error == pytest.approx(errors.max())
    assert accuracy.mean_logprob_error == pytest.approx(errors.mean())  # the third id is below what counts
    divergence = 0.7 * np.log(7 / 6) + 0.3 * np.log(3 / 4) + 0.4 * np.log(4 / 6) + 0.6 * np.log(6 / 4)
    assert accuracy.mean_divergence == pytest.approx(divergence / 2 / np.log(2), rel=1e-6)
    assert (accuracy.greedy_agreement, accuracy.num_positions) == (0.5, 2)
    assert not accuracy.is_acceptable(WorkType.FP32)
    assert not accuracy.is_acceptable(WorkType.BF16)


@pytest.mark.parametrize("work", WorkType)
def test_manifest_tells_every_input(work: WorkType, tmp_path: Path) -> None:
    """Every input of a graph is a weight of the table, a state, or one that the host writes; and none is constant."""
    folder = write(random_model(CONFIGS["three stages"]), tmp_path / "b", work)
    manifest = read_manifest(folder)
    cuda, last = manifest["cuda"], len(manifest["stages"]) - 1
    tensors, size = cuda["weights"]["tensors"], (folder / "cuda-weights.bin").stat().st_size
    ends = 0
    for entry in tensors.values():
        width = 4 if entry["dtype"] == "float32" else 2
        assert entry["bytes"] == width * np.prod(entry["shape"])
        assert entry["offset"] % 256 == 0
        assert ends <= entry["offset"] < ends + 256
        ends = entry["offset"] + entry["bytes"]
    assert ends == size
    host = {"ids", "slot", "position", "contexts", "output_row", "context_row", "child_contexts", "scratch"}
    local = {"rows", "first", "forced", "bias", "counts", "id_flags", "cursor", "ids_out", "logits_out", "scratch"}
    assert cuda["work_type"] == work.dtype
    for index, stage in enumerate(cuda["stages"]):
        states = {state["name"]: state for state in stage["states"]}
        for name in (
            stage["step_graph"],
            stage["chunk_graph"],
            *([stage["fused"]["graph"]] if "fused" in stage else []),
        ):
            assert name in manifest["files"]
            model = onnx.load(folder / name)
            onnx.checker.check_model(model)
            assert not model.graph.initializer
            inputs = {value.name: value.type.tensor_type for value in model.graph.input}
            assert states.keys() <= inputs.keys()
            given = inputs.keys() - tensors.keys() - states.keys()
            assert given <= (local | {"slot", "contexts"} if index == last else host)
            for name, entry in {**tensors, **states}.items():
                if name in inputs:
                    assert inputs[name].elem_type == ONNX_TYPES[entry["dtype"]]
                    shape = [dim.dim_value for dim in inputs[name].shape.dim]
                    assert shape == (entry["shape"] if name in tensors else [0, *entry["shape"]])
    kinds = {state["name"].split(".")[-1]: (state["dtype"], state["axis"]) for state in cuda["stages"][1]["states"]}
    assert kinds["key"] == kinds["value"] == (work.dtype, 1)
    assert kinds["shift_attn"] == kinds["shift_ff"] == ("float32", None)
    assert {tensors[f"stage0.{name}"]["dtype"] for name in ("start_context", "after_start.0.ssm_state")} == {
        work.dtype,
        "float32",
    }


def test_the_device_does_not_inherit_the_precision_of_the_cpu(tmp_path: Path) -> None:
    model = random_model(config([64, 64], [64, 4], [mamba2(), transformer(4)]))
    folders = [write(model, tmp_path / precision, WorkType.FP16, precision) for precision in ("fp32", "int8")]
    contents = [(folder / "cuda-weights.bin").read_bytes() for folder in folders]
    assert contents[0] == contents[1]
    assert (folders[0] / "weights.bin").read_bytes() != (folders[1] / "weights.bin").read_bytes()
    weights, constants = read_weights(folders[0]), read_constants(folders[0])
    for name in ("initial_logits", "scoring_logits"):
        assert np.array_equal(weights[name].memory, constants[name])
    assert np.array_equal(weights["stage0.start_context"].memory, constants["stage0.start_context"].astype(np.float16))


@pytest.mark.parametrize("work", [WorkType.FP16, WorkType.BF16])
def test_rounding_is_to_the_nearest(work: WorkType) -> None:
    values = np.float32([1 + 2**-12, 1 + 3 * 2**-12, -3.14159, 65504, 1e-8])
    expected = torch.from_numpy(values).to(getattr(torch, work.dtype))
    assert work.encode(values) == expected.view(torch.int16).numpy().tobytes()
    assert len(work.encode(values.reshape(5, 1))) == 10


def test_launches_per_byte(tmp_path: Path) -> None:
    """Two layers each. Small: 5 a layer; large: 6 of a Mamba-2 layer, 8 of a transformer layer."""
    part = write_bundle(random_model(CONFIGS["mamba2, transformer"]), tmp_path / "b", "b", "fp32", cuda=WorkType.FP16)
    embed, context, local = 3, 2, 3  # embed, product, position; norm with product, store; byte, head, sampler
    assert part.small_launches == (embed + 2 * 5 + context) / 4 + local + 2 * 5
    gathers, extra_norms, biases = 2, 1, 1  # a product with a bias is two launches
    assert part.large_launches == (embed + 2 * 6 + gathers + 1 + context + biases) / 4 + (
        local + extra_norms + 1 + biases + 2 * 8
    )


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        (config([32], [40], [transformer()]), "one stage"),
        (config([32, 32], [40, 4], [{"block_type": "gru"}, transformer()]), "stage 0 is made of 'gru' blocks"),
        (
            config([32, 32], [40, 4], [mamba2(), {**mamba2(), "block_type": "mamba1"}]),
            "stage 1 is made of 'mamba1' blocks",
        ),
        (config([32, 32], [40, 33], [mamba2(), transformer()]), "up to 32 bytes"),
        (config([32, 32], [40, 4], [mamba2(), transformer(dim=15, rotary=False)]), "attn_head_dims of stage 1"),
    ],
)
def test_models_that_cuda_cannot_run_are_refused(model_config: ModelConfig, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        check_supported(model_config)
    with pytest.raises(ValueError, match=message):
        write_bundle(MultiscaleByteModel(model_config), tmp_path / "b", "b", "fp32", cuda=WorkType.FP16)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_accuracy_is_not_measured_without_a_library_that_fits(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """One that is damaged, or none: the bundle is written all the same, and says that it was not measured."""
    model = random_model(CONFIGS["mamba2, transformer"])
    save_checkpoint(tmp_path / "m.pth", model, 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": model.config.to_yaml_dict()}))
    if is_there:
        (tmp_path / "old.so").write_text("old")
    monkeypatch.setattr(export_command, "REFERENCE_LIBRARY", tmp_path / "old.so")
    files = {"checkpoint": "m.pth", "config": "m.yaml", "out": "b"}
    given = [text for option, file in files.items() for text in (f"--{option}", str(tmp_path / file))]
    monkeypatch.setattr(sys, "argv", ["export.py", *given, "--cuda", "fp32"])
    assert export_command.main() == 0
    said = capsys.readouterr().out
    assert f"accuracy not measured, {tmp_path / 'old.so'} {'does not run' if is_there else 'is not built'}" in said
    assert "node scripts/build-native.mjs reference" in said
    assert "cuda" not in read_manifest(tmp_path / "b")["validation"]


def test_a_library_without_an_operator_of_a_graph_is_named(tmp_path: Path) -> None:
    node = onnx.helper.make_node("OfTomorrow", ["x"], ["done"], domain="mblm")
    value = onnx.helper.make_tensor_value_info
    ends = [value(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "done")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    imports = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("mblm", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "new.onnx")
    with pytest.raises(LibraryError, match=r"libmblm_ops_reference\.so does not run new\.onnx: .*OfTomorrow"):
        CpuGraph(tmp_path / "new.onnx", REFERENCE_LIBRARY)


def export(tmp_path: Path, model: MultiscaleByteModel, *options: str) -> subprocess.CompletedProcess[str]:
    save_checkpoint(tmp_path / "m.pth", model, 1.0)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": model.config.to_yaml_dict()}))
    files = ("--checkpoint", tmp_path / "m.pth", "--config", tmp_path / "m.yaml", "--out", tmp_path / "b")
    return run_script("export.py", *files, *options)


def test_command_measures_what_the_type_costs(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(bytes(range(1, 251)) * 4)
    model = random_model(CONFIGS["transformers"])
    result = export(tmp_path, model, "--cuda", "bf16", "--calibration-text", str(tmp_path / "text"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "kernel launches per byte" in result.stdout
    assert "CUDA bf16 against float64: |Δ log-prob| max" in result.stdout
    manifest = read_manifest(tmp_path / "b")
    cost = manifest["validation"]["cuda"]
    assert cost["prompts"] == "text"
    assert 1e-5 < cost["mean_abs_logprob_error"] < cost["max_abs_logprob_error"] < 1
    assert 0.9 < cost["greedy_agreement"] <= 1
    assert manifest["cuda"]["work_type"] == "bfloat16"


def test_command_refuses_what_cuda_cannot_run(tmp_path: Path) -> None:
    result = export(tmp_path, MultiscaleByteModel(config([32], [40], [mamba2()])), "--cuda", "fp16")
    assert result.returncode == 2
    assert "--cuda: models with one stage are served on the CPU" in result.stderr
    assert not (tmp_path / "b").exists()


def test_a_bundle_may_be_for_the_device_alone(tmp_path: Path) -> None:
    """Then it has no graphs for the CPU, and is the same otherwise."""
    model = random_model(CONFIGS["three stages"])
    write_bundle(model, tmp_path / "both", "b", "fp32", cuda=WorkType.FP32)
    write_bundle(model, tmp_path / "alone", "b", "fp32", cuda=WorkType.FP32, cpu_graphs=False)
    both, alone = read_manifest(tmp_path / "both"), read_manifest(tmp_path / "alone")
    assert not both["cuda"].pop("only")
    assert alone["cuda"].pop("only")
    assert both["files"].keys() - alone["files"].keys() == {"stage0.onnx", "stage1.onnx", "stage2.onnx", "weights.bin"}
    assert set(alone["files"]) == {path.name for path in (tmp_path / "alone").iterdir()} - {"manifest.json"}
    for manifest in (both, alone):
        del manifest["files"], manifest["created"]
    assert alone == both
    assert (tmp_path / "alone/cuda-weights.bin").read_bytes() == (tmp_path / "both/cuda-weights.bin").read_bytes()


def test_benchmark_bundle_agrees_with_its_float64_log_probs(tmp_path: Path) -> None:
    """The published widths, one layer a stage."""
    shape = ("--shape", "2d-st", "--layers-divisor", 99, "--cuda", "fp32")
    result = run_script("make_bench_bundle.py", *shape, "--check-fp64", 21, "--out", tmp_path / "b", afresh=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert read_manifest(tmp_path / "b")["architecture"]["context_length"] == 8192
    ids = (tmp_path / "b" / BYTES_FILE).read_bytes()
    assert set(ids) <= set(b"abcdefghijklmnopqrstuvwxyz ")
    expected = np.load(tmp_path / "b" / LOGPROBS_FILE)
    assert expected.shape == (21, 256)
    (logits,) = CudaGraphRunner(tmp_path / "b", 1).logits([list(ids)], "large")
    accuracy = summarize(log_softmax(logits), expected.astype(np.float64))
    assert accuracy.max_logprob_error <= 1e-4
    assert -expected.max(1).mean() < 3  # as sure of itself as a model that has learnt something


def test_benchmark_bundle_of_a_config(tmp_path: Path) -> None:
    model_config = CONFIGS["three stages"]
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"params": model_config.to_yaml_dict()}))
    command = ("make_bench_bundle.py", "--config", tmp_path / "m.yaml", "--cuda", "fp16")
    result = run_script(*command, "--out", tmp_path / "b")
    assert result.returncode == 0, result.stdout + result.stderr
    assert read_manifest(tmp_path / "b")["architecture"]["hidden_dims"] == model_config.hidden_dims
    result = run_script(*command, "--width", 64, "--out", tmp_path / "c")
    assert result.returncode == 2
    assert "--layers-divisor and --width go with --shape" in result.stderr


def test_random_models_of_the_published_shapes_depend_on_their_seed() -> None:
    config = ModelConfig.from_params({**shape_config("2d-ss").to_yaml_dict(), "hidden_dims": [64, 64]})
    small = config.model_copy(update={"num_layers": [1, 1]})
    weights = [random_weights(small, seed).state_dict()["to_logits.weight"] for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert text_like(100, 1) == text_like(200, 1)[:100] != text_like(100, 2)
