"""The memory planner against what the allocator is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from multiscale.model.network import MultiscaleByteModel
from multiscale.train import optimizer
from multiscale.train.chunked import Chunking, chunked_loss
from multiscale.train.config import RunConfig
from multiscale.train.memory_plan import MemoryPlanner
from multiscale.train.memory_report import report
from multiscale.train.memory_trace import LiveBytes
from multiscale.train.optimizer import build_optimizer

ROOT = Path(__file__).parents[2]
MAMBA = {"block_type": "mamba2", "d_state": 16, "d_conv": 4, "expand": 2, "headdim": 32}
TRANSFORMER = {"block_type": "transformer", "attn_head_dims": 16, "attn_num_heads": 4, "attn_use_rot_embs": True}
STAGES = {
    "1 stage": {"hidden_dims": [64], "seq_lens": [2048], "num_layers": [3], "block": [MAMBA]},
    "2 stages": {"hidden_dims": [96, 64], "seq_lens": [512, 8], "num_layers": [2, 3], "block": [MAMBA, TRANSFORMER]},
    "3 stages": {
        **{"hidden_dims": [96, 96, 64], "seq_lens": [64, 16, 8], "num_layers": [2, 2, 3]},
        "block": [MAMBA, MAMBA, TRANSFORMER],
    },
}


def config_of(tmp_path: Path, stages: str, **train: object) -> RunConfig:
    path = tmp_path / "config.yaml"
    sections = {
        "params": {"num_tokens": 256, "pad_token_id": 0, **STAGES[stages]},
        "io": {"dataset_dir": "nowhere"},
        "train": {"target_elements": 1, "batch_size": 1, "learning_rate": 0.01, **train},
    }
    path.write_text(yaml.safe_dump(sections))
    return RunConfig.from_yaml(path)


def measured_peak(config: RunConfig, length: int) -> int:
    """Peak bytes of one training step by the allocator's own record, parameters and optimizer state included."""
    model = MultiscaleByteModel(config.model).train()
    trained_by, chunking = build_optimizer(model, config.train), Chunking.of(config.model, config.train)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trained_by.step()  # makes its state
    trained_by.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        ids = torch.randint(1, 256, (config.train.batch_size, length))
        loss = model.loss(ids) if chunking is None else chunked_loss(model, ids, chunking)
        loss.backward()
        trained_by.step()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    held = [*model.parameters(), *(t for t in tree_leaves(trained_by.state_dict()) if isinstance(t, torch.Tensor))]
    return peak + sum(tensor.nbytes for tensor in held)


@pytest.mark.parametrize(
    ("stages", "chunk_tokens"), [("1 stage", 1024), ("2 stages", 1024), ("3 stages", 1024), ("2 stages", None)]
)
def test_the_plan_is_right_within_a_tenth(tmp_path: Path, stages: str, chunk_tokens: int | None) -> None:
    config = config_of(tmp_path, stages, chunk_tokens=chunk_tokens, embed_chunk_bytes=1024)
    planner = MemoryPlanner(config, is_gpu=False)
    length = config.model.context_length
    assert planner.plan(length).peak == pytest.approx(measured_peak(config, length), rel=0.1)


def test_a_step_of_muon_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a short context, where the optimizer's step is the peak; its share that is worked on at a time is bounded."""
    blocks = [{**MAMBA, "block_type": "mamba1"}, TRANSFORMER]  # A_log of Mamba-1 is a matrix that AdamW trains
    monkeypatch.setitem(STAGES, "wide", {**STAGES["2 stages"], "hidden_dims": [192, 192], "block": blocks})
    config = config_of(tmp_path, "wide", matrix_learning_rate=0.01)
    taken = {}
    for limit in (optimizer.TOGETHER_BYTES, 2**18):
        monkeypatch.setattr(optimizer, "TOGETHER_BYTES", limit)
        plan = MemoryPlanner(config, is_gpu=False).plan(16)
        assert plan.moments["optimizer"] == plan.peak == pytest.approx(measured_peak(config, 16), rel=0.02)
        taken[limit] = plan.peak
    assert taken[2**18] < 0.9 * max(taken.values())
    model = MultiscaleByteModel(config.model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trained = build_optimizer(model, config.train)
    trained.step()
    states = (t for t in tree_leaves(trained.state_dict()) if isinstance(t, torch.Tensor) and t.dim())
    assert plan.optimizer == sum(tensor.nbytes for tensor in states)


def test_memory_hardly_grows_with_the_context(tmp_path: Path) -> None:
    """The local stage's activations are those of a chunk, however long the context is."""
    config = config_of(tmp_path, "3 stages", chunk_tokens=512, embed_chunk_bytes=512)
    model, chunking = MultiscaleByteModel(config.model).train(), Chunking.of(config.model, config.train)

    def peak(loss: object, length: int) -> int:
        model.zero_grad(set_to_none=True)
        with LiveBytes() as live:
            loss(torch.ones(1, length, dtype=torch.long)).backward()
        return live.peak

    length = config.model.context_length
    chunked = [peak(lambda ids: chunked_loss(model, ids, chunking), size) for size in (length // 8, length)]
    whole = [peak(model.loss, size) for size in (length // 8, length)]
    assert chunked[1] - chunked[0] < 0.2 * (whole[1] - whole[0])


def test_longest_context_fits_and_a_longer_one_does_not(tmp_path: Path) -> None:
    config = config_of(tmp_path, "2 stages", chunk_tokens=1024, embed_chunk_bytes=1024)
    planner = MemoryPlanner(config)
    memory = 64 * 2**20
    longest = planner.longest(memory)
    assert planner.plan(longest).peak <= memory < planner.plan(int(longest * 1.01) + 8).peak
    assert planner.longest(2**10) == 0


def test_sharded_state_and_averages_are_counted(tmp_path: Path) -> None:
    plain = MemoryPlanner(config_of(tmp_path, "2 stages", chunk_tokens=64)).plan(512)
    options = {"chunk_tokens": 64, "shard_optimizer": True, "ema_decay": 0.9, "matrix_learning_rate": 0.01}
    other = MemoryPlanner(config_of(tmp_path, "2 stages", **options), processes=4).plan(512)
    assert plain.optimizer == 2 * plain.parameters
    assert other.average == other.parameters
    assert other.parameters / 4 <= other.optimizer < plain.optimizer / 4
    large_chunks = {**options, "chunk_tokens": 1024, "embed_chunk_bytes": 1024}  # fewer to trace
    assert "longest context in 1 GiB" in report(config_of(tmp_path, "2 stages", **large_chunks), 1, 4, True)


@pytest.mark.parametrize(("name", "millions"), [("published-3d", 363), ("five-million", 410)])
def test_configs_have_the_size_that_they_say(name: str, millions: int) -> None:
    config = RunConfig.from_yaml(ROOT / f"scripts/configs/{name}.yaml")
    with torch.device("meta"):
        model = MultiscaleByteModel(config.model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert config.input_seq_len == config.model.context_length
