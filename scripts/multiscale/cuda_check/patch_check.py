"""Checks LocalPatch: against float64, against the reference, against Sample, and with itself, over and over."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from multiscale.cuda_check.library import Library
from multiscale.cuda_check.patches import SCRATCH_BYTES, WRITTEN, LocalStage, PatchBatch, exact_logits, prepare

BATCHES = (1, 2, 4, 8)
SHAPES = ((21, 8, 256), (2, 5, 250), (1, 1, 33))
"""Layers, bytes of a patch, ids."""
MAX_ERROR = 1e-3
"""‖logits − float64's‖ / ‖float64's‖ of any byte."""
MIN_AGREEMENT = 0.999
"""Share of bytes whose most probable follower is float64's."""
ID_FAILED = -3


def new_scratch() -> Tensor:
    return torch.zeros(SCRATCH_BYTES, dtype=torch.uint8, device="cuda")


def run(library: Library, stage: LocalStage, batch: PatchBatch, scratch: Tensor) -> dict[str, Tensor]:
    tensors = batch.fresh()
    library.run("LocalPatch", prepare(library, stage, tensors, scratch), _stream())
    library.raise_errors()
    return {name: tensors[name] for name in WRITTEN}


def check_patches(reference: Library | None, cuda: Library, repeats: int, num_seeds: int, agreement_bytes: int) -> bool:
    """Prints a line per check; whether all passed. `repeats` patches of each of `num_seeds` stages."""
    results = []

    def note(title: str, problems: list[str], figures: str = "") -> None:
        print(f"{'ok  ' if not problems else 'FAIL'} LocalPatch {title} {figures}".rstrip(), flush=True)
        for problem in problems[:4]:
            print(f"     {problem}")
        results.append(not problems)

    for layers, length, vocabulary in SHAPES:
        stage = LocalStage.random(0, "cuda", layers, length, vocabulary)
        title = f"{layers} layers, patches of {length}, {vocabulary} ids"
        error, problems = check_numbers(cuda, stage)
        note(f"{title}: float64's logits", problems, f"(at most {error:.1e} apart)")
        note(f"{title}: Sample's ids and tables", check_choices(cuda, stage))
        note(f"{title}: rows alone and together", check_rows(cuda, stage))
    if reference is not None:
        note("the reference's logits", check_reference(reference, cuda))
    note("in a CUDA graph", check_captured(cuda))
    note("ends when it is told of a failure", check_failure(cuda))
    if agreement_bytes:
        agreement = greedy_agreement(cuda, agreement_bytes)
        problems = [] if agreement >= MIN_AGREEMENT else [f"only {agreement:.5f}"]
        note(f"float64's greedy bytes, {agreement_bytes} of them", problems, f"({100 * agreement:.3f} % the same)")
    started = time.monotonic()
    problems = check_repeats(cuda, repeats, num_seeds)
    note(f"{repeats} times the same, {num_seeds} stages", problems, f"({time.monotonic() - started:.0f} s)")
    return all(results)


def check_numbers(cuda: Library, stage: LocalStage) -> tuple[float, list[str]]:
    worst, problems = 0.0, []
    for rows in BATCHES:
        batch = PatchBatch.random(stage, rows, "cuda", rows, is_sampled=False)
        written = run(cuda, stage, batch, new_scratch())
        error = error_of(written["logits_out"], exact_logits(stage, batch.tensors, batch.inputs()))
        worst = max(worst, error)
        if not error <= MAX_ERROR:
            problems.append(f"{rows} rows: logits are {error:.1e} apart")
        if not torch.equal(written["ids_out"], batch.tensors["forced"]):
            problems.append(f"{rows} rows: forced bytes are not what comes out")
    return worst, problems


def check_choices(cuda: Library, stage: LocalStage) -> list[str]:
    """The ids and tables that Sample gives for the logits that the patch had."""
    problems = []
    for seed in range(5):
        for rows in BATCHES:
            batch = PatchBatch.random(stage, 100 + seed, "cuda", rows, is_sampled=True)
            actual = run(cuda, stage, batch, new_scratch())
            expected = sample_again(cuda, stage, batch, actual["logits_out"])
            names = ("ids_out", "counts", "id_flags", "cursor")
            problems += [f"{rows} rows, seed {seed}: {n}" for n in names if not torch.equal(actual[n], expected[n])]
            if not torch.equal(actual["done"], actual["ids_out"][:, -1]):
                problems.append(f"{rows} rows, seed {seed}: done")
    return problems


def sample_again(library: Library, stage: LocalStage, batch: PatchBatch, logits: Tensor) -> dict[str, Tensor]:
    tensors = batch.fresh()
    names = ("rows", "forced", "bias", "counts", "id_flags", "cursor", "ids_out", "logits_out")
    shared: dict[str, Any] = {name: tensors[name] for name in names}
    shared |= {
        "B": len(batch.rows),
        "V": stage.vocabulary,
        "P": stage.length,
        "next": torch.zeros_like(tensors["done"]),
    }
    for step in range(stage.length):
        arguments = shared | {"step": step, "logits": logits[:, step].contiguous()}
        library.run("Sample", library.prepare("Sample", torch.float32, arguments), _stream())
        library.raise_errors()
        torch.cuda.synchronize()
    return tensors


def check_rows(cuda: Library, stage: LocalStage) -> list[str]:
    problems = []
    batch = PatchBatch.random(stage, 11, "cuda", 8, is_sampled=True)
    together = run(cuda, stage, batch, new_scratch())
    for rows in (1, 2, 4):
        part = batch.first_rows(rows)
        alone = run(cuda, stage, part, new_scratch())
        if not torch.equal(alone["logits_out"], together["logits_out"][:rows]):
            problems.append(f"{rows} rows: other bits than among 8")
        if not torch.equal(alone["ids_out"], together["ids_out"][:rows]):
            problems.append(f"{rows} rows: other ids than among 8")
    return problems


def check_reference(reference: Library, cuda: Library) -> list[str]:
    on_host = LocalStage.random(3, "cpu", 2, 3)
    on_device = on_host.to("cuda")
    logits = []
    for library, stage, device in ((reference, on_host, "cpu"), (cuda, on_device, "cuda")):
        batch = PatchBatch.random(stage, 4, device, 2, is_sampled=False)
        tensors = batch.fresh()
        scratch = torch.zeros(SCRATCH_BYTES, dtype=torch.uint8, device=device)
        library.run("LocalPatch", prepare(library, stage, tensors, scratch), _stream() if device == "cuda" else 0)
        library.raise_errors()
        logits.append(tensors["logits_out"].cpu())
    error = error_of(logits[1], logits[0])
    return [] if error <= MAX_ERROR else [f"{error:.1e} apart"]


def check_captured(cuda: Library) -> list[str]:
    problems = []
    for rows in BATCHES:
        stage = LocalStage.random(1, "cuda", 3)
        batch, scratch = PatchBatch.random(stage, 2, "cuda", rows, is_sampled=True), new_scratch()
        expected = run(cuda, stage, batch, scratch)
        tensors = batch.fresh()
        arguments, graph, stream = prepare(cuda, stage, tensors, scratch), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            cuda.run("LocalPatch", arguments, _stream())
        cuda.raise_errors()
        for _ in range(20):
            for name in WRITTEN:
                tensors[name].copy_(batch.tensors[name])
            graph.replay()
            torch.cuda.synchronize()
            if any(not torch.equal(tensors[name], expected[name]) for name in WRITTEN):
                problems.append(f"{rows} rows: a replay differs")
                break
    return problems


def check_failure(cuda: Library) -> list[str]:
    stage = LocalStage.random(1, "cuda", 3)
    problems = []
    for rows in BATCHES:
        batch, scratch = PatchBatch.random(stage, 2, "cuda", rows, is_sampled=False), new_scratch()
        run(cuda, stage, batch, scratch)
        scratch[4] = 1  # the error word
        started = time.monotonic()
        written = run(cuda, stage, batch, scratch)
        torch.cuda.synchronize()
        if not (written["ids_out"] == ID_FAILED).all() or time.monotonic() - started > 1:
            problems.append(f"{rows} rows: ids {written['ids_out'].flatten()[:4].tolist()}")
    return problems


def greedy_agreement(cuda: Library, num_bytes: int) -> float:
    """Of bytes that are fed, whatever the model would choose."""
    stage, scratch, rows = LocalStage.random(0, "cuda"), new_scratch(), 8
    same = total = 0
    for first in range(0, num_bytes // stage.length, 64 * rows):
        batches = [PatchBatch.random(stage, 1000 + first + i, "cuda", rows, is_sampled=False) for i in range(64)]
        actual = torch.cat([run(cuda, stage, batch, scratch)["logits_out"] for batch in batches])
        contexts = torch.cat([batch.tensors["contexts"][batch.tensors["slot"].long()] for batch in batches])
        slots = torch.arange(len(contexts), device="cuda")
        inputs = torch.cat([batch.inputs() for batch in batches])
        exact = exact_logits(stage, {"contexts": contexts, "slot": slots}, inputs)
        same += int((actual.argmax(-1) == exact.argmax(-1)).sum())
        total += actual.shape[0] * actual.shape[1]
    return same / total


def check_repeats(cuda: Library, repeats: int, num_seeds: int) -> list[str]:
    """The same bits every time, and no memory lost."""
    problems = []
    free = None
    for seed in range(num_seeds):
        rows = BATCHES[seed % len(BATCHES)]
        stage, scratch = LocalStage.random(seed, "cuda"), new_scratch()
        batch = PatchBatch.random(stage, seed, "cuda", rows, is_sampled=False).drawn()
        expected = run(cuda, stage, batch, scratch)
        tensors = batch.fresh()
        arguments = prepare(cuda, stage, tensors, scratch)
        different = torch.zeros((), dtype=torch.int64, device="cuda")
        for _ in range(repeats):
            cuda.run("LocalPatch", arguments, _stream())
            is_same = (tensors["logits_out"] == expected["logits_out"]).all() & (
                tensors["ids_out"] == expected["ids_out"]
            ).all()
            different += ~is_same
        cuda.raise_errors()
        if int(different):
            problems.append(f"stage {seed}, {rows} rows: {int(different)} of {repeats} differ")
        del stage, scratch, batch, expected, tensors, arguments
        torch.cuda.empty_cache()
        if free is not None and torch.cuda.mem_get_info()[0] < free:
            problems.append(f"stage {seed}: {free - torch.cuda.mem_get_info()[0]} bytes are lost")
        free = torch.cuda.mem_get_info()[0]
    return problems


def patch_times(cuda: Library) -> None:
    """Prints microseconds of a byte by rows, with bytes that are fed and with top-p sampling, of the published 2D ST shape."""
    stage = LocalStage.random(0, "cuda")
    for rows in BATCHES:
        texts = []
        for title, batch in (
            ("fed", PatchBatch.random(stage, 5, "cuda", rows, is_sampled=False)),
            ("top-p 0.9", PatchBatch.random(stage, 5, "cuda", rows, is_sampled=False).drawn()),
        ):
            tensors, scratch = batch.fresh(), new_scratch()
            arguments = prepare(cuda, stage, tensors, scratch)
            times = []
            for _ in range(40):
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                cuda.run("LocalPatch", arguments, _stream())
                end.record()
                end.synchronize()
                times.append(1e3 * start.elapsed_time(end) / stage.length)
            texts.append(f"{title} {sorted(times)[20]:6.1f}")
        print(f"LocalPatch, {rows} rows: us/byte, {', '.join(texts)}", flush=True)


def error_of(actual: Tensor, expected: Tensor) -> float:
    """The worst byte's; infinite where a value is missing."""
    errors = (actual.double() - expected.double()).norm(dim=-1) / expected.double().norm(dim=-1)
    return float(errors.nan_to_num(float("inf")).max())


def _stream() -> int:
    return torch.cuda.current_stream().cuda_stream
