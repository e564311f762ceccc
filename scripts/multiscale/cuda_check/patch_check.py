"""Checks LocalPatch: against float64, against the reference, against Sample, and with itself, over and over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multiscale.cuda_check.library import Library
from multiscale.cuda_check.memory import used_memory
from multiscale.cuda_check.patches import (
    COPIED_BYTES_PER_SECOND,
    PUBLISHED,
    WRITTEN,
    LocalStage,
    PatchBatch,
    StageShape,
    exact_logits,
    new_scratch,
    prepare,
)

BATCHES = (1, 2, 4, 8)
SIZES = ((6, 8, 256), (2, 5, 250), (1, 1, 33), (3, 32, 512), (2, 13, 300))
"""Layers, bytes of a patch, ids."""
MAX_ERROR = 1e-3
"""‖logits − float64's‖ / ‖float64's‖ of any byte."""
MIN_AGREEMENT = 0.999
"""Share of bytes whose most probable follower is float64's."""
MAX_WAIT_SECONDS = 15
"""Until a launch whose block is missing has ended."""
ID_FAILED = -3
ERROR_WORD, ABSENT_WORD = 4, 8
"""Bytes of the scratch memory: somebody gave up; the number of a block that is to be missing, counted from 1."""
PARTS = ("numbers", "failure", "agreement", "repeats")


Outcome = tuple[str, list[str]]
"""Figures that a check has found, and what is wrong."""


@dataclass(frozen=True)
class PatchChecks:
    """`repeats` patches of each of the stages `seeds`; greedy choices of `agreement_bytes` bytes."""

    shapes: Sequence[StageShape]
    parts: Sequence[str]
    repeats: int
    seeds: range
    agreement_bytes: int


def depth_of(shape: StageShape) -> int:
    """Layers of the stages that are run over and over: of the published model, and fewer."""
    return 21 if shape == PUBLISHED else 8


def run(library: Library, stage: LocalStage, batch: PatchBatch, scratch: Tensor | None = None) -> dict[str, Tensor]:
    tensors = batch.fresh()
    if scratch is None:
        scratch = new_scratch(stage, len(batch.rows))
    library.run("LocalPatch", prepare(library, stage, tensors, scratch), _stream())
    library.raise_errors()
    return {name: tensors[name] for name in WRITTEN}


def check_patches(reference: Library | None, cuda: Library, checks: PatchChecks) -> bool:
    """Prints a line per check as soon as it is known; whether all passed."""
    results = []

    def note(title: str, check: Callable[..., Outcome], *arguments: Any) -> None:
        started = time.monotonic()
        figures, problems = check(cuda, *arguments)
        figures = f"{figures}, " if figures else ""
        passed = "ok  " if not problems else "FAIL"
        print(f"{passed} LocalPatch {title} ({figures}{time.monotonic() - started:.0f} s)", flush=True)
        for problem in problems[:4]:
            print(f"     {problem}", flush=True)
        results.append(not problems)

    for shape in checks.shapes:
        if "numbers" in checks.parts:
            for layers, length, vocabulary in SIZES:
                stage = LocalStage.random(0, "cuda", layers, length, vocabulary, shape)
                title = f"{shape}, {layers} layers, patches of {length}, {vocabulary} ids"
                note(f"{title}: float64's logits", check_numbers, stage)
                note(f"{title}: Sample's ids and tables", check_choices, stage)
                note(f"{title}: rows alone and together", check_rows, stage)
            if reference is not None:
                note(f"{shape}: the reference's logits", check_reference, reference, shape)
            note(f"{shape}: in a CUDA graph", check_captured, shape)
        if "failure" in checks.parts:
            note(f"{shape}: ends when it is told of a failure", check_failure, shape)
            note(f"{shape}: gives up waiting for a block", check_absence, shape)
        if "agreement" in checks.parts:
            bytes_ = checks.agreement_bytes
            note(f"{shape}: float64's greedy bytes, {bytes_} of them", check_agreement, shape, bytes_)
        if "repeats" in checks.parts:
            for seed in checks.seeds:
                title = f"{shape}, stage {seed}: {checks.repeats} times the same, no memory lost"
                note(title, check_repeats, shape, seed, checks.repeats)
    return all(results)


def check_numbers(cuda: Library, stage: LocalStage) -> Outcome:
    worst, problems = 0.0, []
    for rows in BATCHES:
        batch = PatchBatch.random(stage, rows, "cuda", rows, is_sampled=False)
        written = run(cuda, stage, batch)
        error = error_of(written["logits_out"], exact_logits(stage, batch.tensors, batch.inputs()))
        worst = max(worst, error)
        if not error <= MAX_ERROR:
            problems.append(f"{rows} rows: logits are {error:.1e} apart")
        if not torch.equal(written["ids_out"], batch.tensors["forced"]):
            problems.append(f"{rows} rows: forced bytes are not what comes out")
    return f"at most {worst:.1e} apart", problems


def check_choices(cuda: Library, stage: LocalStage) -> Outcome:
    """The ids and tables that Sample gives for the logits that the patch had."""
    problems = []
    for seed in range(5):
        for rows in BATCHES:
            batch = PatchBatch.random(stage, 100 + seed, "cuda", rows, is_sampled=True)
            actual = run(cuda, stage, batch)
            expected = sample_again(cuda, stage, batch, actual["logits_out"])
            names = ("ids_out", "counts", "id_flags", "cursor")
            problems += [f"{rows} rows, seed {seed}: {n}" for n in names if not torch.equal(actual[n], expected[n])]
            if not torch.equal(actual["done"], actual["ids_out"][:, -1]):
                problems.append(f"{rows} rows, seed {seed}: done")
    return "", problems


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


def check_rows(cuda: Library, stage: LocalStage) -> Outcome:
    problems = []
    batch = PatchBatch.random(stage, 11, "cuda", 8, is_sampled=True)
    together = run(cuda, stage, batch)
    for rows in (1, 2, 4):
        part = batch.first_rows(rows)
        alone = run(cuda, stage, part)
        if not torch.equal(alone["logits_out"], together["logits_out"][:rows]):
            problems.append(f"{rows} rows: other bits than among 8")
        if not torch.equal(alone["ids_out"], together["ids_out"][:rows]):
            problems.append(f"{rows} rows: other ids than among 8")
    return "", problems


def check_reference(cuda: Library, reference: Library, shape: StageShape) -> Outcome:
    on_host = LocalStage.random(3, "cpu", 2, 3, shape=shape)
    on_device = on_host.to("cuda")
    logits = []
    for library, stage, device in ((reference, on_host, "cpu"), (cuda, on_device, "cuda")):
        batch = PatchBatch.random(stage, 4, device, 2, is_sampled=False)
        tensors = batch.fresh()
        scratch = new_scratch(stage, 2, device)
        library.run("LocalPatch", prepare(library, stage, tensors, scratch), _stream() if device == "cuda" else 0)
        library.raise_errors()
        logits.append(tensors["logits_out"].cpu())
    error = error_of(logits[1], logits[0])
    return f"{error:.1e} apart", [] if error <= MAX_ERROR else ["too far"]


def check_captured(cuda: Library, shape: StageShape) -> Outcome:
    problems = []
    for rows in BATCHES:
        stage = LocalStage.random(1, "cuda", 3, shape=shape)
        batch, scratch = PatchBatch.random(stage, 2, "cuda", rows, is_sampled=True), new_scratch(stage, rows)
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
    return "", problems


def check_failure(cuda: Library, shape: StageShape) -> Outcome:
    stage = LocalStage.random(1, "cuda", 3, shape=shape)
    problems = []
    for rows in BATCHES:
        batch, scratch = PatchBatch.random(stage, 2, "cuda", rows, is_sampled=False), new_scratch(stage, rows)
        run(cuda, stage, batch, scratch)
        scratch[ERROR_WORD] = 1
        started = time.monotonic()
        written = run(cuda, stage, batch, scratch)
        torch.cuda.synchronize()
        if not (written["ids_out"] == ID_FAILED).all() or time.monotonic() - started > 1:
            problems.append(f"{rows} rows: ids {written['ids_out'].flatten()[:4].tolist()}")
    return "", problems


def check_absence(cuda: Library, shape: StageShape) -> Outcome:
    """A block leaves at once; the others wait for it as long as they ever wait. Then the kernel is as it was."""
    stage = LocalStage.random(1, "cuda", 3, shape=shape)
    problems, longest = [], 0.0
    for rows, absent in ((1, shape.num_blocks * 3 // 4), (8, shape.num_blocks)):
        batch, scratch = PatchBatch.random(stage, 2, "cuda", rows, is_sampled=True), new_scratch(stage, rows)
        expected = run(cuda, stage, batch, scratch)
        torch.cuda.synchronize()
        scratch[ABSENT_WORD] = absent
        started = time.monotonic()
        failed = run(cuda, stage, batch, scratch)
        torch.cuda.synchronize()
        seconds = time.monotonic() - started
        longest = max(longest, seconds)
        if not (failed["ids_out"] == ID_FAILED).all() or seconds > MAX_WAIT_SECONDS:
            problems.append(f"{rows} rows: {seconds:.1f} s, ids {failed['ids_out'].flatten()[:4].tolist()}")
        for title, memory in (("the same memory, put right", scratch), ("new memory", new_scratch(stage, rows))):
            memory[ERROR_WORD : ABSENT_WORD + 4] = 0
            again = run(cuda, stage, batch, memory)
            wrong = [name for name in WRITTEN if not torch.equal(again[name], expected[name])]
            problems += [f"{rows} rows, then with {title}: {name}" for name in wrong]
    return f"after {longest:.1f} s", problems


def check_agreement(cuda: Library, shape: StageShape, num_bytes: int) -> Outcome:
    """Of bytes that are fed, whatever the model would choose."""
    rows = 8
    stage = LocalStage.random(0, "cuda", depth_of(shape), shape=shape)
    scratch = new_scratch(stage, rows)
    same = total = 0
    worst = 0.0
    for first in range(0, num_bytes // stage.length, 64 * rows):
        batches = [PatchBatch.random(stage, 1000 + first + i, "cuda", rows, is_sampled=False) for i in range(64)]
        actual = torch.cat([run(cuda, stage, batch, scratch)["logits_out"] for batch in batches])
        contexts = torch.cat([batch.tensors["contexts"][batch.tensors["slot"].long()] for batch in batches])
        slots = torch.arange(len(contexts), device="cuda")
        inputs = torch.cat([batch.inputs() for batch in batches])
        exact = exact_logits(stage, {"contexts": contexts, "slot": slots}, inputs)
        worst = max(worst, error_of(actual, exact))
        same += int((actual.argmax(-1) == exact.argmax(-1)).sum())
        total += actual.shape[0] * actual.shape[1]
    problems = [] if same / total >= MIN_AGREEMENT else ["too few"]
    if not worst <= MAX_ERROR:
        problems.append("logits are too far apart")
    return f"{100 * same / total:.3f} % the same, logits at most {worst:.1e} apart", problems


def check_repeats(cuda: Library, shape: StageShape, seed: int, repeats: int) -> Outcome:
    """The same bits every time, and no memory lost."""
    rows = BATCHES[seed % len(BATCHES)]
    length = 8 if shape == PUBLISHED else (8, 4, 32)[seed % 3]
    problems = []
    _repeat(cuda, shape, seed, rows, length, 2)  # what the process needs once
    used = used_memory()
    different = _repeat(cuda, shape, seed, rows, length, repeats)
    if different:
        problems.append(f"{different} differ")
    lost = used_memory() - used
    if lost > 0:
        problems.append(f"{lost} bytes are lost")
    return f"{rows} rows, patches of {length}", problems


def _repeat(cuda: Library, shape: StageShape, seed: int, rows: int, length: int, repeats: int) -> int:
    """How many patches differ from the first."""
    stage = LocalStage.random(seed, "cuda", depth_of(shape), length, shape=shape)
    scratch = new_scratch(stage, rows)
    batch = PatchBatch.random(stage, seed, "cuda", rows, is_sampled=False).drawn()
    expected = run(cuda, stage, batch, scratch)
    tensors = batch.fresh()
    arguments = prepare(cuda, stage, tensors, scratch)
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(repeats):
        tensors["logits_out"].zero_()
        cuda.run("LocalPatch", arguments, _stream())
        is_same = (tensors["logits_out"] == expected["logits_out"]).all() & (
            tensors["ids_out"] == expected["ids_out"]
        ).all()
        different += ~is_same
    cuda.raise_errors()
    return int(different)


@dataclass(frozen=True)
class Timed:
    title: str
    shape: StageShape
    num_layers: int
    length: int


def patch_times(cuda: Library, shapes: Sequence[StageShape]) -> None:
    """Prints microseconds of a byte by rows, with bytes that are fed and with top-p sampling, and what its weights take."""
    stages = [Timed(f"{depth_of(shape)} layers", shape, depth_of(shape), 8) for shape in shapes]
    books = StageShape(512, 2, 64)
    if books in shapes:
        stages.append(Timed("5 layers, as books has it", books, 5, 4))
    for timed in stages:
        stage = LocalStage.random(0, "cuda", timed.num_layers, timed.length, shape=timed.shape)
        floor = timed.shape.weight_bytes(timed.num_layers, 256) / COPIED_BYTES_PER_SECOND * 1e6
        for rows in BATCHES:
            batch = PatchBatch.random(stage, 5, "cuda", rows, is_sampled=False)
            times = [
                (title, _microseconds(cuda, stage, b)) for title, b in (("fed", batch), ("top-p 0.9", batch.drawn()))
            ]
            texts = ", ".join(f"{title} {time:6.1f}" for title, time in times)
            title = f"{timed.shape}, {timed.title}, patches of {timed.length}, {rows} rows"
            print(f"LocalPatch, {title}: us/byte, {texts}; weights {floor:.1f}", flush=True)


def _microseconds(cuda: Library, stage: LocalStage, batch: PatchBatch) -> float:
    """Of a byte; the median of 60 patches."""
    tensors, scratch = batch.fresh(), new_scratch(stage, len(batch.rows))
    arguments = prepare(cuda, stage, tensors, scratch)
    times = []
    for _ in range(65):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        cuda.run("LocalPatch", arguments, _stream())
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / stage.length)
    return sorted(times[5:])[30]


def error_of(actual: Tensor, expected: Tensor) -> float:
    """The worst byte's; infinite where a value is missing."""
    errors = (actual.double() - expected.double()).norm(dim=-1) / expected.double().norm(dim=-1)
    return float(errors.nan_to_num(float("inf")).max())


def _stream() -> int:
    return torch.cuda.current_stream().cuda_stream
