"""The hierarchy of stages (arXiv 2502.14553 §3), with the parameter names of the reference package.

Letters: B batch, L bytes, P_i sequence length of stage i, D_i width, S_i bytes per step, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiscale.model.config import ModelConfig
from multiscale.model.widen import widen


class RoPE(nn.Module):
    """Rotates interleaved channel pairs of a whole stage token by its position (base 10 000). No parameters."""

    def __init__(self, dim: int):
        super().__init__()
        if dim % 2:
            raise ValueError(f"hidden_dims: {dim} must be even for pos_emb_type rope")
        self.register_buffer("theta", 1.0 / (10_000 ** (torch.arange(0, dim, 2).float() / dim)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, D), positions 0..T-1."""
        angles = torch.outer(torch.arange(x.shape[-2], device=x.device).float(), self.theta.float())
        even, odd = widen(x).unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).type_as(x)


class PositionTable(nn.Embedding):
    """Learned position embedding."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[-2]]


class StageEmbedding(nn.Module):
    """Embeds one step of a stage: a byte for the local stage, a whole patch of S_i bytes for the others."""

    def __init__(self, config: ModelConfig, stage: int):
        super().__init__()
        local_dim = config.hidden_dims[-1]
        self.embedding = nn.Embedding(config.num_tokens, local_dim, padding_idx=config.pad_token_id)
        if stage == config.num_stages - 1:
            self._post: nn.Module = nn.Identity()
        else:
            flat, dim = config.bytes_per_step(stage) * local_dim, config.hidden_dims[stage]
            self._post = nn.Sequential(nn.Flatten(-2), nn.LayerNorm(flat), nn.Linear(flat, dim), nn.LayerNorm(dim))

    def forward(self, ids: Tensor) -> Tensor:
        """Local: (..., P) → (..., P, D). Others: (..., P_i, S_i) → (..., P_i, D_i)."""
        return self._post(self.embedding(ids))


def _position_embedding(kind: str | None, length: int, dim: int) -> nn.Module:
    if kind == "fixed":
        return PositionTable(length, dim)
    return RoPE(dim) if kind == "rope" else nn.Identity()


class MultiscaleByteModel(nn.Module):
    """Causal decoder over bytes. Its state dict is that of the reference package's `MBLM`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        stages, dims = range(config.num_stages), config.hidden_dims
        self.start_tokens = nn.ParameterList(nn.Parameter(torch.randn(dim)) for dim in dims)
        self.pos_embs = nn.ModuleList(
            _position_embedding(config.blocks[i].pos_emb_type, config.seq_lens[i], dims[i]) for i in stages
        )
        self.token_embs_rev = nn.ModuleList(StageEmbedding(config, i) for i in reversed(stages))
        self.stage_models = nn.ModuleList(config.blocks[i].build(dims[i], config.num_layers[i]) for i in stages)
        self.to_next_stage_proj = nn.ModuleList(
            nn.Sequential(nn.Identity(), nn.Linear(dims[i], dims[i + 1] * config.seq_lens[i + 1])) for i in stages[:-1]
        )
        self.to_next_stage_proj.append(nn.Identity())
        self.to_logits = nn.Linear(dims[-1], config.num_tokens)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, L) → logits (B, L, V); entry t predicts byte t+1. L = 0 gives (B, 1, V): the first byte's prediction."""
        if ids.shape[1] == 0:
            return self.first_logits(ids.shape[0])
        return self.to_logits(self._local_outputs(ids)[:, :, 1:].flatten(1, 2)[:, : ids.shape[1]])

    def first_logits(self, batch: int) -> Tensor:
        """(B, 1, V): what generation from an empty prompt samples its first byte from.

        As the reference's `generate`, every stage sees its start token plus the parent's first context vector. (The loss
        adds no context to start tokens, so its prediction of byte 0 is a different one: see `aligned_logits`.)
        """
        outputs = None
        for stage, block in enumerate(self.stage_models):
            tokens = self.start_tokens[stage].expand(batch, 1, -1)
            if outputs is not None:
                context = self.to_next_stage_proj[stage - 1](outputs)
                tokens = tokens + context[..., : tokens.shape[-1]]
            outputs = block(tokens)
        return self.to_logits(outputs)

    def aligned_logits(self, ids: Tensor) -> Tensor:
        """(B, L, V) where entry t predicts byte t: byte 0 by the first start position, others by the byte before."""
        outputs = self._local_outputs(ids)
        first, rest = outputs[:, 0, :1], outputs[:, :, 1:].flatten(1, 2)
        return self.to_logits(torch.cat((first, rest), 1)[:, : ids.shape[1]])

    def loss(self, ids: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats over entries that are not padding and have a non-zero weighted loss.

        `loss_mask` (B, L): weight of each byte's loss.
        """
        losses = F.cross_entropy(
            self.aligned_logits(ids).flatten(0, 1).float(),
            ids.flatten(),
            ignore_index=self.config.pad_token_id,
            reduction="none",
        )
        if loss_mask is not None:
            losses = losses * loss_mask.flatten()
        # Sum over count instead of indexing by `nonzero`: same value, no data-dependent shape.
        return losses.sum() / (losses != 0).sum().clamp(min=1)

    def _local_outputs(self, ids: Tensor) -> Tensor:
        """ids (B, L ≥ 1) → outputs of the local stage (B, number of patches, 1 + P_N, D_N), start positions included."""
        patches = self._patches(ids)
        context = None
        for stage in range(self.config.num_stages):
            tokens = self._stage_tokens(patches, stage, context)
            outputs = self._run_stage(stage, tokens)
            context = self.to_next_stage_proj[stage](outputs[:, :-1])
        return outputs.view(ids.shape[0], -1, *outputs.shape[1:])

    def _patches(self, ids: Tensor) -> Tensor:
        """Pads to whole steps of stage 0: (B, P_1', P_2, …, P_N)."""
        inner = self.config.seq_lens[1:]
        padded = F.pad(ids, (0, -ids.shape[1] % self.config.bytes_per_step(0)), value=self.config.pad_token_id)
        patches = padded.view(ids.shape[0], -1, *inner)
        limit = self.config.seq_lens[0]
        if isinstance(self.pos_embs[0], PositionTable) and patches.shape[1] > limit:
            raise ValueError(f"{ids.shape[1]} bytes exceed the position table of stage 0 ({limit} steps)")
        return patches

    def _stage_tokens(self, patches: Tensor, stage: int, context: Tensor | None) -> Tensor:
        """Inputs of a stage (sequences, 1 + P_i, D_i): start token, then embeddings plus the parent's context."""
        last = self.config.num_stages - 1
        ids = patches if stage == last else patches.flatten(stage + 2)
        tokens = self.pos_embs[stage](self.token_embs_rev[last - stage](ids))
        tokens = tokens.view(-1, *tokens.shape[-2:])
        if context is not None:  # (sequences of the parent, P_parent, P_i · D_i)
            tokens = tokens + context.reshape(tokens.shape)
        start = self.start_tokens[stage].to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        return torch.cat((start, tokens), 1)

    def _run_stage(self, stage: int, tokens: Tensor) -> Tensor:
        chunks = self.config.train_checkpoint_chunks
        block = self.stage_models[stage]
        if stage == 0 or chunks is None:
            return block(tokens)
        parts = tokens.chunk(chunks[stage - 1])
        if not self.training:
            return torch.cat([block(part) for part in parts])
        return torch.cat([checkpoint(block, part, use_reentrant=False) for part in parts])
