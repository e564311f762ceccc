"""Many sequences with a common beginning in one row: what they share is computed once, the loss is that of each alone.

Letters: B rows, T patches of P bytes each. A row begins with its shared patches; every later patch belongs to a branch, sees the
shared patches and those of its branch before it, and stands where it would stand if its branch followed the shared part
directly. Only the patches with bytes to score run through the local stage. Two stages, the first a transformer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from multiscale.model.network import MultiscaleByteModel, PositionTable

VOID = -1
"""Branch of patches that no one sees: padding."""


@dataclass(frozen=True)
class PackedRows:
    ids: Tensor
    """(B, T, P)."""
    branch: Tensor
    """(B, T): 0 for shared patches, then 1, 2, … in order, `VOID` for padding."""
    scored: Tensor
    """(B, K): patches with bytes to score."""
    weights: Tensor
    """(B, K, P): weight, in tenths, of the loss of the byte *after* each byte of a scored patch."""

    def to(self, device: torch.device) -> PackedRows:
        return PackedRows(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


@dataclass(frozen=True)
class Packing:
    """How the tokens of a packed row (the start token first) see each other; what a transformer stage needs."""

    position: Tensor
    """(B, 1 + T): distance from the start token within the own sequence."""
    begins: Tensor
    """(B, 1 + T) bool: the first token of a branch, whose predecessor is the last shared token."""
    last_shared: Tensor
    """(B,)."""
    mask: Tensor | BlockMask
    """Who sees whom: dense (B, 1, 1 + T, 1 + T), or in blocks for FlexAttention."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of (B, heads, 1 + T, d)."""
        if isinstance(self.mask, BlockMask):
            return flex_attention(q, k, v, block_mask=self.mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)

    def shift(self, moved: Tensor) -> Tensor:
        """Every token's predecessor, zero for the start token: (B, 1 + T, D) → the same shape."""
        before = F.pad(moved[:, :-1], (0, 0, 1, 0))
        shared = moved.gather(1, self.last_shared[:, None, None].expand(-1, 1, moved.shape[2]))
        return torch.where(self.begins[..., None], shared, before)


def pack(branch: Tensor, in_blocks: bool) -> Packing:
    """branch (B, T), as in `PackedRows`. `in_blocks`: for FlexAttention, which pays where it is compiled."""
    branch = F.pad(branch, (1, 0))
    index = torch.arange(branch.shape[1], device=branch.device).expand_as(branch)
    last_shared = (branch == 0).sum(1) - 1
    begins = (branch > 0) & (branch != F.pad(branch[:, :-1], (1, 0)))
    first = torch.where(begins, index, 0).cummax(1).values
    position = torch.where(branch > 0, last_shared[:, None] + 1 + index - first, index)
    position = torch.where(branch == VOID, 0, position)
    return Packing(position, begins, last_shared, block_mask(branch) if in_blocks else dense_mask(branch))


def _sees(query: Tensor, key: Tensor, query_branch: Tensor, key_branch: Tensor) -> Tensor:
    """A void token sees itself alone, so that its softmax is defined."""
    own = (key_branch == query_branch) & (key_branch != VOID)
    return (key <= query) & (own | (key_branch == 0)) | (key == query)


def dense_mask(branch: Tensor) -> Tensor:
    """branch (B, 1 + T), the start token's included."""
    index = torch.arange(branch.shape[1], device=branch.device)
    return _sees(index[:, None], index, branch[:, :, None], branch[:, None])[:, None]


def block_mask(branch: Tensor, compiled: bool = True) -> BlockMask:
    """The same for FlexAttention, which leaves out blocks that no one sees."""

    def sees(b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _sees(query, key, branch[b, query], branch[b, key])

    make, size = _compiled(create_block_mask) if compiled else create_block_mask, branch.shape[1]
    return make(sees, branch.shape[0], None, size, size, device=branch.device)


@cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False)


def longest_position(branch: np.ndarray) -> int:
    """Patches of the longest sequence in rows: the shared part and its longest branch. branch (B, T), as in `PackedRows`."""
    shared = (branch == 0).sum(1)
    own = np.stack([(branch == k).sum(1) for k in range(1, max(1, int(branch.max())) + 1)])
    return int((shared + own.max(0)).max())


def check_packable(model: MultiscaleByteModel) -> None:
    """Raises ValueError for a model whose first stage cannot be packed."""
    blocks = model.config.blocks
    if len(blocks) != 2 or blocks[0].block_type != "transformer" or blocks[0].pos_emb_type == "rope":
        raise ValueError("params: packed rows need two stages, the first a transformer without pos_emb_type rope")


def packed_logits(model: MultiscaleByteModel, rows: PackedRows) -> Tensor:
    """Logits of the byte after each byte of the scored patches: (B, K, P, V)."""
    ids = rows.ids.long()
    packing = pack(rows.branch.long(), in_blocks=ids.is_cuda and model.training)
    tokens = model.token_embs_rev[1](ids)
    if isinstance(model.pos_embs[0], PositionTable):
        tokens = tokens + model.pos_embs[0].weight[(packing.position[:, 1:] - 1).clamp(min=0)]
    start = model.start_tokens[0].to(tokens.dtype).expand(tokens.shape[0], 1, -1)
    outputs = model.stage_models[0](torch.cat((start, tokens), 1), packing)
    # A patch is fed from the output before it: of its branch, or the last shared one.
    before = torch.where(
        packing.begins[:, 1:], packing.last_shared[:, None], torch.arange(ids.shape[1], device=ids.device)
    )
    scored = rows.scored.long()
    source = before.gather(1, scored)
    context = model.to_next_stage_proj[0](_take(outputs, source))
    patches = _take(ids, scored)
    local = model.pos_embs[1](model.token_embs_rev[0](patches)).flatten(0, 1)
    local = local + context.reshape(local.shape)
    start = model.start_tokens[1].to(local.dtype).expand(local.shape[0], 1, -1)
    outputs = model.stage_models[1](torch.cat((start, local), 1))[:, 1:]
    return model.to_logits(outputs).unflatten(0, scored.shape)


def packed_loss(model: MultiscaleByteModel, rows: PackedRows) -> Tensor:
    """Weighted cross-entropy over the number of scored bytes, in nats."""
    following = F.pad(rows.ids.flatten(1)[:, 1:], (0, 1)).unflatten(1, rows.ids.shape[1:])
    targets = _take(following.long(), rows.scored.long())
    logits = packed_logits(model, rows).float()
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none")
    weights = rows.weights.flatten() / 10
    return (losses * weights).sum() / (weights > 0).sum().clamp(min=1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, T, D), index (B, K) → (B, K, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
