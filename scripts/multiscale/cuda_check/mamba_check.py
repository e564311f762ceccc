"""Checks MambaStep: against float64, against the other operators and the reference, and with itself, over and over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from multiscale.cuda_check.library import Library
from multiscale.cuda_check.mamba_steps import (
    SCRATCH_BYTES,
    ExactSteps,
    MambaStage,
    States,
    StepRows,
    prepare,
    run_chain,
)
from multiscale.cuda_check.memory import used_memory

BATCHES = (1, 2, 4, 8)
SHAPES = ((25, 128), (9, 64), (1, 128))
"""Layers, channels of the state."""
SLOTS = 10
STEPS = 6
MAX_WAIT_SECONDS = 15
"""Until a launch whose block is missing has ended."""
ERROR_WORD, ABSENT_WORD = 4, 8
"""Bytes of the scratch memory: somebody gave up; the number of a block that is to be missing, counted from 1."""
MAX_ERROR = 1e-3
"""‖value − float64's‖ / ‖float64's‖ of any row."""


def new_scratch(device: str = "cuda") -> Tensor:
    return torch.zeros(SCRATCH_BYTES, dtype=torch.uint8, device=device)


def run(library: Library, stage: MambaStage, rows: StepRows, states: States, scratch: Tensor) -> Tensor:
    y = torch.full_like(rows.x, 77.0)
    library.run("MambaStep", prepare(library, stage, rows, states, scratch, y), _stream(rows.x))
    library.raise_errors()
    return y


def run_steps(
    library: Library, stage: MambaStage, num_rows: int, take: Callable[[StepRows], StepRows] = lambda rows: rows
) -> tuple[list[Tensor], States]:
    """`STEPS` steps from the beginning. `take` says which of the rows."""
    device = stage.arguments["vectors"].device.type
    states, scratch = States.fresh(stage, SLOTS, device), new_scratch(device)
    outputs = []
    for step in range(STEPS):
        rows = take(StepRows.random(step, device, num_rows, SLOTS, step))
        outputs.append(run(library, stage, rows, states, scratch))
    return outputs, states


def check_mamba(reference: Library | None, cuda: Library, repeats: int, seeds: Sequence[int]) -> bool:
    """Prints a line per check; whether all passed. `repeats` steps of each of the stages."""
    results = []

    def note(title: str, problems: list[str], figures: str = "") -> None:
        print(f"{'ok  ' if not problems else 'FAIL'} MambaStep {title} {figures}".rstrip(), flush=True)
        for problem in problems[:4]:
            print(f"     {problem}")
        results.append(not problems)

    for layers, d_state in SHAPES:
        stage = MambaStage.random(0, "cuda", layers, d_state)
        title = f"{layers} layers, {d_state} channels of state"
        figures, problems = check_numbers(cuda, stage)
        note(f"{title}: float64's results", problems, figures)
        note(f"{title}: rows alone and together", check_rows(cuda, stage))
    if reference is not None:
        note("the reference's results", check_reference(reference, cuda))
    note("in a CUDA graph", check_captured(cuda))
    figures, problems = check_failure(cuda)
    note("gives up when a block is missing, and is as before then", problems, figures)
    started = time.monotonic()
    problems = check_repeats(cuda, repeats, seeds)
    note(f"{repeats} times the same, {len(seeds)} stages", problems, f"({time.monotonic() - started:.0f} s)")
    return all(results)


def check_numbers(cuda: Library, stage: MambaStage) -> tuple[str, list[str]]:
    worst, worst_chain, problems = 0.0, 0.0, []
    for num_rows in BATCHES:
        outputs, states = run_steps(cuda, stage, num_rows)
        exact, chain_states = ExactSteps(stage, num_rows), States.fresh(stage, SLOTS, "cuda")
        for step, output in enumerate(outputs):
            rows = StepRows.random(step, "cuda", num_rows, SLOTS, step)
            expected = exact.step(rows.x)
            chain = run_chain(cuda, stage, rows, chain_states, _stream(rows.x))
            error = error_of(output, expected)
            worst, worst_chain = max(worst, error), max(worst_chain, error_of(chain, expected))
            if not error <= MAX_ERROR:
                problems.append(f"{num_rows} rows, step {step}: {error:.1e} apart")
        slots = rows.slot.long()
        pairs = zip(states.conv + states.ssm, exact.conv + exact.ssm, strict=True)
        error = max(error_of(mine[slots].flatten(1), its.flatten(1)) for mine, its in pairs)
        if not error <= 2 * MAX_ERROR:
            problems.append(f"{num_rows} rows: states are {error:.1e} apart")
        others = [slot for slot in range(SLOTS) if slot not in slots.tolist()]
        if not all(t[others].isnan().all() for t in states.conv + states.ssm):
            problems.append(f"{num_rows} rows: other slots' states have changed")
    return f"(at most {worst:.1e} apart; the other operators {worst_chain:.1e})", problems


def check_rows(cuda: Library, stage: MambaStage) -> list[str]:
    problems = []
    together, states = run_steps(cuda, stage, 8)
    for count in (1, 2, 4):
        alone, own = run_steps(cuda, stage, 8, lambda rows, count=count: rows.first_rows(count))
        if any(not torch.equal(a, b[:count]) for a, b in zip(alone, together, strict=True)):
            problems.append(f"{count} rows: other bits than among 8")
        slots = StepRows.random(0, "cuda", 8, SLOTS, 0).slot[:count].long()
        if not own.equals(states, slots):
            problems.append(f"{count} rows: other states than among 8")
    return problems


def check_reference(reference: Library, cuda: Library) -> list[str]:
    on_host = MambaStage.random(3, "cpu", 2)
    outputs, states = run_steps(reference, on_host, 2)
    actual, its = run_steps(cuda, on_host.to("cuda"), 2)
    slots = StepRows.random(0, "cpu", 2, SLOTS, 0).slot.long()
    errors = [error_of(a.cpu(), b) for a, b in zip(actual, outputs, strict=True)]
    pairs = zip(its.conv + its.ssm, states.conv + states.ssm, strict=True)
    errors += [error_of(a.cpu()[slots].flatten(1), b[slots].flatten(1)) for a, b in pairs]
    return [] if max(errors) <= MAX_ERROR else [f"{max(errors):.1e} apart"]


def check_captured(cuda: Library) -> list[str]:
    problems = []
    for num_rows in BATCHES:
        stage = MambaStage.random(1, "cuda", 3)
        _, before = run_steps(cuda, stage, num_rows)
        rows, scratch = StepRows.random(9, "cuda", num_rows, SLOTS, STEPS), new_scratch()
        states = before.clone()
        expected = run(cuda, stage, rows, states, scratch)
        after = states.clone()
        y = torch.empty_like(rows.x)
        arguments = prepare(cuda, stage, rows, states, scratch, y)
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            cuda.run("MambaStep", arguments, torch.cuda.current_stream().cuda_stream)
        cuda.raise_errors()
        for _ in range(20):
            states.copy_(before)
            y.fill_(77.0)
            graph.replay()
            torch.cuda.synchronize()
            if not (torch.equal(y, expected) and states.equals(after, rows.slot.long())):
                problems.append(f"{num_rows} rows: a replay differs")
                break
    return problems


def check_failure(cuda: Library) -> tuple[str, list[str]]:
    """A block leaves at once; the others wait for it as long as they ever wait. Then the kernel is as it was."""
    problems, longest = [], 0.0
    stage = MambaStage.random(1, "cuda", 3)
    for num_rows, absent in ((1, 96), (8, 128)):
        rows, scratch = StepRows.random(0, "cuda", num_rows, SLOTS, 0), new_scratch()
        expected = run(cuda, stage, rows, States.fresh(stage, SLOTS, "cuda"), scratch)
        torch.cuda.synchronize()
        scratch[ABSENT_WORD] = absent
        started = time.monotonic()
        failed = run(cuda, stage, rows, States.fresh(stage, SLOTS, "cuda"), scratch).unflatten(1, (128, 8))
        torch.cuda.synchronize()
        longest = max(longest, time.monotonic() - started)
        others = [block for block in range(128) if block != absent - 1]
        if not failed[:, others].isnan().all() or not int(scratch[ERROR_WORD]) or longest > MAX_WAIT_SECONDS:
            problems.append(f"{num_rows} rows: {longest:.1f} s, {failed.flatten()[:4].tolist()}")
        for title, memory in (("the same memory, put right", scratch), ("new memory", new_scratch())):
            memory[ERROR_WORD : ABSENT_WORD + 4] = 0
            again = run(cuda, stage, rows, States.fresh(stage, SLOTS, "cuda"), memory)
            if not torch.equal(again, expected):
                problems.append(f"{num_rows} rows, then with {title}: another result")
    return f"(after {longest:.1f} s)", problems


def check_repeats(cuda: Library, repeats: int, seeds: Sequence[int]) -> list[str]:
    """The same bits every time, and no memory lost."""
    problems = []
    used = None
    for seed in seeds:
        num_rows = BATCHES[seed % len(BATCHES)]
        different = _repeat(cuda, repeats, seed, num_rows)
        if different:
            problems.append(f"stage {seed}, {num_rows} rows: {different} of {repeats} differ")
        before, used = used, used_memory()
        if before is not None and used > before:
            problems.append(f"stage {seed}: {used - before} bytes are lost")
    return problems


def _repeat(cuda: Library, repeats: int, seed: int, num_rows: int) -> int:
    """How many of `repeats` steps differ from the first time. The state goes on for some steps, then begins anew."""
    stage, scratch = MambaStage.random(seed, "cuda"), new_scratch()
    states = States.fresh(stage, SLOTS, "cuda")
    rows = [StepRows.random(step, "cuda", num_rows, SLOTS, step) for step in range(STEPS)]
    outputs = [torch.empty_like(r.x) for r in rows]
    calls = [prepare(cuda, stage, r, states, scratch, y) for r, y in zip(rows, outputs, strict=True)]
    for call in calls:
        cuda.run("MambaStep", call, _stream(scratch))
    expected, after = [y.clone() for y in outputs], states.clone()
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(-(-repeats // STEPS)):
        for call, y, wanted in zip(calls, outputs, expected, strict=True):
            cuda.run("MambaStep", call, _stream(scratch))
            different += ~(y == wanted).all()
    cuda.raise_errors()
    return int(different) + (not states.equals(after, rows[0].slot.long()))


def step_times(cuda: Library) -> None:
    """Prints microseconds of a step by rows, of the published 2D ST shape, as one launch and as a chain in a CUDA graph."""
    stage = MambaStage.random(0, "cuda")
    for num_rows in BATCHES:
        fused, chain = _step_times_of(cuda, stage, num_rows)
        print(f"MambaStep, {num_rows} rows: us/step {fused:6.1f}, the other operators {chain:6.1f}", flush=True)


def _step_times_of(cuda: Library, stage: MambaStage, num_rows: int) -> tuple[float, float]:
    states, scratch = States.fresh(stage, SLOTS, "cuda"), new_scratch()
    rows = StepRows.random(0, "cuda", num_rows, SLOTS, 0)
    y = run(cuda, stage, rows, states, scratch)
    rows.position.fill_(1)
    arguments = prepare(cuda, stage, rows, states, scratch, y)
    fused = _median_time(lambda: cuda.run("MambaStep", arguments, _stream(scratch)))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        run_chain(cuda, stage, rows, states, torch.cuda.current_stream().cuda_stream)
    return fused, _median_time(graph.replay)


def _median_time(launch: Callable[[], None]) -> float:
    times = []
    for _ in range(60):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        launch()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end))
    return sorted(times)[30]


def error_of(actual: Tensor, expected: Tensor) -> float:
    """The worst row's; infinite where a value is missing."""
    errors = (actual.double() - expected.double()).norm(dim=-1) / expected.double().norm(dim=-1)
    return float(errors.nan_to_num(float("inf")).max())


def _stream(tensor: Tensor) -> int:
    return torch.cuda.current_stream().cuda_stream if tensor.is_cuda else 0
