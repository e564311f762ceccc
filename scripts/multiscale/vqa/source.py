"""Batches of packed rows for the trainer, out of a folder of shards."""

from __future__ import annotations

import functools
import logging
import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiscale.model.network import MultiscaleByteModel, PositionTable
from multiscale.model.packed import PackedRows, check_packable, longest_position, packed_logits, packed_loss
from multiscale.vqa.data.plan import INFO, ShardPlan
from multiscale.vqa.data.shards import appears, read_shard
from multiscale.vqa.layout import ANSWER_IDS

if TYPE_CHECKING:
    from multiscale.train.config import IoConfig
    from multiscale.train.processes import ProcessGroup

log = logging.getLogger("train")
SHARDS_AT_ONCE = 8
"""Rows are shuffled within this many shards."""


class VqaSource:
    """Shards in order during the first epoch, so that a run can begin before the last are written; shuffled after that."""

    def __init__(self, io: IoConfig, seed: int, group: ProcessGroup, model: MultiscaleByteModel):
        self._folder, self._seed, self._group = Path(io.dataset_dir), seed, group
        check_packable(model)
        appears(self._folder / INFO, io.dataset_args.wait_seconds)
        self._plan = plan = ShardPlan.read(self._folder)
        config = model.config
        if plan.layout.align != config.seq_lens[1]:
            raise ValueError(
                f"params.seq_lens: patches of {config.seq_lens[1]} bytes, the shards' are {plan.layout.align}"
            )
        if plan.layout.special_ids.pad != config.pad_token_id:
            raise ValueError(
                f"params.pad_token_id: {config.pad_token_id}, the shards' is {plan.layout.special_ids.pad}"
            )
        if max(plan.layout.special_ids.model_dump().values()) >= config.num_tokens:
            raise ValueError(f"params.num_tokens: {config.num_tokens} leaves no room for the shards' special ids")
        args = io.dataset_args
        if not 1 <= args.validation_shards < plan.count:
            raise ValueError(
                f"io.dataset_args.validation_shards: must be from 1 to {plan.count - 1}, one below the shards"
            )
        # The first ones are held out: they are there before training begins, the last may still be made.
        self._held_out, self._training = args.validation_shards, plan.count - args.validation_shards
        self._steps = config.seq_lens[0] if isinstance(model.pos_embs[0], PositionTable) else None
        self._wait_seconds, self._first_passes = args.wait_seconds, args.first_epoch_passes
        self._read = functools.lru_cache(4 * SHARDS_AT_ONCE)(self._read_shard)
        self._ahead, self._next = ThreadPoolExecutor(1), dict[tuple[int, int], Future[PackedRows]]()
        self._rows_per_shard = len(self._read(0)["ids"])
        # Where every question is a row, another shard may have a few less; its first ones come again (see `_row`).
        if group.is_main:
            log.info("training on %d shards of %d rows", self._training, self._rows_per_shard)

    def facts(self) -> dict[str, Any]:
        return {
            "shards": self._plan.to_json(),
            "training": self._training,
            "io.dataset_args.first_epoch_passes": self._first_passes,
        }

    def _read_shard(self, index: int) -> dict[str, np.ndarray]:
        """Raises ValueError if it does not come or its sequences are longer than the table of positions."""
        shard = read_shard(self._folder, index, self._wait_seconds)
        longest = longest_position(shard["branch"])
        if self._steps is not None and longest > self._steps:
            raise ValueError(f"params.seq_lens: {self._steps} patches, shard {index} has sequences of {longest}")
        return shard

    def loss(self, model: MultiscaleByteModel, first: int, count: int) -> Tensor:
        """The rows that this process will probably want next are read meanwhile."""
        rows, following = self._next.pop((first, count), None), first + count * self._group.size
        batch = self._rows(first, count) if rows is None else rows.result()
        self._next = {(following, count): self._ahead.submit(self._rows, following, count)}
        return packed_loss(model, batch.to(self._group.device))

    @torch.no_grad()
    def validate(self, model: MultiscaleByteModel, batch_size: int, max_batches: int | None) -> dict[str, float]:
        """Bits per answer byte and the share of right answers."""
        rows = [(s, r) for s in range(self._held_out) for r in range(len(self._read(s)["ids"]))]
        if max_batches is not None:
            rows = rows[: max_batches * batch_size * self._group.size]
        ids = torch.tensor(sorted(ANSWER_IDS.values()), device=self._group.device)
        total = torch.zeros(3, dtype=torch.float64, device=self._group.device)
        rows = rows[self._group.rank :: self._group.size]
        for begin in range(0, len(rows), batch_size):
            chosen = rows[begin : begin + batch_size]
            batch = self._batch(chosen).to(ids.device)
            question = torch.from_numpy(np.stack([self._read(s)["question"][r] for s, r in chosen])).to(ids.device)
            asked = question >= 0
            logits = packed_logits(model, batch)[:, :, 0].float()[asked]
            patches = batch.ids.gather(1, batch.scored.long()[..., None].expand(-1, -1, batch.ids.shape[2]))
            truth = patches[:, :, 1][asked].long()
            nats = F.cross_entropy(logits, truth, reduction="sum")
            right = (ids[logits[:, ids].argmax(-1)] == truth).sum()
            total += torch.stack((nats.double(), right.double(), asked.sum().double()))
        self._group.sum(total)
        nats, right, count = total.tolist()
        return {"validation_bits_per_byte": nats / count / math.log(2), "validation_accuracy": right / count}

    def _place(self, index: int) -> tuple[int, int]:
        """Shard and row of a training example; a pure function of the seed and the example's number."""
        rows_of_all = self._training * self._rows_per_shard
        first_epoch = self._first_passes * rows_of_all
        if index < first_epoch:
            epoch, rest, passes = 0, index, self._first_passes
        else:
            later, rest = divmod(index - first_epoch, rows_of_all)
            epoch, passes = 1 + later, 1
        group, within = divmod(rest, passes * SHARDS_AT_ONCE * self._rows_per_shard)
        in_group = min(SHARDS_AT_ONCE, self._training - group * SHARDS_AT_ONCE) * self._rows_per_shard
        turn, place = divmod(within, in_group)
        shards, rows = self._order(epoch, group, turn)
        row = rows[place]
        return int(shards[row // self._rows_per_shard]), int(row % self._rows_per_shard)

    @functools.lru_cache(maxsize=4)  # noqa: B019  (one source lives as long as the run)
    def _order(self, epoch: int, group: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards of a group, and its rows in random order, another one at every turn."""
        shards = self._held_out + np.arange(self._training)
        if epoch > 0:
            shards = np.random.default_rng((self._seed, epoch)).permutation(shards)
        shards = shards[group * SHARDS_AT_ONCE : (group + 1) * SHARDS_AT_ONCE]
        rows = np.random.default_rng((self._seed, epoch, group, turn)).permutation(len(shards) * self._rows_per_shard)
        return shards, rows

    def _rows(self, first: int, count: int) -> PackedRows:
        return self._batch([self._place(index) for index in range(first, first + count)])

    def _batch(self, places: list[tuple[int, int]]) -> PackedRows:
        def tensor(name: str, kind: type) -> Tensor:
            rows = np.stack([self._row(shard, name, row) for shard, row in places]).astype(kind)
            return torch.from_numpy(rows)

        return PackedRows(
            tensor("ids", np.int16), tensor("branch", np.int16), tensor("scored", np.int16), tensor("weights", np.uint8)
        )

    def _row(self, shard: int, name: str, row: int) -> np.ndarray:
        rows = self._read(shard)[name]
        return rows[row % len(rows)]
