"""Model configuration, with the keys of the reference package's YAML files (`params:` section)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

import multiscale.model.blocks  # noqa: F401  (registers the built-in blocks)
from multiscale.model.registry import BlockConfig, parse_block
from multiscale.model.yaml_sections import read_yaml_sections


class ModelConfig(BaseModel):
    """A hierarchy of stages. Lists run from the most global stage to the local one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_tokens: int = Field(gt=0, le=65536)
    """Vocabulary size V: 256 bytes, and special ids above them if it is larger."""
    pad_token_id: int = Field(ge=0)
    hidden_dims: list[int]
    seq_lens: list[int]
    num_layers: list[int]
    train_checkpoint_chunks: list[int] | None = None
    """Per stage but the first: run it in that many batch chunks under activation checkpointing while training."""
    block: SerializeAsAny[BlockConfig] | list[SerializeAsAny[BlockConfig]]

    @field_validator("block", mode="before")
    @classmethod
    def _parse_block(cls, value: Any) -> Any:
        return [parse_block(item) for item in value] if isinstance(value, list) else parse_block(value)

    @field_validator("hidden_dims", "seq_lens", "num_layers", "train_checkpoint_chunks")
    @classmethod
    def _check_positive(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and (not value or min(value) < 1):
            raise ValueError("must be a non-empty list of integers ≥ 1")
        return value

    @model_validator(mode="after")
    def _check_lengths(self) -> ModelConfig:
        stages = len(self.hidden_dims)
        for key in ("seq_lens", "num_layers"):
            if len(getattr(self, key)) != stages:
                raise ValueError(f"{key} has {len(getattr(self, key))} entries, hidden_dims has {stages}")
        if isinstance(self.block, list) and len(self.block) != stages:
            raise ValueError(f"block has {len(self.block)} entries, hidden_dims has {stages}")
        chunks = self.train_checkpoint_chunks
        if chunks is not None and len(chunks) != stages - 1:
            raise ValueError(f"train_checkpoint_chunks needs {stages - 1} entries (one per stage but the first)")
        if self.pad_token_id >= self.num_tokens:
            raise ValueError(f"pad_token_id {self.pad_token_id} is not below num_tokens {self.num_tokens}")
        return self

    @property
    def num_stages(self) -> int:
        return len(self.hidden_dims)

    @property
    def blocks(self) -> list[BlockConfig]:
        """One block per stage."""
        return list(self.block) if isinstance(self.block, list) else [self.block] * self.num_stages

    def bytes_per_step(self, stage: int) -> int:
        """S_i: bytes that one step of stage i covers."""
        return math.prod(self.seq_lens[stage + 1 :])

    @property
    def context_length(self) -> int:
        return math.prod(self.seq_lens)

    @classmethod
    def from_params(cls, params: Any, source: str = "params") -> ModelConfig:
        """Raises ValueError with every problem, each naming its key."""
        try:
            return cls.model_validate(params)
        except ValidationError as error:
            problems = [f"{'.'.join(['params', *map(str, e['loc'])])}: {e['msg']}" for e in error.errors()]
            raise ValueError(f"{source}: " + "; ".join(problems)) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> ModelConfig:
        """Reads the `params:` section of a training YAML (ours or the reference's)."""
        params = read_yaml_sections(path).get("params")
        if params is None:
            raise ValueError(f"{path}: no `params:` section")
        params.pop("input_seq_len", None)  # the trainer's: how long its windows are
        return cls.from_params(params, str(path))

    def to_yaml_dict(self) -> dict[str, Any]:
        """A `params:` section that this package and the reference both read."""
        return self.model_dump(mode="json")
