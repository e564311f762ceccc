"""Training configuration: the reference's YAML sections (`params`, `io`, `train`) and what this trainer adds to them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from multiscale.model.config import ModelConfig
from multiscale.model.yaml_sections import parse_yaml, read_yaml_sections

log = logging.getLogger("train")


class DatasetArgs(BaseModel):
    """How files are divided."""

    model_config = ConfigDict(extra="forbid")

    validation_dir: str | None = None
    """A folder of validation files; otherwise they are taken out of `dataset_dir`."""
    validation: list[str] = []
    """Name patterns of validation files."""
    validation_every: int | None = Field(None, ge=2)
    """About one file in n is held out, chosen by a hash of its name."""
    exclude: list[str] = []
    """Name patterns of files used for nothing (test files, indexes)."""
    whole_files: bool = False
    """Data set `text`: windows hold whole files, each from its beginning, and padding behind them (see
    `multiscale.data.whole_files`). Otherwise they are cut out of all files as one text, wherever they fall."""
    facts_told: int | None = Field(None, ge=2)
    """Data set `text`: plant facts in training windows, each told up to so many times (see `multiscale.data.facts`)."""
    facts_at_once: int = Field(1, ge=1)
    """Up to so many facts are to be remembered at a time."""
    facts_alignment: int = Field(8, ge=1, le=16)
    """Facts begin at multiples of it."""
    facts_share: float = Field(1.0, gt=0, le=1)
    """The share of training windows that get facts."""
    facts_weight: float = Field(1.0, gt=0)
    """The loss weight of numbers that were told before in their window."""
    validation_shards: int = Field(4, ge=1)
    """Data set `vqa`: how many shards, the first ones, are held out."""
    wait_seconds: float = Field(120, ge=0)
    """Data set `vqa`: how long to wait for shards that are not there yet."""
    first_epoch_passes: int = Field(1, ge=1)
    """Data set `vqa`: how often rows are used in the first epoch, before later shards are waited for: a trainer that is faster
    than the generator does not stand still then."""


class IoConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name_model: str = "model"
    output_dir: str = "runs"
    dataset_dir: str
    dataset_id: Literal["text", "vqa"] = "text"
    """`text` (any files, as bytes) or `vqa` (shards of images and questions, see scripts/make_clevr.py)."""
    dataset_args: DatasetArgs = DatasetArgs()
    weights_dir: str | None = None
    """Also keep the latest weights here, in half precision and files of at most 16 MiB: `scripts/export.py` reads them."""
    description: str | None = None
    num_models_to_save: int = Field(1, ge=1)
    """How many of the best checkpoints are kept."""
    validate_amount: int = Field(20, ge=1)
    """Validations over the whole run."""
    log_train_loss_amount: int = Field(1000, ge=1)
    """Logged training losses over the whole run."""
    enabled_loss_log_for_gpus: list[int] = [0]
    """Accepted for compatibility; must contain rank 0, the only one that logs."""

    @field_validator("dataset_id", mode="before")
    @classmethod
    def _name_what_there_is(cls, value: Any) -> Any:
        if value not in ("text", "vqa"):
            raise ValueError(f"{value!r} is not text or vqa; io.dataset_id=text trains on any files")
        return value


class TrainConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target_elements: int = Field(ge=1)
    """Bytes (strategy `sequence`) or windows (strategy `batch`) to train on in all."""
    target_elements_strategy: Literal["batch", "sequence"] = "sequence"
    batch_size: int = Field(ge=1)
    """Windows per process and forward pass."""
    gradient_accumulate_every: int = Field(1, ge=1)
    learning_rate: float = Field(gt=0)
    matrix_learning_rate: float | None = Field(None, gt=0)
    """Train the stages' matrices by Muon at this rate, on the same schedule, and the rest by AdamW at `learning_rate`."""
    warmup_steps_perc: float = Field(0.1, ge=0, le=1)
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """The cosine ends at this fraction of `learning_rate`."""
    gradient_clipping: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    position_init_std: float = Field(1.0, gt=0)
    """Standard deviation that tables of positions begin with; the reference's is 1, as large as what they are added to."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    max_eval_steps: int | None = Field(None, ge=1)
    """Validation batches; None runs over all of the held-out data."""
    shuffle_train: bool = True
    shuffle_eval: Literal[False] = False
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """`fp32` is full precision; `bf16`/`fp16` autocast matrix products; states, norms and loss stay in float32."""
    compile: bool = False
    chunk_tokens: int | list[int] | None = None
    """Train in chunks of so many tokens of a stage (one number, or one per stage but the first), in memory that hardly grows with
    the context; the loss is the same. None: `params.train_checkpoint_chunks` says into how many chunks, or nothing is cut."""
    embed_chunk_bytes: int = Field(2**18, ge=1)
    """Training in chunks: bytes whose embeddings the first stage holds at a time."""
    shard_optimizer: bool = False
    """Several processes: each keeps the optimizer's state for its share of the parameters only."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep an exponential moving average of the weights; it is what is validated and saved."""
    max_seconds: float | None = Field(None, gt=0)
    """Wall-clock budget of training over all resumed runs: the learning rate falls by time, so that it ends within it."""
    checkpoint_every_seconds: float = Field(300, gt=0)
    """How often the state to resume from, and the weights in `io.weights_dir`, are written between validations."""
    seed: int = 0


class RunConfig(BaseModel):
    """A whole training YAML."""

    model: ModelConfig
    input_seq_len: int
    io: IoConfig
    train: TrainConfig

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: list[str] = ()) -> RunConfig:  # type: ignore[assignment]
        """Reads a YAML and applies `section.key=value` overrides. Raises ValueError naming every wrong key.

        The sections `summary` and `resume`, which the reference adds to the YAML of a run that has ended, are not read.
        """
        data = read_yaml_sections(path)
        if data.pop("resume", None) is not None:
            log.info("%s: resume is not read: --resume goes on with a run folder, --init-from with a checkpoint", path)
        unknown = data.keys() - {"params", "io", "train", "summary"}
        if unknown:
            raise ValueError(f"{path}: unknown section {', '.join(sorted(unknown))}")
        for override in overrides:
            _apply_override(data, override)
        params = data.get("params", {})
        length = params.pop("input_seq_len", None)
        model = ModelConfig.from_params(params, str(path))
        length = model.context_length if length is None else length
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"{path}: params.input_seq_len: {length!r} is not an integer ≥ 1")
        if model.blocks[0].pos_emb_type == "fixed" and length > model.context_length:
            limit = f"{model.context_length}, the length of the position table"
            raise ValueError(f"{path}: params.input_seq_len: {length} is more than {limit}")
        if model.num_tokens < 256:
            raise ValueError(f"{path}: params.num_tokens: {model.num_tokens} is less than 256, and data are bytes")
        io, train = _section(IoConfig, data, "io", path), _section(TrainConfig, data, "train", path)
        _check_chunks(model, io, train, path)
        if 0 not in io.enabled_loss_log_for_gpus:
            raise ValueError(f"{path}: io.enabled_loss_log_for_gpus: must contain 0, the only rank that logs")
        return cls(model=model, input_seq_len=length, io=io, train=train)

    def to_yaml(self) -> str:
        params = {**self.model.to_yaml_dict(), "input_seq_len": self.input_seq_len}
        sections = {
            "params": params,
            "io": self.io.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
        }
        return yaml.safe_dump(sections, sort_keys=False)

    def steps(self, num_processes: int) -> int:
        """Optimizer steps of the whole run."""
        windows = self.train.batch_size * self.train.gradient_accumulate_every * num_processes
        per_step = windows * (self.input_seq_len if self.train.target_elements_strategy == "sequence" else 1)
        return max(1, -(-self.train.target_elements // per_step))


def _check_chunks(model: ModelConfig, io: IoConfig, train: TrainConfig, path: str | Path) -> None:
    tokens, below = train.chunk_tokens, max(1, model.num_stages - 1)
    if tokens is None:
        return
    if isinstance(tokens, list) and len(tokens) != below:
        raise ValueError(f"{path}: train.chunk_tokens has {len(tokens)} entries, it needs {below} or one number")
    if min(tokens if isinstance(tokens, list) else [tokens]) < 1:
        raise ValueError(f"{path}: train.chunk_tokens: {tokens} is not at least 1")
    if io.dataset_id == "vqa":
        raise ValueError(f"{path}: train.chunk_tokens: rows of data set vqa are packed, which leaves nothing to cut")


def _section(schema: type[BaseModel], data: dict[str, Any], name: str, path: str | Path) -> Any:
    try:
        return schema.model_validate({k: v for k, v in data.get(name, {}).items() if v is not None})
    except ValidationError as error:
        problems = [f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path}: " + "; ".join(problems)) from None


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or len(parts) < 2:
        raise ValueError(f"override {override!r}: expected section.key=value, such as train.batch_size=8")
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ValueError(f"override {override!r}: {part} is not a section")
    try:
        target[parts[-1]] = parse_yaml(value)
    except ValueError as error:
        raise ValueError(f"override {override!r}: the value is {error}") from None
