"""The Mamba-2 recurrence (state space duality, arXiv 2405.21060 §6), chunked in PyTorch.

    h_t = exp(dt_t · A) · h_{t-1} + dt_t · B_t ⊗ x_t        y_t = C_t · h_t

Shapes: x (B, T, H, P), dt (B, T, H) > 0, A (H,) < 0, B and C (B, T, N) shared by all heads; h (B, H, P, N) starts at zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ssd_sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The definition, one step at a time: the slow reference of `ssd_chunked`. Returns y (B, T, H, P)."""
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[-1])
    outputs = []
    for t in range(x.shape[1]):
        update = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None, :]
        state = torch.exp(dt[:, t] * A)[:, :, None, None] * state + update
        outputs.append(torch.einsum("bhpn,bn->bhp", state, C[:, t]))
    return torch.stack(outputs, 1)


def ssd_chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = 64) -> Tensor:
    """Same as `ssd_sequential` with matrix products inside chunks of T. Decays and states are at least float32."""
    batch, length, heads, head_dim = x.shape
    padding = -length % chunk
    # A padded step has dt = 0: it neither decays nor feeds the state.
    x, dt, B, C = (F.pad(t, (0, 0) * (t.dim() - 2) + (0, padding)) for t in (x, dt, B, C))
    num_chunks = x.shape[1] // chunk
    x = x.view(batch, num_chunks, chunk, heads, head_dim)
    B, C = B.view(batch, num_chunks, chunk, -1), C.view(batch, num_chunks, chunk, -1)
    wide = torch.promote_types(x.dtype, torch.float32)
    dt = dt.to(wide).view(batch, num_chunks, chunk, heads).permute(0, 1, 3, 2)  # (B, c, H, Q)
    log_decay = torch.cumsum(dt * A.to(wide)[:, None], -1)  # (B, c, H, Q), from the chunk's start

    # Inside a chunk: y_i = Σ_{j ≤ i} (C_i·B_j) exp(cum_i − cum_j) dt_j x_j
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    gap = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(~causal, float("-inf"))
    weights = torch.einsum("bcin,bcjn->bcij", C, B)[:, :, None].to(wide) * torch.exp(gap) * dt[..., None, :]
    y = torch.einsum("bchij,bcjhp->bcihp", weights.to(x.dtype), x).to(wide)

    # What each chunk adds to the state at its end, then the state at the start of each chunk.
    to_end = torch.exp(log_decay[..., -1:] - log_decay) * dt  # (B, c, H, Q)
    weighted = x * to_end.permute(0, 1, 3, 2)[..., None].to(x.dtype)
    added = torch.einsum("bcjhp,bcjn->bchpn", weighted, B).to(wide)
    starts = _states_at_chunk_starts(added, log_decay[..., -1])

    # Across chunks: y_i += exp(cum_i) C_i · h_start
    carried = torch.einsum("bcin,bchpn->bcihp", C, starts.to(x.dtype)).to(wide)
    y = y + carried * torch.exp(log_decay).permute(0, 1, 3, 2)[..., None]
    return y.reshape(batch, num_chunks * chunk, heads, head_dim)[:, :length]


def _states_at_chunk_starts(added: Tensor, log_decay: Tensor, block: int = 64) -> Tensor:
    """Exclusive scan over chunks: added (B, c, H, P, N), log_decay (B, c, H) → states (B, c, H, P, N).

    Quadratic inside blocks of chunks, all blocks at once; their own states are found in the same way. Nothing is a loop over
    time, so a long sequence is as few operations as a short one.
    """
    chunks = added.shape[1]
    size = min(block, chunks)
    padding = -chunks % size
    added = F.pad(added, (0, 0) * 3 + (0, padding)).unflatten(1, (-1, size))  # (B, k, q, H, P, N)
    decay = F.pad(log_decay, (0, 0, 0, padding)).unflatten(1, (-1, size)).transpose(2, 3)  # (B, k, H, q)
    total = torch.cumsum(F.pad(decay, (1, 0)), -1)  # (B, k, H, q+1): from the block's start to each chunk's start
    before = torch.ones(size + 1, size, dtype=torch.bool, device=added.device).tril(-1)
    gap = (total[..., :, None] - total[..., None, 1:]).masked_fill(~before, float("-inf"))
    inner = torch.einsum("bkhij,bkjhpn->bkihpn", torch.exp(gap), added)
    starts = inner[:, :, :-1]
    if added.shape[1] > 1:
        of_blocks = _states_at_chunk_starts(inner[:, :, -1], total[..., -1], block)
        starts = starts + torch.exp(total[..., :-1]).transpose(2, 3)[..., None, None] * of_blocks[:, :, None]
    return starts.flatten(1, 2)[:, :chunks]
