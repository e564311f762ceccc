"""A memory plan as text."""

from __future__ import annotations

from multiscale.train.config import RunConfig
from multiscale.train.memory_plan import MemoryPlan, MemoryPlanner

GIB = 2**30


def report(config: RunConfig, memory_gb: float, processes: int, is_gpu: bool) -> str:
    """Parameters, activations and optimizer state by stage, the peak, and the longest context in `memory_gb` GiB."""
    planner = MemoryPlanner(config, processes, is_gpu)
    plan = planner.plan(config.input_seq_len)
    moment = max(plan.moments, key=plan.moments.__getitem__)
    fits = "fits" if plan.peak <= memory_gb * GIB else "does not fit"
    lines = [
        _table(config, plan),
        "",
        *(f"  {name:<20} {size / GIB:8.3f} GiB" for name, size in plan.moments.items()),
        f"peak at {config.input_seq_len} bytes of context: {plan.peak / GIB:.3f} GiB ({moment}), "
        f"{fits} in {memory_gb:g} GiB",
        f"longest context in {memory_gb:g} GiB: {planner.longest(int(memory_gb * GIB))} bytes",
    ]
    if config.train.chunk_tokens is None and config.model.train_checkpoint_chunks is None:
        lines.append("nothing is cut: train.chunk_tokens=16384 trains in chunks, with the same loss")
    return "\n".join(lines)


def _table(config: RunConfig, plan: MemoryPlan) -> str:
    share = plan.optimizer / plan.parameters
    rows = [("GiB, of one process", "parameters", "gradients", "optimizer", "kept", "in a chunk")]
    for index, stage in enumerate(plan.stages):
        name = f"stage {index} ({config.model.blocks[index].block_type})"
        sizes = (stage.parameters, stage.parameters, stage.parameters * share, stage.kept, stage.chunk)
        rows.append((name, *(f"{size / GIB:.3f}" for size in sizes)))
    kept, chunk = sum(stage.kept for stage in plan.stages), max(stage.chunk for stage in plan.stages)
    totals = (plan.parameters, plan.gradients, plan.optimizer, kept, chunk)
    rows.append(("all (largest chunk)", *(f"{size / GIB:.3f}" for size in totals)))
    lines = ["  ".join([row[0].ljust(24), *(cell.rjust(10) for cell in row[1:])]) for row in rows]
    millions = plan.parameters / 4 / 1e6
    return "\n".join([f"{millions:.1f} M parameters, {config.train.precision}", *lines])
