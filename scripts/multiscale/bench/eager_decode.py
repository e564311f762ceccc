"""Hand-cached eager PyTorch decode of a two-stage model (Mamba-2 global, transformer local).

This is what a skilled PyTorch user would write without a compiler: static caches updated in place, one step of the global
stage per patch, P steps of the local stage, no forward ever repeated. It reads the published state-dict names, so it runs
on the very weights that the server serves. Letters: B rows, D width, H heads, N SSM state, P patch length, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of the two stages, as in the model's YAML config."""

    patch_length: int
    global_width: int
    local_width: int
    global_layers: int
    local_layers: int
    ssm_state: int
    conv_width: int
    ssm_head_dim: int
    attn_heads: int
    attn_head_dim: int


def shape_of(config: dict) -> Shape:
    """Reads `Shape` from the manifest's `architecture` object; raises ValueError for other architectures."""
    blocks = config["blocks"]
    kinds = [block["block_type"] for block in blocks]
    if kinds != ["mamba2", "transformer"]:
        raise ValueError(f"the eager baseline covers mamba2 + transformer only, not {' + '.join(kinds)}")
    return Shape(
        patch_length=config["seq_lens"][1],
        global_width=config["hidden_dims"][0],
        local_width=config["hidden_dims"][1],
        global_layers=config["num_layers"][0],
        local_layers=config["num_layers"][1],
        ssm_state=blocks[0]["d_state"],
        conv_width=blocks[0]["d_conv"],
        ssm_head_dim=blocks[0]["headdim"],
        attn_heads=blocks[1]["attn_num_heads"],
        attn_head_dim=blocks[1]["attn_head_dims"],
    )


def transformer_rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """The reference's RMSNorm: x / max(|x| / sqrt(d), 1e-8) * g."""
    return F.rms_norm(x, (x.shape[-1],), gain, eps=1e-16)


class GlobalStage:
    """Mamba-2 stage advanced one patch at a time."""

    def __init__(self, weights: StateDict, shape: Shape, rows: int):
        self.w, self.shape = weights, shape
        inner = 2 * shape.global_width
        self.inner, self.heads = inner, inner // shape.ssm_head_dim
        channels = inner + 2 * shape.ssm_state
        self.conv = torch.zeros(shape.global_layers, rows, channels, shape.conv_width)
        self.ssm = torch.zeros(shape.global_layers, rows, self.heads, shape.ssm_head_dim, shape.ssm_state)
        self.decay = [-torch.exp(weights[f"stage_models.0.layers.{j}.mixer.A_log"]) for j in range(shape.global_layers)]

    def run(self, x: Tensor) -> Tensor:
        """(B, D) input vectors → (B, D) outputs; advances the caches."""
        for layer in range(self.shape.global_layers):
            x = x + self._mixer(x, layer)
        return F.rms_norm(x, (x.shape[-1],), self.w["stage_models.0.norm_f.weight"], 1e-5)

    def _mixer(self, x: Tensor, layer: int) -> Tensor:
        prefix, shape = f"stage_models.0.layers.{layer}.", self.shape
        mixer = prefix + "mixer."
        x = F.rms_norm(x, (x.shape[-1],), self.w[prefix + "norm.weight"], 1e-5)
        projected = F.linear(x, self.w[mixer + "in_proj.weight"])
        z, xbc, dt = projected.split([self.inner, self.inner + 2 * shape.ssm_state, self.heads], -1)
        conv = self.conv[layer]
        conv.copy_(torch.roll(conv, -1, -1))
        conv[:, :, -1] = xbc
        xbc = F.silu((conv * self.w[mixer + "conv1d.weight"][:, 0]).sum(-1) + self.w[mixer + "conv1d.bias"])
        u, b, c = xbc.split([self.inner, shape.ssm_state, shape.ssm_state], -1)
        u = u.view(-1, self.heads, shape.ssm_head_dim)
        dt = F.softplus(dt + self.w[mixer + "dt_bias"])
        state = self.ssm[layer]
        state.mul_(torch.exp(dt * self.decay[layer])[:, :, None, None])
        state.add_((dt[:, :, None] * u)[..., None] * b[:, None, None, :])
        y = torch.einsum("bhpn,bn->bhp", state, c) + self.w[mixer + "D"][:, None] * u
        y = y.reshape(-1, self.inner) * F.silu(z)
        return F.linear(
            F.rms_norm(y, (self.inner,), self.w[mixer + "norm.weight"], 1e-5), self.w[mixer + "out_proj.weight"]
        )


class LocalStage:
    """Transformer stage over the P + 1 positions of one patch (position 0 is the start token)."""

    def __init__(self, weights: StateDict, shape: Shape, rows: int):
        self.w, self.shape = weights, shape
        positions, width = shape.patch_length + 1, shape.local_width
        cache = (shape.local_layers, rows, shape.attn_heads, positions, shape.attn_head_dim)
        self.keys, self.values = torch.zeros(cache), torch.zeros(cache)
        self.shift = torch.zeros(shape.local_layers, 2, rows, width - width // 2)
        self.rotary = self._rotary_table(positions) if "stage_models.1.rotary_emb.inv_freq" in weights else None
        self.qkv = [
            torch.cat([weights[f"stage_models.1.layers.{j}.0.{name}.weight"] for name in ("to_q", "to_kv")])
            for j in range(shape.local_layers)
        ]

    def _rotary_table(self, positions: int) -> tuple[Tensor, Tensor]:
        angles = torch.arange(positions)[:, None] * self.w["stage_models.1.rotary_emb.inv_freq"][None]
        angles = torch.cat([angles, angles], -1)
        return angles.cos(), angles.sin()

    def run(self, x: Tensor, position: int) -> Tensor:
        """(B, D) inputs at sequence index `position` → (B, D) outputs before the logits."""
        if position == 0:
            self.shift.zero_()
        for layer in range(self.shape.local_layers):
            x = x + self._attention(self._shifted(x, layer, 0), layer, position)
            x = x + self._feed_forward(self._shifted(x, layer, 1), layer)
        return transformer_rms_norm(x, self.w["stage_models.1.norm.g"])

    def _shifted(self, x: Tensor, layer: int, which: int) -> Tensor:
        kept, moved = x.chunk(2, -1)
        shifted = torch.cat([kept, self.shift[layer, which]], -1)
        self.shift[layer, which].copy_(moved)
        return shifted

    def _attention(self, x: Tensor, layer: int, position: int) -> Tensor:
        prefix, shape = f"stage_models.1.layers.{layer}.0.", self.shape
        x = transformer_rms_norm(x, self.w[prefix + "norm.g"])
        q, k, v = F.linear(x, self.qkv[layer]).view(-1, 3, shape.attn_heads, shape.attn_head_dim).unbind(1)
        if self.rotary is not None:
            cos, sin = self.rotary[0][position], self.rotary[1][position]
            half = shape.attn_head_dim // 2
            q = q * cos + torch.cat([-q[..., half:], q[..., :half]], -1) * sin
            k = k * cos + torch.cat([-k[..., half:], k[..., :half]], -1) * sin
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, position], values[:, :, position] = k, v
        seen = position + 1
        out = F.scaled_dot_product_attention(q[:, :, None], keys[:, :, :seen], values[:, :, :seen])
        return F.linear(out[:, :, 0].reshape(x.shape[0], -1), self.w[prefix + "to_out.weight"])

    def _feed_forward(self, x: Tensor, layer: int) -> Tensor:
        prefix = f"stage_models.1.layers.{layer}.1."
        x = transformer_rms_norm(x, self.w[prefix + "0.g"])
        x = F.gelu(F.linear(x, self.w[prefix + "1.weight"], self.w[prefix + "1.bias"]))
        return F.linear(x, self.w[prefix + "4.weight"], self.w[prefix + "4.bias"])


class EagerDecoder:
    """Greedy generation with caches, for `rows` sequences in lockstep."""

    def __init__(self, weights: StateDict, shape: Shape, rows: int = 1):
        self.w, self.shape = weights, shape
        self.global_stage = GlobalStage(weights, shape, rows)
        self.local_stage = LocalStage(weights, shape, rows)
        self.rows, self.patch = rows, torch.zeros(rows, 0, dtype=torch.long)
        self.context = self._context(self.global_stage.run(self.w["start_tokens.0"].expand(rows, -1)))
        self._start_patch()

    def _context(self, outputs: Tensor) -> Tensor:
        projected = F.linear(outputs, self.w["to_next_stage_proj.0.1.weight"], self.w["to_next_stage_proj.0.1.bias"])
        return projected.view(self.rows, self.shape.patch_length, self.shape.local_width)

    def _start_patch(self) -> None:
        self.patch = self.patch[:, :0]
        self.local_stage.run(self.w["start_tokens.1"].expand(self.rows, -1), 0)

    def _finish_patch(self) -> None:
        """One step of the global stage over the completed patch."""
        embedded = F.embedding(self.patch, self.w["token_embs_rev.1.embedding.weight"]).flatten(1)
        embedded = self._layer_norm(embedded, "token_embs_rev.1._post.1.")
        embedded = F.linear(
            embedded, self.w["token_embs_rev.1._post.2.weight"], self.w["token_embs_rev.1._post.2.bias"]
        )
        self.context = self._context(self.global_stage.run(self._layer_norm(embedded, "token_embs_rev.1._post.3.")))
        self._start_patch()

    def _layer_norm(self, x: Tensor, prefix: str) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.w[prefix + "weight"], self.w[prefix + "bias"])

    def feed(self, ids: Tensor) -> Tensor:
        """Feeds one id per row, (B,); returns the logits of the next one, (B, V)."""
        if self.patch.shape[1] == self.shape.patch_length:
            self._finish_patch()
        offset = self.patch.shape[1]
        x = F.embedding(ids, self.w["token_embs_rev.0.embedding.weight"])
        if "pos_embs.1.weight" in self.w:
            x = x + self.w["pos_embs.1.weight"][offset]
        hidden = self.local_stage.run(x + self.context[:, offset], offset + 1)
        self.patch = torch.cat([self.patch, ids[:, None]], 1)
        return F.linear(hidden, self.w["to_logits.weight"], self.w["to_logits.bias"])
