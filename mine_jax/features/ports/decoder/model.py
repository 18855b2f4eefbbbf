"""The blocks of a Llama or Qwen2 decoder in flax.

Weights may be bfloat16: products then have bfloat16 operands and float32 sums; the residual
stream, norms, rotary positions and softmax are float32 in any case.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mine_jax.features.ports.decoder.config import Decoder, Rope
from mine_jax.features.ports.layers import ACTIVATIONS, Dense, product
from mine_jax.types import Array


class LanguageModel(nn.Module):
    """The decoder; `Block` is applied to one block's parameters at a time."""

    decoder: Decoder
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.embed_tokens = nn.Embed(self.decoder.vocabulary, self.decoder.width)
        self.layers = [Block(self.decoder, self.precision) for _ in range(self.decoder.layers)]
        self.norm = RmsNorm(self.decoder.epsilon)

    def embed(self, patches: jax.Array, ids: jax.Array, image_token: int) -> jax.Array:
        """Puts patches [B, P, D] in the places of the image ids, and words in the others: [B, T, D] float32."""
        is_image = ids == image_token
        order = jnp.clip(jnp.cumsum(is_image, 1) - 1, 0, patches.shape[1] - 1)
        placed = jnp.take_along_axis(patches, order[..., None], axis=1)
        # the image id may lie beyond the embedding
        words = self.embed_tokens(jnp.where(is_image, 0, ids)).astype(jnp.float32)
        return jnp.where(is_image[..., None], placed, words)

    def everything(self, x: jax.Array) -> None:
        """Touches every parameter; for shapes only."""
        n_axes = len(self.decoder.rope.sections) or 1
        positions = np.zeros((n_axes, 1, x.shape[1]), np.int32)
        cos, sin = rotary_angles(self.decoder.rope, self.decoder.head_width, positions)
        mask = jnp.ones(x.shape[:2], bool)
        for block in self.layers:
            block(x, mask, cos, sin)
        self.norm(x)


class Block(nn.Module):
    """Pre-norm decoder block."""

    decoder: Decoder
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.input_layernorm, self.post_attention_layernorm = (RmsNorm(self.decoder.epsilon) for _ in range(2))
        sizes = self.decoder
        self.self_attn = Attention(sizes, self.precision)
        self.mlp = GatedMlp(sizes.width, sizes.hidden, sizes.activation, sizes.mlp_bias, self.precision)

    def __call__(self, x: jax.Array, mask: jax.Array, cos: Array, sin: Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; mask [B, T] is True for real tokens."""
        x = x + self.self_attn(self.input_layernorm(x), mask, cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads share one key head."""

    decoder: Decoder
    precision: str

    def setup(self) -> None:
        """Declares the projections."""
        sizes, bias = self.decoder, self.decoder.qkv_bias
        queries, keys = sizes.heads * sizes.head_width, sizes.key_heads * sizes.head_width
        self.q_proj = Dense(queries, bias, self.precision)
        self.k_proj, self.v_proj = Dense(keys, bias, self.precision), Dense(keys, bias, self.precision)
        self.o_proj = Dense(sizes.width, sizes.out_bias, self.precision)

    def __call__(self, x: jax.Array, mask: jax.Array, cos: Array, sin: Array) -> jax.Array:
        """Maps normed [B, T, D] to [B, T, D]."""
        (b, t, _), sizes = x.shape, self.decoder
        group = sizes.heads // sizes.key_heads
        q = rotated(self.q_proj(x).reshape(b, t, sizes.heads, sizes.head_width), cos, sin)
        k = rotated(self.k_proj(x).reshape(b, t, sizes.key_heads, sizes.head_width), cos, sin)
        v = self.v_proj(x).reshape(b, t, sizes.key_heads, sizes.head_width)
        q = q.reshape(b, t, sizes.key_heads, group, sizes.head_width) * sizes.head_width**-0.5
        kind = self.o_proj.kind
        logits = product("btkge,bske->bkgts", q.astype(kind), k.astype(kind), self.precision)
        visible = jnp.tril(jnp.ones((t, t), bool))[None] & mask[:, None, :]
        # rows that see nothing (padding before the text) become uniform, never NaN
        logits = jnp.where(visible[:, None, None], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1)
        mixed = product("bkgts,bske->btkge", weights.astype(kind), v.astype(kind), self.precision)
        return self.o_proj(mixed.reshape(b, t, sizes.heads * sizes.head_width))


class GatedMlp(nn.Module):
    """SwiGLU."""

    width: int
    hidden: int
    activation: str
    use_bias: bool
    precision: str

    def setup(self) -> None:
        """Declares the layers."""
        self.gate_proj, self.up_proj = (Dense(self.hidden, self.use_bias, self.precision) for _ in range(2))
        self.down_proj = Dense(self.width, self.use_bias, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        return self.down_proj(ACTIVATIONS[self.activation](self.gate_proj(x)) * self.up_proj(x))


class RmsNorm(nn.Module):
    """Root mean square norm, in float32."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + self.epsilon) * scale[None, None]


def rotary_angles(rope: Rope, head_width: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosines and sines [B, T, head width / 2] float32 of positions [1, B, T], or [3, B, T] with sections.

    Source: Su et al. 2021 (arXiv 2104.09864); "llama3" scaling of Llama 3.1, and sections (time, row and column
    each turn their part of a head) of Qwen2-VL, as in transformers.
    """
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    frequencies = (1 / np.float32(rope.theta) ** exponents).astype(np.float32)
    if rope.kind == "linear":
        frequencies = frequencies / np.float32(rope.factor)
    elif rope.kind == "llama3":
        low = rope.original_positions / rope.low_frequency_factor
        high = rope.original_positions / rope.high_frequency_factor
        wavelengths = 2 * np.pi / frequencies
        smooth = (rope.original_positions / wavelengths - rope.low_frequency_factor) / (
            rope.high_frequency_factor - rope.low_frequency_factor
        )
        between = (1 - smooth) * frequencies / rope.factor + smooth * frequencies
        frequencies = np.where(
            wavelengths > low, frequencies / rope.factor, np.where(wavelengths < high, frequencies, between)
        ).astype(np.float32)
    axes = np.repeat(np.arange(len(rope.sections)), rope.sections) if rope.sections else np.zeros(len(frequencies), int)
    angles = np.moveaxis(positions[axes], 0, -1).astype(np.float32) * frequencies
    return np.cos(angles), np.sin(angles)


def rotated(x: jax.Array, cos: Array, sin: Array) -> jax.Array:
    """Rotates pairs (i, i + half) of [B, T, heads, head width] by angles [1 or B, T, half]."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = jnp.asarray(cos)[:, :, None], jnp.asarray(sin)[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
