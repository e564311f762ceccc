"""Hand-cached PyTorch decode of a hierarchy of Mamba-2 and transformer stages, eager or as a CUDA graph.

This is what a skilled PyTorch user would write without a compiler: static caches updated in place, one step of a stage for
each of its patches, no forward ever repeated. It reads the published state-dict names, so it runs on the very weights that
the server serves. Letters: B rows, D width, H heads, N SSM state, P patch length, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from multiscale.model.blocks.mamba2 import Mamba2Block
from multiscale.model.blocks.transformer import TransformerBlock
from multiscale.model.config import ModelConfig

StateDict = dict[str, Tensor]


class StepStage(Protocol):
    """A stage that is advanced one token at a time."""

    def run(self, x: Tensor, position: int) -> Tensor:
        """(B, D) input at sequence index `position` → (B, D) output behind the final norm; advances the caches."""


class Mamba2Step:
    """The recurrent stage at the top. Its SSM state is float32 whatever the weights are."""

    def __init__(self, weights: StateDict, block: Mamba2Block, width: int, num_layers: int, rows: int):
        self.w, self.block, self.num_layers = weights, block, num_layers
        like = weights["norm_f.weight"]
        self.inner = block.expand * width
        self.heads = self.inner // block.headdim
        channels = self.inner + 2 * block.d_state
        self.conv = like.new_zeros(num_layers, rows, channels, block.d_conv)
        ssm_shape = (num_layers, rows, self.heads, block.headdim, block.d_state)
        self.ssm = torch.zeros(ssm_shape, dtype=torch.float32, device=like.device)
        self.decay = [-torch.exp(weights[f"layers.{j}.mixer.A_log"].float()) for j in range(num_layers)]

    def run(self, x: Tensor, position: int) -> Tensor:
        for layer in range(self.num_layers):
            x = x + self._mixer(x, layer)
        return F.rms_norm(x, (x.shape[-1],), self.w["norm_f.weight"], 1e-5)

    def _mixer(self, x: Tensor, layer: int) -> Tensor:
        prefix, block = f"layers.{layer}.", self.block
        mixer = prefix + "mixer."
        x = F.rms_norm(x, (x.shape[-1],), self.w[prefix + "norm.weight"], 1e-5)
        projected = F.linear(x, self.w[mixer + "in_proj.weight"])
        z, xbc, dt = projected.split([self.inner, self.inner + 2 * block.d_state, self.heads], -1)
        conv = self.conv[layer]
        conv.copy_(torch.roll(conv, -1, -1))
        conv[:, :, -1] = xbc
        xbc = F.silu((conv * self.w[mixer + "conv1d.weight"][:, 0]).sum(-1) + self.w[mixer + "conv1d.bias"])
        u, b, c = xbc.float().split([self.inner, block.d_state, block.d_state], -1)
        u = u.view(-1, self.heads, block.headdim)
        dt = F.softplus(dt.float() + self.w[mixer + "dt_bias"])
        state = self.ssm[layer]
        state.mul_(torch.exp(dt * self.decay[layer])[:, :, None, None])
        state.add_((dt[:, :, None] * u)[..., None] * b[:, None, None, :])
        y = torch.einsum("bhpn,bn->bhp", state, c) + self.w[mixer + "D"][:, None] * u
        y = y.reshape(-1, self.inner).to(x.dtype) * F.silu(z)
        y = F.rms_norm(y, (self.inner,), self.w[mixer + "norm.weight"], 1e-5)
        return F.linear(y, self.w[mixer + "out_proj.weight"])


class TransformerStep:
    """A transformer stage over the P + 1 positions of one patch (position 0 is the start token)."""

    def __init__(
        self, weights: StateDict, block: TransformerBlock, width: int, num_layers: int, rows: int, patch_length: int
    ):
        self.w, self.num_layers = weights, num_layers
        self.heads, self.head_width = block.attn_num_heads, block.attn_head_dims
        positions = patch_length + 1
        like = weights["norm.g"]
        cache = (num_layers, rows, self.heads, positions, self.head_width)
        self.keys, self.values = like.new_zeros(cache), like.new_zeros(cache)
        self.shift = like.new_zeros(num_layers, 2, rows, width - width // 2)
        self.rotary = self._rotary_table(positions, like) if "rotary_emb.inv_freq" in weights else None
        self.qkv = [
            torch.cat([weights[f"layers.{j}.0.{name}.weight"] for name in ("to_q", "to_kv")]) for j in range(num_layers)
        ]

    def _rotary_table(self, positions: int, like: Tensor) -> tuple[Tensor, Tensor]:
        frequencies = self.w["rotary_emb.inv_freq"].float()
        angles = torch.arange(positions, device=like.device)[:, None] * frequencies[None]
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    def run(self, x: Tensor, position: int) -> Tensor:
        if position == 0:
            self.shift.zero_()
        for layer in range(self.num_layers):
            x = x + self._attention(self._shifted(x, layer, 0), layer, position)
            x = x + self._feed_forward(self._shifted(x, layer, 1), layer)
        return self._norm(x, "norm.g")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """The reference's RMSNorm: x / max(|x| / sqrt(d), 1e-8) * g."""
        return F.rms_norm(x, (x.shape[-1],), self.w[name], eps=1e-16)

    def _shifted(self, x: Tensor, layer: int, which: int) -> Tensor:
        kept, moved = x.chunk(2, -1)
        shifted = torch.cat([kept, self.shift[layer, which]], -1)
        self.shift[layer, which].copy_(moved)
        return shifted

    def _attention(self, x: Tensor, layer: int, position: int) -> Tensor:
        prefix = f"layers.{layer}.0."
        x = self._norm(x, prefix + "norm.g")
        q, k, v = F.linear(x, self.qkv[layer]).view(-1, 3, self.heads, self.head_width).unbind(1)
        if self.rotary is not None:
            cos, sin = self.rotary[0][position], self.rotary[1][position]
            half = self.head_width // 2
            q = q * cos + torch.cat([-q[..., half:], q[..., :half]], -1) * sin
            k = k * cos + torch.cat([-k[..., half:], k[..., :half]], -1) * sin
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, position], values[:, :, position] = k, v
        seen = position + 1
        out = F.scaled_dot_product_attention(q[:, :, None], keys[:, :, :seen], values[:, :, :seen])
        return F.linear(out[:, :, 0].reshape(x.shape[0], -1), self.w[prefix + "to_out.weight"])

    def _feed_forward(self, x: Tensor, layer: int) -> Tensor:
        prefix = f"layers.{layer}.1."
        x = self._norm(x, prefix + "0.g")
        x = F.gelu(F.linear(x, self.w[prefix + "1.weight"], self.w[prefix + "1.bias"]))
        return F.linear(x, self.w[prefix + "4.weight"], self.w[prefix + "4.bias"])


class CachedDecoder:
    """Generation with caches, for `rows` sequences in lockstep, in the type and on the device of the weights.

    Raises ValueError for stages other than Mamba-2 at the top and transformers below, or with positions it does not know.
    """

    def __init__(self, weights: StateDict, config: ModelConfig, rows: int = 1):
        self.w, self.config, self.rows = weights, config, rows
        self.last = config.num_stages - 1
        self.stages = [self._make_stage(i) for i in range(config.num_stages)]
        ids_shape = (rows, config.bytes_per_step(0))
        self.ids = torch.zeros(ids_shape, dtype=torch.long, device=weights["to_logits.weight"].device)
        self.count = 0
        """Bytes of the top stage's current step that were fed."""
        self.contexts: list[Tensor | None] = [None] * config.num_stages
        """Of each stage but the first: what its parent adds to the inputs of a sequence, (B, P, D)."""
        self._open(1, self.stages[0].run(self._start(0), 0))

    def _make_stage(self, i: int) -> StepStage:
        config, block = self.config, self.config.blocks[i]
        prefix = f"stage_models.{i}."
        own = {name.removeprefix(prefix): value for name, value in self.w.items() if name.startswith(prefix)}
        width, layers = config.hidden_dims[i], config.num_layers[i]
        if i == 0 and isinstance(block, Mamba2Block) and block.pos_emb_type is None:
            return Mamba2Step(own, block, width, layers, self.rows)
        if i > 0 and isinstance(block, TransformerBlock) and block.pos_emb_type in (None, "fixed"):
            return TransformerStep(own, block, width, layers, self.rows, config.seq_lens[i])
        raise ValueError(f"stage {i}: no cached decode for {block.block_type} with positions {block.pos_emb_type}")

    def feed(self, ids: Tensor) -> Tensor:
        """Feeds one id per row, (B,); returns the logits of the next one, (B, V)."""
        if self.count == self.ids.shape[1]:
            self._advance(0)
            self.count = 0
        elif self.count > 0:
            whole = (i for i in range(1, self.last) if self.count % self.config.bytes_per_step(i) == 0)
            stage = next(whole, None)
            if stage is not None:
                self._advance(stage)
        self.ids[:, self.count] = ids
        x = F.embedding(ids, self.w["token_embs_rev.0.embedding.weight"])
        self.count += 1
        hidden = self._run(self.last, x)
        return F.linear(hidden, self.w["to_logits.weight"], self.w["to_logits.bias"])

    def _start(self, stage: int) -> Tensor:
        return self.w[f"start_tokens.{stage}"].expand(self.rows, -1)

    def _advance(self, stage: int) -> None:
        """A step of a stage over the bytes of its last patch, which the stage below then goes on with."""
        size, prefix = self.config.bytes_per_step(stage), f"token_embs_rev.{self.last - stage}."
        x = F.embedding(self.ids[:, self.count - size : self.count], self.w[prefix + "embedding.weight"]).flatten(1)
        x = self._layer_norm(x, prefix + "_post.1.")
        x = F.linear(x, self.w[prefix + "_post.2.weight"], self.w[prefix + "_post.2.bias"])
        self._open(stage + 1, self._run(stage, self._layer_norm(x, prefix + "_post.3.")))

    def _run(self, stage: int, x: Tensor) -> Tensor:
        """Runs a stage on the embedding of what ends at the last byte fed."""
        if stage == 0:
            return self.stages[0].run(x, 0)
        own, parent = self.config.bytes_per_step(stage), self.config.bytes_per_step(stage - 1)
        position = (self.count - own) % parent // own
        if f"pos_embs.{stage}.weight" in self.w:
            x = x + self.w[f"pos_embs.{stage}.weight"][position]
        context = self.contexts[stage]
        assert context is not None
        return self.stages[stage].run(x + context[:, position], position + 1)

    def _open(self, stage: int, outputs: Tensor) -> None:
        """Begins a new sequence of a stage under its parent's output, and of the stages below it."""
        prefix = f"to_next_stage_proj.{stage - 1}.1."
        context = F.linear(outputs, self.w[prefix + "weight"], self.w[prefix + "bias"])
        self.contexts[stage] = context.view(self.rows, self.config.seq_lens[stage], self.config.hidden_dims[stage])
        start = self.stages[stage].run(self._start(stage), 0)
        if stage < self.last:
            self._open(stage + 1, start)

    def _layer_norm(self, x: Tensor, prefix: str) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.w[prefix + "weight"], self.w[prefix + "bias"])
