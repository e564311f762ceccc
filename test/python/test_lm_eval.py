"""lm-eval drives the server with no tokenizer of its own; its log-likelihoods are PyTorch's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from serving import Server, serve

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import write_bundle
from multiscale.model.network import MultiscaleByteModel

EOS = 256
TOLERANCE = 1e-4
"""Per byte; lm-eval reports sums."""
DOCUMENTS = [
    {"text": f"Question {i}: what is it, é or €?", "choices": [f"answer {i}", "something else 😀", "no"], "gold": i % 3}
    for i in range(5)
]
TASKS = {
    "bytes_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    },
    "bytes_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "bytes_generate": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 24},
        "metric_list": [{"metric": "exact_match"}],
    },
}

Samples = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def model() -> MultiscaleByteModel:
    return random_model(config([48, 32], [512, 4], [mamba2(), transformer()], vocab=257), seed=7)


@pytest.fixture(scope="module")
def server(model: MultiscaleByteModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bundle = tmp_path_factory.mktemp("lm_eval") / "tiny"
    write_bundle(model, bundle, "tiny", "fp32", EOS)
    with serve(bundle) as server:
        yield server


@pytest.fixture(scope="module")
def samples(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Runs all tasks in one call of the command line; its samples by task."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}}}
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, "test_split": "test", **data, **task}))
    arguments = {
        "model": "tiny",
        "base_url": f"{server.url}/v1/completions",
        "tokenizer_backend": "remote",
        "num_concurrent": 3,
    }
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--log_samples"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())]
    command += ["--tasks", ",".join(TASKS), "--include_path", str(folder), "--output_path", str(folder / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: next((folder / "out").rglob(f"samples_{name}_*.jsonl")) for name in TASKS}
    return {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in found.items()}


def log_likelihood(model: MultiscaleByteModel, context: list[int], continuation: bytes) -> tuple[float, bool]:
    """Sum of the continuation's log-probs by the full forward, and whether each byte is the most likely one."""
    ids = context + list(continuation)
    with torch.no_grad():
        logits = model.aligned_logits(torch.tensor([ids]))[0, len(context) :].double()
    chosen = torch.tensor(list(continuation))
    total = torch.log_softmax(logits, -1).gather(1, chosen[:, None]).sum()
    return float(total), bool((logits.argmax(-1) == chosen).all())


def test_log_likelihoods_of_choices(model: MultiscaleByteModel, samples: Samples) -> None:
    assert len(samples["bytes_choice"]) == len(DOCUMENTS)
    for sample in samples["bytes_choice"]:
        for request, [[value, is_greedy]] in zip(sample["arguments"].values(), sample["resps"], strict=True):
            continuation = request["arg_1"].encode()
            expected, greedy = log_likelihood(model, list(request["arg_0"].encode()), continuation)
            assert float(value) == pytest.approx(expected, abs=TOLERANCE * len(continuation))
            assert (is_greedy == "True") == greedy


def test_rolling_log_likelihoods(model: MultiscaleByteModel, samples: Samples) -> None:
    """The whole text, after the end id that stands for no context."""
    for sample in samples["bytes_rolling"]:
        text = sample["doc"]["text"].encode()
        expected, _ = log_likelihood(model, [EOS], text)
        assert float(sample["resps"][0][0]) == pytest.approx(expected, abs=TOLERANCE * len(text))


def test_generation(model: MultiscaleByteModel, samples: Samples) -> None:
    for sample in samples["bytes_generate"]:
        ids = list(sample["doc"]["text"].encode())
        start = len(ids)
        with torch.no_grad():
            while (len(ids) < start + 24 and ids[-1] not in (EOS, ord("e"))) or len(ids) == start:
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        expected = bytes(byte for byte in ids[start:] if byte < 256).split(b"e")[0].decode("utf-8", "replace")
        assert sample["resps"][0][0] == expected
