"""How much memory a training run needs, before it is started.

Parameters, gradients and optimizer state are counted. Activations, and what a step of Muon makes, come from the training code
itself, run on fake tensors (`memory_trace`). Activations are traced with two and three layers: they are affine in layers and in
steps of the first stage. In chunks, a step has these moments, the largest of which is the peak:

- the chunk of the local stage, on the way forward: everything that earlier stages keep, the gradients of its own parameters
  and of the rows that it reads, and one chunk's activations;
- the chunk of each stage between, backwards: gradients, what earlier stages keep, one chunk's activations;
- the first stage, backwards: gradients, the inputs of all its layers, one layer's activations, or a piece of its embedder.

Activations are those of eager mode and of this package's own Mamba-2: compiled layers and mamba-ssm's kernels keep less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel, PositionTable
from multiscale.train.chunked import (
    Chunking,
    chunk_gradients,
    first_stage,
    local_modules,
    patches_of,
    run_stage_chunk,
    sum_of_losses,
)
from multiscale.train.config import RunConfig
from multiscale.train.memory_trace import LiveBytes, affine, pretending
from multiscale.train.optimizer import Muon, divide_parameters, muon_type
from multiscale.train.processes import MESSAGE_BYTES

SMALL_CHUNK = 64
"""Sequences in a chunk that is traced as it is; larger ones are interpolated between powers of two, of which there are few."""
LARGEST_TRACE = 16
"""Steps of the first stage in a trace are at most twice so many times the fewest that it is done with."""
FLOAT = 4
"""Bytes of a parameter, a gradient, a moment."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes."""

    parameters: int
    """With the stage's embedder, positions and the projection that feeds it; the head counts as the last stage's."""
    kept: int
    """Activations that are held from the way forward to the way backward, besides what a chunk makes anew."""
    chunk: int
    """Activations and gradients inside of one chunk, at their peak; of the first stage, of one layer or piece."""


@dataclass(frozen=True)
class MemoryPlan:
    stages: list[StageMemory]
    gradients: int
    optimizer: int
    average: int
    moments: dict[str, int]
    """Bytes at each moment of a step that may be its peak."""

    @property
    def parameters(self) -> int:
        return sum(stage.parameters for stage in self.stages)

    @property
    def peak(self) -> int:
        return max(self.moments.values())


class MemoryPlanner:
    """Plans one configuration at any context length."""

    def __init__(self, config: RunConfig, processes: int = 1, is_gpu: bool = True):
        self._run, self._processes, self._is_gpu = config, processes, is_gpu
        self._model, self._train = config.model, config.train
        self._chunking = Chunking.of(config.model, config.train)

    def plan(self, length: int) -> MemoryPlan:
        """For windows of `length` bytes."""
        steps = -(-length // self._model.bytes_per_step(0))
        parameters = sum(self._parameters)
        fixed = parameters + self._optimizer + self._average
        gradients = parameters
        ids = 8 * self._train.batch_size * length * 3  # as they come, padded, and as targets; 64-bit numbers
        # Backwards, gradients of what was differentiated before are there; with accumulation, all of them at any time.
        accumulated = gradients if self._train.gradient_accumulate_every > 1 else 0
        if self._chunking is None:
            (peak,) = self._at_steps(self._whole, steps)
            stages = [StageMemory(p, 0, 0) for p in self._parameters]
            stages[-1] = StageMemory(self._parameters[-1], 0, peak)
            moments = {"backward": fixed + ids + accumulated + peak}
        else:
            stages, moments = self._in_chunks(steps, fixed + ids, accumulated)
        message = min(MESSAGE_BYTES, gradients) if self._processes > 1 else 0
        moments["optimizer"] = fixed + gradients + max(message, self._muon, 0 if self._is_gpu else self._largest_group)
        return MemoryPlan(stages, gradients, self._optimizer, self._average, moments)

    def longest(self, memory: int) -> int:
        """Bytes of the longest context, in whole steps of the first stage, whose plan fits; 0 if none does."""
        if 2 * sum(self._parameters) + self._optimizer + self._average > memory:
            return 0
        size = self._model.bytes_per_step(0)
        limit = self._model.seq_lens[0] if isinstance(self._shape.pos_embs[0], PositionTable) else 2**40 // size
        # Every shorter context needs traces of its own, so these are looked at only if they have to be.
        low, high = 0, min(limit, self._reference_steps)
        while high < limit and self.plan(high * size).peak <= memory:
            low, high = high, min(limit, high * 2)
        if high == limit and self.plan(limit * size).peak <= memory:
            return limit * size
        while high - low > max(1, low // 1000):
            middle = (low + high) // 2
            low, high = (middle, high) if self.plan(middle * size).peak <= memory else (low, middle)
        return low * size

    # ---- counted ----------------------------------------------------------------------------------------------

    @cached_property
    def _shape(self) -> MultiscaleByteModel:
        with torch.device("meta"):
            return MultiscaleByteModel(self._model)

    @cached_property
    def _parameters(self) -> list[int]:
        """Bytes per stage."""
        model, last = self._shape, self._model.num_stages - 1

        def size(*modules: nn.Module) -> int:
            return FLOAT * sum(p.numel() for module in modules for p in module.parameters())

        totals = []
        for stage in range(last + 1):
            parts = [model.token_embs_rev[last - stage], model.pos_embs[stage], model.stage_models[stage]]
            parts += [model.to_next_stage_proj[stage - 1]] if stage else []
            parts += [model.to_logits] if stage == last else []
            totals.append(size(*parts) + FLOAT * model.start_tokens[stage].numel())
        return totals

    @cached_property
    def _optimizer(self) -> int:
        """Two moments per parameter for AdamW, one for Muon; a process's share if they are divided."""
        matrices = sum(p.numel() for p in self._matrices)
        state = 2 * sum(self._parameters) - FLOAT * matrices
        return -(-state // self._processes) if self._train.shard_optimizer else state

    @property
    def _matrices(self) -> list[nn.Parameter]:
        """Those that Muon trains."""
        return divide_parameters(self._shape, self._train)[0]

    @property
    def _average(self) -> int:
        return sum(self._parameters) if self._train.ema_decay is not None else 0

    @property
    def _largest_group(self) -> int:
        """On the CPU, AdamW makes temporary copies of a parameter's size, one parameter at a time."""
        return 2 * FLOAT * max(p.numel() for p in self._shape.parameters())

    # ---- traced -----------------------------------------------------------------------------------------------

    @cached_property
    def _muon(self) -> int:
        """What a step of Muon makes besides its state, at its peak; where the state is divided, a process has fewer matrices."""
        with pretending(self._is_gpu, "fp32"):
            matrices = [nn.Parameter(torch.empty(p.shape)) for p in self._matrices]
            if not matrices:
                return 0
            for matrix in matrices:
                matrix.grad = torch.empty_like(matrix)
            muon = Muon(matrices, lr=1.0, work_type=muon_type(self._is_gpu))
            muon.step()  # makes its state
            with LiveBytes() as live:
                muon.step()
        return live.peak

    def _in_chunks(self, steps: int, fixed: int, accumulated: int) -> tuple[list[StageMemory], dict[str, int]]:
        model, batch, last = self._model, self._train.batch_size, self._model.num_stages - 1
        kept, first_peak = self._at_steps(self._first, steps)
        stages = [StageMemory(self._parameters[0], kept, first_peak - kept)]
        moments: dict[str, int] = {}
        rows = batch * steps * (1 if last else model.bytes_per_step(0))  # sequences of the stage below
        held, later_gradients = kept, 0
        row_bytes = []
        for stage in range(1, last):
            outputs = FLOAT * rows * model.seq_lens[stage] * model.hidden_dims[stage]
            chunk = self._chunk_peak(stage, rows)
            stages.append(StageMemory(self._parameters[stage], outputs, chunk))
            row_bytes.append((stage, outputs, chunk, rows))
            held += outputs
            rows *= model.seq_lens[stage]
        row_gradient = FLOAT * rows * model.hidden_dims[max(0, last - 1)]
        chunk = self._chunk_peak(last, rows)
        if last:
            stages.append(StageMemory(self._parameters[last], row_gradient, chunk))
        own = self._parameters[last] if last else FLOAT * sum(p.numel() for p in self._shape.to_logits.parameters())
        moments[f"stage {last}, forward"] = fixed + accumulated + held + row_gradient + own + chunk
        later_gradients += own
        for stage, outputs, chunk, above in reversed(row_bytes):
            # The rows themselves are gone by now; their gradient, of the same size, is read chunk by chunk.
            own = self._parameters[stage]
            rows_gradient = FLOAT * above * model.hidden_dims[stage - 1]
            held -= outputs
            gradients = max(accumulated, later_gradients + own)
            moments[f"stage {stage}, backward"] = fixed + gradients + held + outputs + rows_gradient + chunk
            later_gradients += own
        # The trace of the first stage has its own gradients in it.
        moments["stage 0, backward"] = fixed + max(accumulated, later_gradients) + first_peak
        return stages, moments

    def _at_steps(self, trace: Callable[[int], tuple[int, ...]], steps: int) -> tuple[int, ...]:
        """A trace at so many steps of the first stage, out of traces at two numbers of them."""
        first = self._reference_steps
        if steps <= first:
            return self._traced(trace, steps)
        # What is largest at a few steps need not be at many: gradients of weights do not grow with them.
        fewer = first * min(LARGEST_TRACE, 2 ** ((steps - 1) // first).bit_length() // 2)
        reference = fewer, 2 * fewer
        low, high = (self._traced(trace, at) for at in reference)
        share = (steps - reference[0]) / (reference[1] - reference[0])
        return tuple(round(a + share * (b - a)) for a, b in zip(low, high, strict=True))

    @cached_property
    def _reference_steps(self) -> int:
        """Enough steps for several pieces of the embedder."""
        size = self._model.bytes_per_step(0) * self._train.batch_size
        return max(128, -(-2 * self._train.embed_chunk_bytes // size))

    def _traced(self, trace: Callable[[int], tuple[int, ...]], steps: int) -> tuple[int, ...]:
        key = (trace.__name__, steps)
        if key not in self._traces:
            self._traces[key] = trace(steps)
        return self._traces[key]

    @cached_property
    def _traces(self) -> dict[tuple[str, int], tuple[int, ...]]:
        return {}

    def _small(self, layers: tuple[int, ...]) -> MultiscaleByteModel:
        config = ModelConfig.from_params({**self._model.to_yaml_dict(), "num_layers": list(layers)})
        return MultiscaleByteModel(config).train()

    def _layers_of(self, stage: int, count: int) -> tuple[int, ...]:
        return tuple(count if k == stage else 1 for k in range(self._model.num_stages))

    def _whole(self, steps: int) -> tuple[int]:
        """Peak of loss and gradients, nothing cut."""
        length = steps * self._model.bytes_per_step(0)

        def trace(*layers: int) -> tuple[int]:
            with pretending(self._is_gpu, self._train.precision):
                model = self._small(layers)
                ids = torch.zeros(self._train.batch_size, length, dtype=torch.long)
                with LiveBytes() as live:
                    loss = model.loss(ids)
                    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
                del gradients
            return (live.peak,)

        return affine(trace, tuple(self._model.num_layers))

    def _first(self, steps: int) -> tuple[int, int]:
        """Kept after the way forward, and peak on the way back, gradients of the stage's parameters included."""
        length = steps * self._model.bytes_per_step(0)

        def trace(count: int) -> tuple[int, int]:
            with pretending(self._is_gpu, self._train.precision):
                model = self._small(self._layers_of(0, count))
                patches = patches_of(self._model, torch.zeros(self._train.batch_size, length, dtype=torch.long))
                with LiveBytes() as live:
                    rows = first_stage(model, patches, self._chunking)
                    kept, live.peak = live.current, live.current
                    gradients = torch.autograd.grad(
                        rows, list(model.parameters()), torch.empty_like(rows), allow_unused=True
                    )
                del gradients
            return kept, live.peak

        return affine(trace, (self._model.num_layers[0],))

    def _chunk_peak(self, stage: int, rows: int) -> int:
        """Activations and gradients of one chunk of a stage, or of the head of a model of one stage."""
        length = 1 + self._model.seq_lens[stage] if self._model.num_stages > 1 else 1
        size = self._chunking.sequences(stage, rows, length)[0].stop
        wanted = self._model.num_layers[stage] if self._model.num_stages > 1 else 1

        def at(count: int) -> int:
            key = (f"chunk of stage {stage}", count)
            if key not in self._traces:
                self._traces[key] = affine(lambda layers: self._trace_chunk(stage, count, layers), (wanted,))
            return self._traces[key][0]

        if size <= SMALL_CHUNK:
            return at(size)
        few = 2 ** ((size - 1).bit_length() - 1)
        return at(few) + (size - few) * (at(2 * few) - at(few)) // few

    def _trace_chunk(self, stage: int, rows: int, layers: int) -> tuple[int]:
        config, last = self._model, self._model.num_stages - 1
        with pretending(self._is_gpu, self._train.precision):
            model = self._small(self._layers_of(stage, layers))
            above = torch.zeros(rows, config.hidden_dims[max(0, stage - 1)])
            ids = torch.zeros(rows, *config.seq_lens[stage:], dtype=torch.long)
            ids = ids if stage == last else ids.flatten(2)
            modules = local_modules(model) if last else [model.to_logits]
            parameters = tuple(p for module in modules for p in module.parameters())
            gradients, row_gradient = [torch.zeros_like(p) for p in parameters], torch.zeros_like(above)
            targets = torch.zeros(rows, 1 + ids.shape[1] if last else 1, dtype=torch.long)

            def run(own: torch.Tensor, _: slice) -> tuple[torch.Tensor, torch.Tensor]:
                outputs = run_stage_chunk(model, stage, ids, own) if last else own
                return sum_of_losses(model.to_logits(outputs), targets, None, config.pad_token_id)

            with LiveBytes() as live:
                if stage == last:
                    chunk_gradients(run, above, slice(0, rows), parameters, row_gradient, gradients)
                else:
                    above.requires_grad_()
                    outputs = run_stage_chunk(model, stage, ids, above)[:, :-1].flatten(0, 1)
                    wanted = [above, *model.parameters()]
                    found = torch.autograd.grad(outputs, wanted, torch.ones_like(outputs), allow_unused=True)
                    del found
        return (live.peak,)
