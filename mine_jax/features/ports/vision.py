"""The network of models with a vision and a text tower, in flax: pixels or token ids -> hidden states.

The families say what differs: tokens beside the patches, norms before the blocks, how a tower is pooled.
Module and parameter names follow the checkpoints of transformers, so the map between the two is a
rule, not a table.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports.config import Tower, Towers
from mine_jax.features.ports.layers import ACTIVATIONS, Dense, product


class TwoTowers(nn.Module):
    """Both towers; a family declares `vision_model`, and `text_model` unless the checkpoint is vision-only."""

    config: Towers
    precision: str = "highest"

    def image_states(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns hidden states [B, P, D] of 0 to n_blocks blocks; a class token is first."""
        return self.vision_model(pixels, n_blocks=n_blocks)

    def text_states(self, ids: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, T, D] of the text tower."""
        return self.text_model(ids)


class Attention(nn.Module):
    """Multi-head self-attention."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the four projections."""
        dense = functools.partial(Dense, self.tower.width, True, self.precision)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = dense(), dense(), dense(), dense()

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; mask [1, 1, T, T] is True where a token may look."""
        shape = (*x.shape[:2], self.tower.heads, self.tower.width // self.tower.heads)
        q, k, v = (project(x).reshape(shape) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(q, k, v, mask, self.out_proj.kind, self.precision).reshape(x.shape))

    def of_one(self, x: jax.Array) -> jax.Array:
        """Returns what a token would get that looked at each token of x [B, T, D] alone, [B, T, D]."""
        return self.out_proj(self.v_proj(x))


class Mlp(nn.Module):
    """Two dense layers."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the layers."""
        self.fc1 = Dense(self.tower.hidden, True, self.precision)
        self.fc2 = Dense(self.tower.width, True, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        return self.fc2(ACTIVATIONS[self.tower.activation](self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.layer_norm1, self.layer_norm2 = layer_norm(self.tower), layer_norm(self.tower)
        self.self_attn, self.mlp = Attention(self.tower, self.precision), Mlp(self.tower, self.precision)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))

    def first_at_one(self, x: jax.Array) -> jax.Array:
        """Returns what the first of x [B, 1 + P, D] becomes if it looks at one other token alone, [B, P, D]."""
        y = x[:, :1] + self.self_attn.of_one(self.layer_norm1(x[:, 1:]))
        return y + self.mlp(self.layer_norm2(y))


class Encoder(nn.Module):
    """The stack of blocks."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the blocks."""
        self.layers = [Block(self.tower, self.precision) for _ in range(self.tower.layers)]

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, *, n_blocks: int) -> list[jax.Array]:
        """Returns the hidden states [B, T, D] after 0 to n_blocks blocks."""
        states = [x]
        for block in self.layers[:n_blocks]:
            states.append(block(states[-1], mask))
        return states

    def first_at_one(self, states: list[jax.Array]) -> list[jax.Array]:
        """Puts `Block.first_at_one` in place of all but the first of states [B, 1 + P, D] after 0, 1, ... blocks."""
        changed = [
            jnp.concatenate([state[:, :1], block.first_at_one(before)], 1)
            for block, before, state in zip(self.layers, states, states[1:], strict=False)
        ]
        return [states[0], *changed]


class VisionEmbeddings(nn.Module):
    """Patches with learned positions, after a class token where the family has one."""

    config: Towers
    has_class: bool
    precision: str

    def setup(self) -> None:
        """Declares the parameters."""
        width, patch = self.config.vision.width, (self.config.patch_size,) * 2
        if self.has_class:
            self.class_embedding = self.param("class_embedding", nn.initializers.zeros, (width,))
        self.patch_embedding = nn.Conv(
            width, patch, patch, "VALID", use_bias=not self.has_class, precision=self.precision
        )
        self.position_embedding = nn.Embed(self.config.side**2 + self.has_class, width)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [B, rows, columns, 3] to [B, P, D], or [B, 1 + P, D] with a class token."""
        states = self.patch_embedding(pixels).reshape(pixels.shape[0], -1, self.config.vision.width)
        if self.has_class:
            first = jnp.broadcast_to(self.class_embedding, (pixels.shape[0], 1, states.shape[-1]))
            states = jnp.concatenate([first, states], 1)
        return states + self.position_embedding.embedding[None]


class VisionTower(nn.Module):
    """The vision transformer; LLaVA has that of either family."""

    has_class: ClassVar[bool] = False

    config: Towers
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.embeddings = self.patches()
        self.encoder = Encoder(self.config.vision, self.precision)
        self.post_layernorm = layer_norm(self.config.vision)

    def patches(self) -> nn.Module:
        """Returns the embeddings."""
        return VisionEmbeddings(self.config, self.has_class, self.precision)

    def __call__(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns hidden states [B, P, D], before the final norm; a class token is first."""
        return self.encoder(self.embed(pixels), n_blocks=n_blocks)

    def embed(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels to the input of the first block."""
        return self.embeddings(pixels)


class TextEmbeddings(nn.Module):
    """Tokens with learned positions."""

    tower: Tower

    def setup(self) -> None:
        """Declares the tables."""
        self.token_embedding = nn.Embed(self.tower.vocabulary, self.tower.width)
        self.position_embedding = nn.Embed(self.tower.positions, self.tower.width)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Maps ids [B, T] to [B, T, D]."""
        return self.token_embedding(ids) + self.position_embedding.embedding[None, : ids.shape[1]]


class TextTower(nn.Module):
    """The text transformer."""

    is_causal: ClassVar[bool] = False

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.embeddings = TextEmbeddings(self.tower)
        self.encoder = Encoder(self.tower, self.precision)
        self.final_layer_norm = layer_norm(self.tower)

    def __call__(self, ids: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, T, D], before the final norm."""
        mask = causal_mask(ids) if self.is_causal else None
        return self.encoder(self.embeddings(ids), mask, n_blocks=self.tower.layers)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, kind: Any, precision: str) -> jax.Array:
    """Mixes values [B, T, H, E] by queries and keys, with products in the dtype `kind`; mask as in `Attention`."""
    q = q * q.shape[-1] ** -0.5
    logits = product("bthe,bshe->bhts", q.astype(kind), k.astype(kind), precision)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1)
    return product("bhts,bshe->bthe", weights.astype(kind), v.astype(kind), precision)


def causal_mask(ids: jax.Array) -> jax.Array:
    """Returns the mask [1, 1, T, T] in which each token of [B, T] sees itself and those before it."""
    return jnp.tril(jnp.ones((1, 1, ids.shape[1], ids.shape[1]), bool))


def layer_norm(tower: Tower) -> nn.LayerNorm:
    """Returns the layer norm of a tower."""
    return nn.LayerNorm(epsilon=tower.epsilon, use_fast_variance=False)
