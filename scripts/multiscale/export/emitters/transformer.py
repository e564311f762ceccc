"""Transformer stage: token shift, RMSNorm, one QKV product, fused attention over an in-place cache, feed-forward.

The token shift is a causal depthwise convolution of two taps (CausalConvWithState): weights [previous, current] = [0, 1] keep
a channel, [1, 0] shift it. One node, its state in place.

GroupQueryAttention takes another code path for one token than for several, with other rounding. Where calls of both kinds
occur, every call therefore carries one extra zero token after the T real ones: its output is dropped, and its key and value
are overwritten by the next call. The kernel allows several tokens after a past for one row at a time only.
"""

from __future__ import annotations

import numpy as np

from multiscale.export.emitter_registry import StageInputs, register_emitter
from multiscale.export.graph_builder import CONTRIB, GraphBuilder
from multiscale.model.blocks.transformer import TransformerBlock

HEAD_DIM_MULTIPLE = 16
"""GroupQueryAttention's requirement; other head sizes are padded with zero channels."""


@register_emitter("transformer")
def emit_transformer(b: GraphBuilder, block: TransformerBlock, inputs: StageInputs) -> str:
    attention = _Attention(b, block, inputs)
    x = inputs.x
    for layer in range(inputs.num_layers):
        prefix = f"{inputs.prefix}layers.{layer}."
        shifted = _token_shift(b, x, layer, "shift_attn", inputs.dim)
        x = b.node("Add", [attention.emit(shifted, layer, prefix + "0."), x])
        shifted = _token_shift(b, x, layer, "shift_ff", inputs.dim)
        x = b.node("Add", [_feed_forward(b, shifted, prefix + "1."), x])
    return b.rms_norm(x, inputs.prefix + "norm.g", epsilon=1e-16)


def _token_shift(b: GraphBuilder, x: str, layer: int, kind: str, dim: int) -> str:
    state = b.state(layer, kind, (1, dim))
    taps = np.zeros((dim, 1, 2), np.float32)
    taps[: dim // 2, 0, 1] = 1
    taps[dim // 2 :, 0, 0] = 1
    weight = b.constant(taps, f"token_shift_{dim}")
    out = f"{kind}.{layer}"
    b.nodes("CausalConvWithState", [x, weight, "", state.past], [out, state.present], CONTRIB, channels_last=1)
    return out


def _feed_forward(b: GraphBuilder, x: str, prefix: str) -> str:
    x = b.rms_norm(x, prefix + "0.g", epsilon=1e-16)
    x = b.contrib("BiasGelu", [b.linear(x, prefix + "1.weight"), b.vector(prefix + "1.bias")])
    return b.linear(x, prefix + "4.weight", b.vector(prefix + "4.bias"))


class _Attention:
    """Shared by the layers: head padding, rotary tables, sequence lengths."""

    def __init__(self, b: GraphBuilder, block: TransformerBlock, inputs: StageInputs):
        self.b, self.block, self.one_step, self.prefix = b, block, inputs.one_step, inputs.prefix
        self.heads, self.head_dim = block.attn_num_heads, block.attn_head_dims
        self.padded_dim = -(-self.head_dim // HEAD_DIM_MULTIPLE) * HEAD_DIM_MULTIPLE
        # The start token, and the extra token behind the last one.
        self.capacity = inputs.capacity + (1 if inputs.one_step else 2)
        # seqlens_k counts the keys before the call's last token; position is -1 for the start token itself.
        first_index = b.node("Add", [inputs.position, b.constant(np.array(1, np.int32))])
        if self.one_step:
            self.seqlens, self.total = first_index, b.constant(np.array(self.capacity, np.int32))
        else:
            steps = b.node("Cast", [b.node("Shape", [inputs.x], start=1, end=2)], to=6)
            self.seqlens = b.node("Add", [first_index, steps])
            self.total = b.node(
                "Add", [b.node("ReduceMax", [self.seqlens], keepdims=0), b.constant(np.array(1, np.int32))]
            )
        self.rotary = self._rotary_tables() if block.attn_use_rot_embs else []

    def emit(self, x: str, layer: int, prefix: str) -> str:
        b, shape = self.b, (self.heads, self.capacity, self.padded_dim)
        key, value = (b.state(layer, kind, shape, reset="none") for kind in ("key", "value"))
        x = b.rms_norm(x, prefix + "norm.g", epsilon=1e-16)
        qkv = self._project(x, prefix)
        if not self.one_step:
            zero = b.constant(np.zeros((1, 1, 3 * self.heads * self.padded_dim), np.float32))
            qkv = b.node("Concat", [qkv, zero], axis=1)
        attended = f"attention.{layer}"
        b.nodes(
            "GroupQueryAttention",
            [qkv, "", "", key.past, value.past, self.seqlens, self.total, *self.rotary],
            [attended, key.present, value.present],
            CONTRIB,
            num_heads=self.heads,
            kv_num_heads=self.heads,
            scale=self.head_dim**-0.5,
            do_rotary=int(bool(self.rotary)),
        )
        if not self.one_step:
            attended = b.node("Slice", [attended, b.ints(0), b.ints(-1), b.ints(1)])
        return self._project_out(attended, prefix)

    def _project(self, x: str, prefix: str) -> str:
        name = f"{prefix}to_q.weight+{prefix}to_kv.weight"
        if self.padded_dim == self.head_dim:
            return self.b.linear(x, name)
        rows = np.concatenate([self.b.weights[part] for part in name.split("+")])
        rows = self._pad_halves(rows.reshape(3 * self.heads, self.head_dim, -1), axis=1)
        return self.b.matmul(x, name + "#padded", rows.reshape(3 * self.heads * self.padded_dim, -1).T)

    def _project_out(self, x: str, prefix: str) -> str:
        name = prefix + "to_out.weight"
        if self.padded_dim == self.head_dim:
            return self.b.linear(x, name)
        columns = self.b.weights[name].reshape(-1, self.heads, self.head_dim)
        columns = self._pad_halves(columns, axis=2).reshape(columns.shape[0], -1)
        return self.b.matmul(x, name + "#padded", columns.T)

    def _pad_halves(self, array: np.ndarray, axis: int) -> np.ndarray:
        """Pads the head dimension so that rotary still pairs channel i of the first half with i of the second."""
        first, second = np.split(array, [-(-self.head_dim // 2)], axis)
        half = self.padded_dim // 2
        pads = [
            [(0, half - part.shape[axis]) if k == axis else (0, 0) for k in range(array.ndim)]
            for part in (first, second)
        ]
        return np.concatenate([np.pad(first, pads[0]), np.pad(second, pads[1])], axis)

    def _rotary_tables(self) -> list[str]:
        frequencies = self.b.weights[self.prefix + "rotary_emb.inv_freq"]  # published as part of the state dict
        angles = np.outer(np.arange(self.capacity, dtype=np.float32), frequencies.astype(np.float32))
        angles = np.pad(angles, ((0, 0), (0, (self.padded_dim - self.head_dim) // 2)))
        return [self.b.constant(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
