"""Compares the two libraries, and the CUDA library with itself where its bits must not depend on how work is cut."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multiscale.cuda_check.cases import Case, SampleCase, all_cases, sample_cases
from multiscale.cuda_check.library import Library

TOLERANCE = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def to_device(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    return [item.to(device, copy=True) for item in value] if isinstance(value, list) else value


def poison(tensor: Tensor) -> None:
    tensor.fill_(float("nan") if tensor.is_floating_point() else -99)


def execute(library: Library, case: Case, device: str) -> dict[str, Tensor]:
    arguments = {name: to_device(value, device) for name, value in case.arguments.items()}
    for name in case.outputs:
        poison(arguments[name])
    struct = library.prepare(case.name, case.work, arguments)
    library.run(case.name, struct, torch.cuda.current_stream().cuda_stream if device == "cuda" else 0)
    library.raise_errors()
    return {name: arguments[name].cpu() for name in (*case.outputs, *case.in_place)}


def error_of(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖; infinite where a value is missing."""
    actual, expected = actual.double(), expected.double()
    if actual.numel() == 0:
        return 0.0
    error = ((actual - expected).norm() / expected.norm().clamp(min=1e-30)).item()
    return error if math.isfinite(error) else math.inf


def check_case(reference: Library, cuda: Library, case: Case) -> list[str]:
    expected = execute(reference, case, "cpu")
    actual = execute(cuda, case, "cuda")
    failures = []
    for name, tensor in expected.items():
        error = error_of(actual[name], tensor)
        bound = 0.0 if case.exact else TOLERANCE[tensor.dtype if tensor.is_floating_point() else torch.float32]
        if not error <= bound:
            failures.append(f"{case.title} {case.work}: {name} differs by {error:.2e}")
    return failures


def row_of(case: Case, m: int) -> Case:
    """The call for row m alone."""
    a = dict(case.arguments)
    M = a["M"]
    for name in ("x", "y", "residual", "prev"):
        value = a.get(name)
        if isinstance(value, Tensor) and value.shape[0] == M and not (name == "prev" and a["prev_rows"] == 1):
            a[name] = value[m : m + 1].contiguous()
    a["M"] = 1
    if a.get("prev_rows"):
        a["prev_rows"] = 1
    return replace(case, arguments=a)


def check_rows_alone(cuda: Library, case: Case) -> list[str]:
    """A row has the same bits alone and among others."""
    together = execute(cuda, case, "cuda")["y"]
    rows = [execute(cuda, row_of(case, m), "cuda")["y"] for m in range(case.arguments["M"])]
    return [] if torch.equal(together, torch.cat(rows)) else [f"{case.title} {case.work}: rows differ when alone"]


def check_steps_alone(cuda: Library, case: Case) -> list[str]:
    """T steps at once, or one by one: the same bits."""
    expected = execute(cuda, case, "cuda")
    a = dict(case.arguments)
    M, R = a["M"], a["R"]
    T = M // R
    state = {name: a[name] for name in case.in_place}
    outputs: dict[str, list[Tensor]] = {name: [] for name in case.outputs}
    for t in range(T):
        step = dict(a) | state | {"M": R, "position": a["position"] + t}
        for name, value in a.items():
            per_row = isinstance(value, Tensor) and value.shape[0] == M and name in STEP_INPUTS
            if per_row:
                step[name] = value.unflatten(0, (R, T))[:, t].contiguous()
        result = execute(cuda, replace(case, arguments=step), "cuda")
        state = {name: result[name] for name in case.in_place}
        for name in case.outputs:
            outputs[name].append(result[name])
    failures = [name for name in case.in_place if not torch.equal(state[name], expected[name])]
    failures += [
        name for name, parts in outputs.items() if not torch.equal(torch.stack(parts, 1).flatten(0, 1), expected[name])
    ]
    return [f"{case.title} {case.work}: {name} differs step by step" for name in failures]


STEP_INPUTS = {"x", "delta", "sum", "h", "qkv", "y", "u", "xbc"}
STEPPED = {"ShiftNorm", "CachedAttention", "CausalConv", "SsmScan"}


def run_patch(library: Library, case: SampleCase, device: str) -> dict[str, Tensor]:
    """All outputs of a patch, and its `next` ids."""
    tables = {name: to_device(value, device) for name, value in case.tables.items()}
    automata = [torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device) for data in case.automata]
    rows = case.rows.copy()
    rows["automaton"] = [tensor.data_ptr() for tensor in automata]
    words = torch.from_numpy(rows.view("i4").reshape(len(rows), 32)).to(device)
    nexts = []
    for step in range(case.P):
        following = torch.full((len(rows),), -99, dtype=torch.int32, device=device)
        logits = case.logits[step].to(device)
        arguments = {"B": len(rows), "V": case.V, "P": case.P, "step": step, "logits": logits, "rows": words}
        struct = library.prepare("Sample", torch.float32, arguments | tables | {"next": following})
        library.run("Sample", struct, torch.cuda.current_stream().cuda_stream if device == "cuda" else 0)
        library.raise_errors()
        nexts.append(following.cpu())
    return {name: tensor.cpu() for name, tensor in tables.items()} | {"next": torch.stack(nexts)}


def check_sample(reference: Library, cuda: Library, case: SampleCase) -> list[str]:
    expected, actual = run_patch(reference, case, "cpu"), run_patch(cuda, case, "cuda")
    failures = []
    for name, tensor in expected.items():
        if not torch.equal(actual[name].nan_to_num(5.0), tensor.nan_to_num(5.0)):
            rows = (actual[name] != tensor).nonzero()[:4].tolist()
            failures.append(f"{case.title}: {name} differs, first at {rows}")
    return failures


def check_all(reference: Library, cuda: Library) -> bool:
    counts: dict[str, int] = {}
    failures: dict[str, list[str]] = {}

    def note(name: str, found: list[str]) -> None:
        counts[name] = counts.get(name, 0) + 1
        failures.setdefault(name, []).extend(found)

    for work in TOLERANCE:
        for case in all_cases(work):
            note(case.name, check_case(reference, cuda, case))
            if case.name in ("NormLinear", "Linear", "LinearAdd"):
                note(case.name, check_rows_alone(cuda, case))
            if case.name in STEPPED and case.arguments["M"] > case.arguments["R"]:
                note(case.name, check_steps_alone(cuda, case))
    for sample_case in sample_cases():
        note("Sample", check_sample(reference, cuda, sample_case))
    for name, count in counts.items():
        found = failures[name]
        print(f"{'ok  ' if not found else 'FAIL'} {name:16} {count} checks")
        for line in found[:6]:
            print(f"     {line}")
    return not any(failures.values())
