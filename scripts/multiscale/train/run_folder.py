"""What a run leaves behind: config, CSV and TensorBoard logs, a plot, checkpoints."""

from __future__ import annotations

import csv
import logging
import math
import re
from pathlib import Path

from multiscale.model.checkpoint import save_checkpoint
from multiscale.train.config import RunConfig

log = logging.getLogger("train")
FIELDS = (
    *("step", "bytes", "seconds", "learning_rate", "train_bits_per_byte"),
    *("validation_bits_per_byte", "validation_accuracy"),
)


class RunFolder:
    """Owned by the main process."""

    def __init__(self, path: Path, config: RunConfig):
        self.path, self._config = path, config
        path.mkdir(parents=True, exist_ok=True)
        self._log_file = logging.FileHandler(path / "train.log")
        logging.getLogger().addHandler(self._log_file)
        self._csv = path / "metrics.csv"
        self._rows: list[dict[str, str]] = []
        self._plotted_rows: int | None = None
        self._tensorboard = self._open_tensorboard()
        self._best: list[tuple[float, Path]] = []

    def begin(self) -> None:
        """Records the settings and the rows that are kept; on resuming, only after the settings were found to fit the run."""
        (self.path / "config.yaml").write_text(self._config.to_yaml())
        temporary = self._csv.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        temporary.replace(self._csv)

    def resume_at(self, step: int) -> None:
        """Drops rows and best checkpoints that are later than the state that the run resumes from. Other files stay."""
        if self._csv.exists():
            whole, _, _ = self._csv.read_text().rpartition("\n")  # a crash may have cut the last line
            self._rows = [row for row in csv.DictReader(whole.splitlines()) if int(row["step"]) <= step]
        # Names that `save_model` gives, and no others: people keep copies here.
        own_name = re.compile(rf"{re.escape(self._config.io.name_model)}-(\d{{8,}})-(\d+\.\d{{4}})\.pth")
        for checkpoint in list(self.path.iterdir()):
            if (match := own_name.fullmatch(checkpoint.name)) is None:
                continue
            if int(match[1]) <= step:
                self._best.append((float(match[2]), checkpoint))
            else:
                checkpoint.unlink()

    def record(self, **values: float) -> None:
        """One line of the log, behind `begin`; keys are `FIELDS`."""
        row = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in values.items()}
        self._rows.append(row)
        with self._csv.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS, restval="").writerow(row)
        if self._tensorboard is not None:
            for key in FIELDS[3:]:
                if key in values:
                    self._tensorboard.add_scalar(key, values[key], int(values["step"]))

    def save_model(self, model_state: dict, step: int, bits_per_byte: float | None) -> None:
        """Writes NAME.pth (the latest) and keeps the best `num_models_to_save` as NAME-<step>-<bits per byte>.pth.

        Without validation (None) there is no best one, and the file's LOSS is NaN. `bits_per_byte` is finite.
        """
        name = self._config.io.name_model
        loss = math.nan if bits_per_byte is None else bits_per_byte * math.log(2)
        save_checkpoint(self.path / f"{name}.pth", model_state, loss)
        if bits_per_byte is None:
            return
        best = self.path / f"{name}-{step:08d}-{bits_per_byte:.4f}.pth"
        save_checkpoint(best, model_state, loss)
        self._best = sorted([*self._best, (bits_per_byte, best)])
        for _, worse in self._best[self._config.io.num_models_to_save :]:
            worse.unlink(missing_ok=True)
        self._best = self._best[: self._config.io.num_models_to_save]

    def plot(self) -> None:
        """curves.png: bits per byte and learning rate over bytes seen; as it is if nothing was recorded since."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            log.info("matplotlib is not installed: no curves.png")
            return
        if self._plotted_rows == len(self._rows):
            return
        self._plotted_rows = len(self._rows)
        figure = Figure(figsize=(8, 6))
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for key, label in (("train_bits_per_byte", "training"), ("validation_bits_per_byte", "validation")):
            points = [(float(r["bytes"]) / 1e6, float(r[key])) for r in self._rows if r.get(key)]
            if points:
                top.plot(*zip(*points, strict=True), label=label, marker="o" if label == "validation" else None, ms=3)
        rates = [(float(r["bytes"]) / 1e6, float(r["learning_rate"])) for r in self._rows if r.get("learning_rate")]
        if rates:
            bottom.plot(*zip(*rates, strict=True), color="grey")
        values = [float(r[k]) for r in self._rows for k in FIELDS[4:6] if r.get(k)]
        if values:  # the first steps would squash the part that matters
            top.set_ylim(min(values) - 0.05, min(max(values), min(values) + 1.5))
        top.set(ylabel="bits per byte", title=self._config.io.description or self._config.io.name_model)
        top.grid(alpha=0.3)
        top.legend()
        bottom.set(xlabel="bytes seen (millions)", ylabel="learning rate")
        figure.tight_layout()
        figure.savefig(self.path / "curves.png", dpi=110)

    def _open_tensorboard(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("tensorboard is not installed: metrics go to metrics.csv only")
            return None
        return SummaryWriter(self.path / "tensorboard")

    def close(self) -> None:
        logging.getLogger().removeHandler(self._log_file)
        self._log_file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
