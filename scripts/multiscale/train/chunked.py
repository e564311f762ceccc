"""The training loss in chunks: beyond one chunk, memory grows only with what the first stages hand down.

Letters as in `multiscale.model.network`. A context of 5 000 000 bytes has as many local tokens, each worth tens of kilobytes of
activations. None of them is kept:

- stage 0 is one long sequence per row: its patches are embedded some at a time, and its layers keep their inputs alone;
- stages between run in chunks of sequences. A chunk keeps what it reads of the stage above and is run again backwards;
- the local stage goes on, in every chunk, to logits, loss and gradients at once. Only gradients are kept: nothing is run twice,
  and there are never more logits than one chunk's.

Loss and gradients are those of `MultiscaleByteModel.loss`, up to the order of summation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.model.widen import widen
from multiscale.train.config import TrainConfig

Run = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""(rows of the stage above, which ones) → (sum of the losses, how many are not zero)."""


@dataclass(frozen=True)
class Chunking:
    """How the stages are cut: by tokens in a chunk, or into so many chunks; per stage but the first."""

    tokens: tuple[int, ...] | None
    counts: tuple[int, ...] | None
    embed_bytes: int
    """Bytes whose embeddings stage 0 holds at a time."""

    @classmethod
    def of(cls, model: ModelConfig, train: TrainConfig) -> Chunking | None:
        """None: nothing is cut. `train.chunk_tokens` goes before `params.train_checkpoint_chunks`."""
        below = max(1, model.num_stages - 1)
        if train.chunk_tokens is not None:
            given = train.chunk_tokens
            tokens = (given,) * below if isinstance(given, int) else tuple(given)
            return cls(tokens, None, train.embed_chunk_bytes)
        if model.train_checkpoint_chunks is not None:
            return cls(None, tuple(model.train_checkpoint_chunks), train.embed_chunk_bytes)
        return None

    def sequences(self, stage: int, total: int, length: int) -> list[slice]:
        """Chunks of `total` sequences of `length` tokens of a stage (or of the head, for a model of one stage)."""
        index = max(0, stage - 1)
        count = self.counts[index] if self.tokens is None else -(-total * length // self.tokens[index])
        return slices(total, count)


def slices(total: int, count: int) -> list[slice]:
    """`total` things in at most `count` slices of almost equal size."""
    count = max(1, min(count, total))
    size, larger = divmod(total, count)
    ends = [size * (k + 1) + min(k + 1, larger) for k in range(count)]
    return [slice(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def chunked_loss(
    model: MultiscaleByteModel, ids: Tensor, chunking: Chunking, loss_mask: Tensor | None = None
) -> Tensor:
    """`model.loss(ids, loss_mask)` in chunks. ids (B, L ≥ 1)."""
    last = model.config.num_stages - 1
    patches = patches_of(model.config, ids)
    rows = _rows_above(model, patches, chunking)
    targets, weights = _targets(patches, ids, loss_mask, model.config.pad_token_id)
    if last == 0:
        targets, weights = targets.flatten()[:, None], None if weights is None else weights.flatten()[:, None]
    modules = local_modules(model) if last else [model.to_logits]
    run, parts = _run(model, patches, targets, weights), chunking.sequences(last, len(rows), targets.shape[1])
    if torch.is_grad_enabled():
        owned = [p for module in modules for p in module.parameters()]
        owned += [model.start_tokens[last]] if last > 0 else []
        total, count = _LossOfChunks.apply(run, parts, rows, *(p for p in owned if p.requires_grad))
    else:
        total, count = (sum(values) for values in zip(*(run(rows[part], part) for part in parts), strict=True))
    return total / count.clamp(min=1)


@torch.no_grad()
def byte_losses(model: MultiscaleByteModel, ids: Tensor, chunking: Chunking) -> Tensor:
    """Cross-entropy of every byte, in nats: ids (1, L ≥ 1) → (L,). Padding is not left out."""
    config = model.config
    last, patches = config.num_stages - 1, patches_of(config, ids)
    rows = _rows_above(model, patches, chunking)
    targets, _ = _targets(patches, ids, None, config.pad_token_id)
    targets = targets if last else targets.flatten()[:, None]
    losses = []
    for part in chunking.sequences(last, len(rows), targets.shape[1]):
        logits = _local_logits(model, patches, rows[part], part)
        losses.append(F.cross_entropy(widen(logits).flatten(0, -2), targets[part].flatten(), reduction="none"))
    nats = torch.cat(losses).view(-1, targets.shape[1])
    # The first row's start position predicts byte 0; other start positions predict nothing.
    return torch.cat((nats[0, :1], nats[:, 1:].flatten() if last else nats[1:, 0]))[: ids.shape[1]]


@torch.no_grad()
def last_logits(model: MultiscaleByteModel, ids: Tensor, count: int, chunking: Chunking) -> Tensor:
    """Logits of the last `count` < L bytes, each predicted by those before it: ids (1, L) → (count, V)."""
    last, patches = model.config.num_stages - 1, patches_of(model.config, ids)
    rows, length = _rows_above(model, patches, chunking), ids.shape[1]
    if last == 0:
        return widen(model.to_logits(rows[length - count : length]))
    size = patches.shape[-1]
    first = (length - count - 1) // size  # the local sequence that predicts the first of these bytes
    part = slice(first, (length - 2) // size + 1)
    logits = widen(_local_logits(model, patches, rows[part], part)[:, 1:].flatten(0, 1))
    start = length - count - 1 - first * size
    return logits[start : start + count]


# ---- stages --------------------------------------------------------------------------------------------------------


class RecomputedLayer(nn.Module):
    """A layer that keeps its input and is run again backwards."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Tensor:
        return checkpoint(self.layer, *inputs, use_reentrant=False)


@contextlib.contextmanager
def recomputed_layers(stage: nn.Module) -> Iterator[None]:
    """Layers of a stage that is called inside are recomputed; the module is as it was afterwards."""
    layers = stage.layers
    stage.layers = nn.ModuleList(RecomputedLayer(layer) for layer in layers)
    try:
        yield
    finally:
        stage.layers = layers


def stage_tokens(model: MultiscaleByteModel, stage: int, embedded: Tensor, context: Tensor | None = None) -> Tensor:
    """Start token, then embeddings (n, P, D) with positions and the parent's context (n, P · D) → (n, 1 + P, D)."""
    tokens = model.pos_embs[stage](embedded)
    if context is not None:
        tokens = tokens + context.view(tokens.shape)
    start = model.start_tokens[stage].to(tokens.dtype).expand(tokens.shape[0], 1, -1)
    return torch.cat((start, tokens), 1)


def embed_patches(model: MultiscaleByteModel, steps: Tensor, embed_bytes: int) -> Tensor:
    """Steps of stage 0 (B, T, S) → (B, T, D), `embed_bytes` bytes at a time and again backwards."""
    embed = model.token_embs_rev[model.config.num_stages - 1]
    parts = slices(steps.shape[1], -(-steps.numel() // embed_bytes))
    if not torch.is_grad_enabled():
        return torch.cat([embed(steps[:, part]) for part in parts], 1)
    return torch.cat([checkpoint(embed, steps[:, part], use_reentrant=False) for part in parts], 1)


def run_stage_chunk(model: MultiscaleByteModel, stage: int, ids: Tensor, rows: Tensor) -> Tensor:
    """A stage but the first, from the outputs of the stage above it.

    ids (n, P[, S]), rows (n, D of the stage above) → (n, 1 + P, D).
    """
    context = model.to_next_stage_proj[stage - 1](rows)
    embedded = model.token_embs_rev[model.config.num_stages - 1 - stage](ids)
    return model.stage_models[stage](stage_tokens(model, stage, embedded, context))


def local_modules(model: MultiscaleByteModel) -> list[nn.Module]:
    """Whose parameters a chunk of the local stage has, its start token aside."""
    last = model.config.num_stages - 1
    above = model.to_next_stage_proj[last - 1]
    return [above, model.token_embs_rev[0], model.pos_embs[last], model.stage_models[last], model.to_logits]


def _rows_above(model: MultiscaleByteModel, patches: Tensor, chunking: Chunking) -> Tensor:
    """What the local stage reads, one row per sequence; for a model of one stage its outputs."""
    rows = first_stage(model, patches, chunking)
    for stage in range(1, model.config.num_stages - 1):
        rows = _middle_stage(model, stage, patches, rows, chunking)
    return rows


def _local_logits(model: MultiscaleByteModel, patches: Tensor, rows: Tensor, part: slice) -> Tensor:
    """(sequences, 1 + P, V); for a model of one stage (positions, 1, V)."""
    last = model.config.num_stages - 1
    if last == 0:
        return model.to_logits(rows)[:, None]
    return model.to_logits(run_stage_chunk(model, last, patches.flatten(0, -2)[part], rows))


def first_stage(model: MultiscaleByteModel, patches: Tensor, chunking: Chunking) -> Tensor:
    """Outputs that the stage below reads, as rows (B · T, D); for a model of one stage all of them."""
    is_only = model.config.num_stages == 1
    embedded = (
        model.token_embs_rev[0](patches) if is_only else embed_patches(model, patches.flatten(2), chunking.embed_bytes)
    )
    tokens = stage_tokens(model, 0, embedded)
    block = model.stage_models[0]
    with recomputed_layers(block) if torch.is_grad_enabled() else contextlib.nullcontext():
        outputs = block(tokens)
    return (outputs if is_only else outputs[:, :-1]).flatten(0, 1)


def _middle_stage(model: MultiscaleByteModel, stage: int, patches: Tensor, rows: Tensor, chunking: Chunking) -> Tensor:
    ids = patches.flatten(0, stage).flatten(2)

    def run(own: Tensor, chunk: Tensor) -> Tensor:
        return run_stage_chunk(model, stage, chunk, own)[:, :-1].flatten(0, 1)

    outputs = []
    sizes = [part.stop - part.start for part in chunking.sequences(stage, len(rows), 1 + ids.shape[1])]
    # Split once: a slice's gradient would be as large as all rows.
    for arguments in zip(rows.split(sizes), ids.split(sizes), strict=True):
        is_kept = torch.is_grad_enabled()
        outputs.append(checkpoint(run, *arguments, use_reentrant=False) if is_kept else run(*arguments))
    return torch.cat(outputs)


# ---- the local stage and the loss ----------------------------------------------------------------------------------


def patches_of(config: ModelConfig, ids: Tensor) -> Tensor:
    """Padded to whole steps of stage 0: (B, T, P_2, …, P_N)."""
    padded = F.pad(ids, (0, -ids.shape[1] % config.bytes_per_step(0)), value=config.pad_token_id)
    return padded.view(ids.shape[0], -1, *config.seq_lens[1:])


def _targets(patches: Tensor, ids: Tensor, mask: Tensor | None, ignored: int) -> tuple[Tensor, Tensor | None]:
    """What every local output predicts, and its weight: (sequences, 1 + P).

    Position j of a patch predicts the byte behind its j bytes, start positions nothing (`ignored`) but the row's very first
    byte: the last output of a patch predicts the next one's.
    """
    length = patches.shape[-1]

    def shifted(values: Tensor, nothing: int) -> Tensor:
        values = F.pad(values, (0, patches[0].numel() - values.shape[1] + 1), value=nothing)
        starts = torch.full_like(values[:, ::length], nothing)
        starts[:, 0] = values[:, 0]
        following = values[:, 1:].unflatten(1, (-1, length))
        return torch.cat((starts[:, : following.shape[1], None], following), 2).flatten(0, 1)

    if patches.dim() == 2:  # a model of one stage: one sequence per row
        length = patches.shape[1]
    return shifted(ids, ignored), None if mask is None else shifted(mask, 0)


def sum_of_losses(logits: Tensor, targets: Tensor, weights: Tensor | None, ignored: int) -> tuple[Tensor, Tensor]:
    """Sum of the weighted cross-entropies, and how many of them are not zero."""
    losses = F.cross_entropy(widen(logits).flatten(0, -2), targets.flatten(), ignore_index=ignored, reduction="none")
    if weights is not None:
        losses = losses * weights.flatten()
    return losses.sum(), (losses != 0).sum()


def _run(model: MultiscaleByteModel, patches: Tensor, targets: Tensor, weights: Tensor | None) -> Run:
    def run(rows: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        logits = _local_logits(model, patches, rows, part)
        own = None if weights is None else weights[part]
        return sum_of_losses(logits, targets[part], own, model.config.pad_token_id)

    return run


class _LossOfChunks(torch.autograd.Function):
    """Sum and count over all chunks. Gradients are made on the way forward, while a chunk's activations are there."""

    @staticmethod
    def forward(ctx: Any, run: Run, parts: list[slice], rows: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        row_gradient = torch.empty_like(rows)
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        total = count = None
        for part in parts:
            chunk_total, chunk_count = chunk_gradients(run, rows, part, parameters, row_gradient, gradients)
            total = chunk_total if total is None else total + chunk_total
            count = chunk_count if count is None else count + chunk_count
        ctx.gradients = [row_gradient, *gradients]
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("chunked_loss can be differentiated once: its gradients are scaled where they are")
        gradients, ctx.gradients = ctx.gradients, None
        for gradient in gradients:
            gradient.mul_(scale)
        return None, None, *gradients


def chunk_gradients(
    run: Run,
    rows: Tensor,
    part: slice,
    parameters: tuple[Tensor, ...],
    row_gradient: Tensor,
    gradients: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """One chunk forwards and backwards; writes its rows' gradient and adds to the parameters'."""
    own = rows[part].detach().requires_grad_()
    kind = rows.device.type
    # No cache: a weight that was cast for one chunk has a history, which ends with that chunk.
    autocast = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
    with torch.enable_grad(), torch.autocast(kind, **autocast, cache_enabled=False):
        total, count = run(own, part)
    with torch.autocast(kind, enabled=False):
        of_rows, *own_gradients = torch.autograd.grad(total, (own, *parameters), allow_unused=True)
    row_gradient[part] = of_rows
    for gradient, added in zip(gradients, own_gradients, strict=True):
        if added is not None:
            gradient.add_(added)
    return total.detach(), count
