"""Where batches come from, and how a model is judged on what was held out."""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multiscale.data.corpus import Corpus, DeviceCorpus, find_files, split_files
from multiscale.data.facts import NUMBER_DIGITS, plant_facts
from multiscale.data.whole_files import WholeFileSchedule
from multiscale.data.windows import WindowSchedule
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.chunked import Chunking, chunked_loss
from multiscale.train.config import RunConfig
from multiscale.train.processes import ProcessGroup
from multiscale.train.validation import bits_per_byte
from multiscale.vqa.source import VqaSource

log = logging.getLogger("train")
DEVICE_CORPUS_SHARE = 0.25
"""A corpus up to this share of the free device memory is kept there."""


class Source(Protocol):
    def facts(self) -> dict[str, Any]:
        """What decides which batches come: a resumed run must have the same."""

    def loss(self, model: MultiscaleByteModel, first: int, count: int) -> Tensor:
        """Mean loss in nats over the training examples number first … first+count-1; their order is the source's."""

    def validate(self, model: MultiscaleByteModel, batch_size: int, max_batches: int | None) -> dict[str, float]:
        """Figures on the held-out data, by their names in the log; empty if there are none. Every process takes part."""


def open_source(config: RunConfig, group: ProcessGroup, model: MultiscaleByteModel) -> Source:
    """Raises ValueError if there is no data or the model cannot learn from it."""
    if config.io.dataset_id == "vqa":
        return VqaSource(config.io, config.train.seed, group, model)
    return TextSource(config, group)


class TextSource:
    """Windows of files, every byte of which is predicted."""

    def __init__(self, config: RunConfig, group: ProcessGroup):
        self._config, self._group, self._length = config, group, config.input_seq_len
        self._padding = config.model.pad_token_id
        self._training, self._held_out = self._load()
        self._chunking = Chunking.of(config.model, config.train)
        seed = config.train.seed
        if config.io.dataset_args.whole_files:
            own_seed = seed if config.train.shuffle_train else None
            self._files = WholeFileSchedule(self._training.sizes, self._length, own_seed)
        else:
            self._schedule = WindowSchedule(len(self._training), self._length, seed)

    def facts(self) -> dict[str, Any]:
        args = self._config.io.dataset_args
        names = ("whole_files", "facts_told", "facts_at_once", "facts_alignment", "facts_share", "facts_weight")
        return {
            "params.input_seq_len": self._length,
            "bytes of training data": len(self._training),
            **{f"io.dataset_args.{name}": getattr(args, name) for name in names},
        }

    def loss(self, model: MultiscaleByteModel, first: int, count: int) -> Tensor:
        ids, weights = self._windows(first, count), None
        if self._config.io.dataset_args.facts_told is not None:
            weights = self._plant_facts(ids, first).to(self._group.device, non_blocking=True)
        return self._loss(model, ids.to(self._group.device, non_blocking=True), weights)

    def validate(self, model: MultiscaleByteModel, batch_size: int, max_batches: int | None) -> dict[str, float]:
        if self._held_out is None:
            return {}
        if self._config.io.dataset_args.whole_files:
            packed = WholeFileSchedule(self._held_out.sizes, self._length, None).one_epoch()
            count = len(packed)

            def gather(numbers: np.ndarray) -> Tensor:
                return self._held_out.gather_spans([packed[k] for k in numbers], self._length, self._padding)
        else:
            count = len(self._held_out) // self._length

            def gather(numbers: np.ndarray) -> Tensor:
                return self._held_out.gather(numbers * self._length, self._length)

        loss = partial(self._loss, model)
        bpb = bits_per_byte(loss, gather, count, self._padding, batch_size, max_batches, self._group)
        return {"validation_bits_per_byte": bpb}

    def _windows(self, first: int, count: int) -> Tensor:
        """Training windows number first … first+count-1: ids (count, L)."""
        if self._config.io.dataset_args.whole_files:
            return self._training.gather_spans(self._files.windows(first, count), self._length, self._padding)
        if self._config.train.shuffle_train:
            starts = self._schedule.starts(first, count)
        else:
            windows = len(self._training) // self._length
            starts = (torch.arange(first, first + count) % windows * self._length).numpy()
        return self._training.gather(starts, self._length)

    def _loss(self, model: MultiscaleByteModel, ids: Tensor, weights: Tensor | None = None) -> Tensor:
        if self._chunking is None:
            return model.loss(ids, weights)
        return chunked_loss(model, ids, self._chunking, weights)

    def _plant_facts(self, ids: Tensor, first: int) -> Tensor:
        """Over windows number `first` …, in place: a function of the seed and of a window's number. Returns loss weights."""
        args, weights = self._config.io.dataset_args, torch.ones(ids.shape)
        for row, (window, weight) in enumerate(zip(ids.numpy(), weights.numpy(), strict=True)):
            rng = random.Random(f"{self._config.train.seed} {first + row}")
            if rng.random() < args.facts_share:
                text = window
                if args.whole_files:  # nothing is written over the padding behind the files
                    text = window[: self._filled(first + row)]
                for start in plant_facts(text, rng, args.facts_told, args.facts_at_once, args.facts_alignment):
                    weight[start : start + NUMBER_DIGITS] = args.facts_weight
        return weights

    def _filled(self, number: int) -> int:
        """Bytes of a training window before its padding."""
        return sum(size for _, size in self._files.windows(number, 1)[0])

    def _load(self) -> tuple[Corpus | DeviceCorpus, Corpus | DeviceCorpus | None]:
        io, args = self._config.io, self._config.io.dataset_args
        training, held_out = split_files(
            find_files(io.dataset_dir), args.exclude, args.validation, args.validation_every
        )
        if args.validation_dir is not None:
            held_out = find_files(args.validation_dir)
        if not training:
            raise ValueError(f"io.dataset_dir: no training files are left in {io.dataset_dir}")
        if not held_out and self._group.is_main:
            log.warning("no validation files: give io.dataset_args.validation, validation_every or validation_dir")
        corpora = [Corpus(training), Corpus(held_out) if held_out else None]
        if corpora[1] is not None and len(corpora[1]) < self._length and not args.whole_files:
            few = f"{len(corpora[1])} validation bytes are fewer than one window of {self._length}"
            raise ValueError(f"io.dataset_args: {few} (params.input_seq_len)")
        if self._group.is_main:
            log.info("training on %d files, %.1f MB", len(training), len(corpora[0]) / 1e6)
            log.info("validating on %d files, %.1f MB", len(held_out), len(corpora[1] or ()) / 1e6)
        if args.whole_files:  # packed on the CPU
            return corpora[0], corpora[1]
        # Facts are written on the CPU.
        training = corpora[0] if args.facts_told is not None else self._place(corpora[0])
        return training, self._place(corpora[1]) if corpora[1] else None

    def _place(self, corpus: Corpus) -> Corpus | DeviceCorpus:
        if self._group.device.type != "cuda":
            return corpus
        free, _ = torch.cuda.mem_get_info(self._group.device)
        return DeviceCorpus(corpus, self._group.device) if len(corpus) < free * DEVICE_CORPUS_SHARE else corpus
