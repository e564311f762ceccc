"""The training loop."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from multiscale.model.checkpoint import initialize, read_entries, write_atomically
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.config import RunConfig
from multiscale.train.optimizer import RATE_RATIO, Together, WeightAverage, build_optimizer, learning_rate_at
from multiscale.train.processes import ProcessGroup
from multiscale.train.run_folder import RunFolder
from multiscale.train.sharding import gather_state
from multiscale.train.snapshots import Snapshots
from multiscale.train.sources import open_source

log = logging.getLogger("train")
CLOCK_EVERY = 10
"""Several processes ask the main one for the time after so many steps: asking makes all of them wait."""


def compile_layers(model: MultiscaleByteModel) -> None:
    """Compiles layer by layer: the layers of a stage share one compiled graph, so start-up does not grow with depth."""
    torch._dynamo.config.recompile_limit = 64
    for stage in model.stage_models:
        for layer in stage.layers:
            layer.compile(dynamic=False)


@torch.no_grad()
def scale_positions(model: MultiscaleByteModel, std: float) -> None:
    """Tables of positions, which begin with a standard deviation of 1."""
    for table in model.pos_embs.parameters():
        table.mul_(std)


class Trainer:
    """One run, resumable: everything that the next step depends on is in `state.pt`."""

    def __init__(self, config: RunConfig, run_dir: Path, group: ProcessGroup, init_from: Path | None = None):
        """`init_from`: a checkpoint whose weights the run begins with (see `initialize`)."""
        self.config, self.group, self.run_dir = config, group, run_dir
        torch.manual_seed(config.train.seed)
        torch.set_float32_matmul_precision("high" if config.train.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = config.train.precision == "tf32"
        self.model = MultiscaleByteModel(config.model)
        scale_positions(self.model, config.train.position_init_std)
        if init_from is not None:
            initialize(self.model, init_from)
        self.model.to(group.device)
        self.source = open_source(config, group, self.model)
        self.optimizer = build_optimizer(self.model, config.train)
        self.average = WeightAverage(self.model, config.train.ema_decay) if config.train.ema_decay else None
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=config.train.precision == "fp16")
        if config.train.compile:
            compile_layers(self.model)
        self.total_steps = config.steps(group.size)
        self.step, self.seconds_before = 0, 0.0
        # Seconds at the last look at the clock, and those of the first step, which compiles: no part of the schedule.
        self._time_used, self._first_step = 0.0, 0.0
        self.folder = RunFolder(run_dir, config) if group.is_main else None
        weights = config.io.weights_dir
        self.snapshots = Snapshots(Path(weights)) if weights is not None and group.is_main else None
        # Each process has its own dropout; shared weights came from the shared seed above.
        torch.manual_seed(config.train.seed + 1 + group.rank)

    # ---- data -------------------------------------------------------------------------------------------------

    def _next_loss(self, micro_step: int) -> Tensor:
        train, size = self.config.train, self.group.size
        place = (self.step * train.gradient_accumulate_every + micro_step) * size + self.group.rank
        return self.source.loss(self.model, place * train.batch_size, train.batch_size)

    # ---- one step ---------------------------------------------------------------------------------------------

    def _autocast(self) -> contextlib.AbstractContextManager:
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        kind = kinds.get(self.config.train.precision)
        return torch.autocast(self.group.device.type, kind) if kind else contextlib.nullcontext()

    def _train_step(self, learning_rate: float) -> Tensor:
        """One optimizer step; returns the mean loss in nats without waiting for the device."""
        train = self.config.train
        self.model.train()
        total = torch.zeros((), device=self.group.device)
        for micro_step in range(train.gradient_accumulate_every):
            with self._autocast():
                loss = self._next_loss(micro_step) / train.gradient_accumulate_every
            self.scaler.scale(loss).backward()
            total += loss.detach()
        # Averaged before unscaling, so that an overflow in one process makes all of them skip the step.
        self.group.average_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        if train.gradient_clipping is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clipping)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate * parameters.get(RATE_RATIO, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        self.step += 1
        return total

    # ---- the run ----------------------------------------------------------------------------------------------

    def run(self, stop_after: float | None = None) -> float | None:
        """Trains to the end or to the time budget; returns the last validation bits per byte.

        `stop_after`: seconds after which the run breaks off, to be resumed; the schedule does not know of it.
        """
        try:
            return self._run(stop_after)
        finally:
            if self.folder is not None:
                self.folder.close()

    def _run(self, stop_after: float | None) -> float | None:
        io, started = self.config.io, time.monotonic()
        if self.folder is not None:
            self.folder.begin()
        bytes_per_step = self._bytes_per_step()
        validate_every = max(1, self.total_steps // io.validate_amount)
        log_every = max(1, self.total_steps // io.log_train_loss_amount)
        self._time_used = self.seconds_before
        saved_at, last_bpb, progress = started, None, self._progress()
        bar = tqdm(
            total=self.total_steps * bytes_per_step,
            initial=self.step * bytes_per_step,
            unit="B",
            unit_scale=True,
            disable=not (self.group.is_main and sys.stderr.isatty()),
        )
        is_over = False
        while progress < 1 and not is_over:
            rate = learning_rate_at(progress, self.config.train)
            loss = self._train_step(rate)
            bar.update(bytes_per_step)
            looks_at_clock = self.group.size == 1 or self.step % CLOCK_EVERY == 0 or self.step == 1
            if looks_at_clock:
                self._time_used = self.group.share(self._elapsed(started))
                self._first_step = self._time_used if self.step == 1 else self._first_step
                is_over = stop_after is not None and self.group.decide(time.monotonic() - started > stop_after)
            progress = self._progress()
            if self.step % log_every == 0 or self.step == 1:
                self._log_step(loss, rate, started, bar)
            validates = self.step % validate_every == 0 or progress >= 1
            if validates or is_over or (looks_at_clock and self._is_state_old(saved_at)):
                self._require_finite_weights()
                if validates:
                    last_bpb = self._validate(started)
                else:
                    self._save_state(started)
                    self._save_weights()
                saved_at = time.monotonic()
        bar.close()
        if self.folder is not None:
            self.folder.plot()
        return last_bpb

    def _bytes_per_step(self) -> int:
        train = self.config.train
        return train.batch_size * train.gradient_accumulate_every * self.group.size * self.config.input_seq_len

    def _progress(self) -> float:
        """Fraction of the run that is done: by steps, or by time where the budget would end first."""
        by_steps = self.step / self.total_steps
        budget = self.config.train.max_seconds
        if budget is None or self.step == 0:
            return by_steps
        return max(by_steps, (self._time_used - self._first_step) / max(budget - self._first_step, 1e-9))

    def _is_state_old(self, saved_at: float) -> bool:
        return self.group.decide(time.monotonic() - saved_at > self.config.train.checkpoint_every_seconds)

    def _elapsed(self, started: float) -> float:
        return self.seconds_before + time.monotonic() - started

    def _log_step(self, loss: Tensor, rate: float, started: float, bar: tqdm) -> None:
        bpb = self.group.sum(loss.clone()).item() / self.group.size / math.log(2)
        self._require_finite(bpb, "the training loss")
        if self.folder is None:
            return
        seen, seconds = self.step * self._bytes_per_step(), self._elapsed(started)
        self.folder.record(step=self.step, bytes=seen, seconds=seconds, learning_rate=rate, train_bits_per_byte=bpb)
        bar.set_postfix_str(f"{bpb:.4f} bits/byte")
        if bar.disable:
            log.info("step %d  %.1f MB  %.0f s  %.4f bits/byte  lr %.2e", self.step, seen / 1e6, seconds, bpb, rate)

    def _require_finite_weights(self) -> None:
        """Weights that are not finite must replace none that are: there would be nothing left to go on with."""
        largest = [torch.linalg.vector_norm(p.detach(), math.inf) for p in self.model.parameters()]
        self._require_finite(torch.stack(largest).max().item(), "the largest weight")

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{what} is {value} at step {self.step}: lower train.learning_rate; checkpoints and state.pt are as they were"
            )

    def _validate(self, started: float) -> float | None:
        """Validates and saves the averaged weights if there are any; then saves the trainer's state."""
        self.model.eval()
        if self.average is not None:
            self.average.swap()
        train = self.config.train
        with self._autocast(), torch.compiler.set_stance("force_eager"):
            figures = self.source.validate(self.model, train.batch_size, train.max_eval_steps)
        bpb = figures.get("validation_bits_per_byte")
        self._require_finite(0.0 if bpb is None else bpb, "validation bits per byte")
        if self.folder is not None:
            seen, seconds = self.step * self._bytes_per_step(), self._elapsed(started)
            if figures:
                self.folder.record(step=self.step, bytes=seen, seconds=seconds, **figures)
                said = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
                log.info("step %d  %.1f MB  %s", self.step, seen / 1e6, said)
            self.folder.save_model(self.model.state_dict(), self.step, bpb)
            self.folder.plot()
        if self.average is not None:
            self.average.swap()
        self._save_state(started)
        self._save_weights()
        return bpb

    def _save_weights(self) -> None:
        """The averaged weights if there are any, where `io.weights_dir` says."""
        if self.snapshots is None:
            return
        if self.average is not None:
            self.average.swap()
        self.snapshots.save(self.model.state_dict(), self.step)
        if self.average is not None:
            self.average.swap()

    # ---- resuming ---------------------------------------------------------------------------------------------

    def _save_state(self, started: float) -> None:
        """One file with everything, each process's random state included: a crash leaves no mixture of steps."""
        device = self.group.device
        rng = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }
        random_states = self.group.gather(rng)
        if isinstance(self.optimizer, Together):
            self.optimizer.gather_state()
        else:
            gather_state(self.optimizer)
        if not self.group.is_main:
            return
        state = {
            "step": self.step,
            "seconds": self._elapsed(started),
            "first step": self._first_step,
            "settings": self._settings(),
            "rng": random_states,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }
        write_atomically(self.run_dir / "state.pt", state)

    def _settings(self) -> dict[str, object]:
        """What a run cannot change half-way: the model's shape, and what decides which windows come next."""
        train = self.config.train
        return {
            "params": self.config.model.to_yaml_dict(),
            **self.source.facts(),
            "number of processes": self.group.size,
            "train.batch_size": train.batch_size,
            "train.gradient_accumulate_every": train.gradient_accumulate_every,
            "train.shuffle_train": train.shuffle_train,
            "train.seed": train.seed,
        }

    def resume(self) -> None:
        """Continues from `state.pt`; on the CPU bit for bit as if the run had never stopped."""
        # In the CPU's memory: the GPU would have to hold all of it, and of every process's optimizer, beside what is there.
        names = ("step", "seconds", "rng", "model", "optimizer", "scaler", "average")
        state = read_entries(self.run_dir / "state.pt", "a state to resume from", *names)
        saved = state.get("settings", {})
        for name, value in self._settings().items():
            if saved.get(name) != value:
                raise ValueError(f"--resume: {name} differs: the run has {saved.get(name)}, now it is {value}")
        if (state["average"] is None) != (self.average is None):
            raise ValueError("--resume: train.ema_decay was switched on or off since the run started")
        if ("param_groups" not in state["optimizer"]) != isinstance(self.optimizer, Together):
            raise ValueError("--resume: train.matrix_learning_rate was switched on or off since the run started")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # only fp16 has one: a run that goes on in fp16 begins with a new one
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.seconds_before = state["step"], state["seconds"]
        self._first_step = state.get("first step", 0.0)
        rng = state["rng"][self.group.rank]
        torch.set_rng_state(rng["cpu"])
        if rng["cuda"] is not None and self.group.device.type == "cuda":
            torch.cuda.set_rng_state(rng["cuda"], self.group.device)
        if self.folder is not None:
            self.folder.resume_at(self.step)
            log.info("resuming at step %d of %d", self.step, self.total_steps)
