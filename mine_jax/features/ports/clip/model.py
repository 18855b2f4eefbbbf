"""CLIP's towers in flax: pixels or token ids -> hidden states of every layer.

Module and parameter names follow the checkpoints of transformers' `CLIPModel`, so the map
between the two is a rule, not a table.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports.clip.config import ClipConfig
from mine_jax.features.ports.config import Tower
from mine_jax.features.ports.layers import ACTIVATIONS, Dense, product


class Clip(nn.Module):
    """Both towers and projections; vision-only checkpoints have no text tower."""

    config: ClipConfig
    precision: str = "highest"

    def setup(self) -> None:
        """Declares the towers."""
        self.vision_model = VisionTower(self.config, self.precision)
        if self.config.projection:
            self.visual_projection = nn.Dense(self.config.projection, use_bias=False, precision=self.precision)
        if self.config.text is not None:
            self.text_model = TextTower(self.config.text, self.precision)
            self.text_projection = nn.Dense(self.config.projection, use_bias=False, precision=self.precision)
            self.logit_scale = self.param("logit_scale", nn.initializers.zeros, ())

    def image_states(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns hidden states [B, 1 + P, D] of 0 to n_blocks blocks."""
        return self.vision_model(pixels, n_blocks=n_blocks)

    def text_states(self, ids: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, T, D] of the text tower."""
        return self.text_model(ids)

    def image_features(self, pixels: jax.Array) -> jax.Array:
        """Returns projected class tokens [B, J]."""
        return self.visual_projection(self.vision_model.pooled(pixels))

    def text_features(self, ids: jax.Array) -> jax.Array:
        """Returns projected text vectors [B, J]."""
        return self.text_projection(self.text_model.pooled(ids))

    def everything(self) -> None:
        """Touches every parameter; for shapes only."""
        side = self.config.image_size
        pooled = self.vision_model.pooled(jnp.zeros((1, side, side, 3)))
        if self.config.projection:
            self.visual_projection(pooled)
        if self.config.text is not None:
            self.text_features(jnp.zeros((1, 2), jnp.int32))


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
        kind = self.out_proj.kind
        q = q * shape[-1] ** -0.5
        logits = product("bthe,bshe->bhts", q.astype(kind), k.astype(kind), self.precision)
        if mask is not None:
            logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
        weights = jax.nn.softmax(logits, axis=-1)
        mixed = product("bhts,bshe->bthe", weights.astype(kind), v.astype(kind), self.precision)
        return self.out_proj(mixed.reshape(x.shape))


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


class VisionEmbeddings(nn.Module):
    """Patches and a class token, with learned positions."""

    config: ClipConfig
    precision: str

    def setup(self) -> None:
        """Declares the parameters."""
        width, patch = self.config.vision.width, (self.config.patch_size,) * 2
        self.class_embedding = self.param("class_embedding", nn.initializers.zeros, (width,))
        self.patch_embedding = nn.Conv(width, patch, patch, "VALID", use_bias=False, precision=self.precision)
        self.position_embedding = nn.Embed(self.config.side**2 + 1, width)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [B, rows, columns, 3] to [B, 1 + P, D]."""
        patches = self.patch_embedding(pixels).reshape(pixels.shape[0], -1, self.config.vision.width)
        first = jnp.broadcast_to(self.class_embedding, (pixels.shape[0], 1, patches.shape[-1]))
        return jnp.concatenate([first, patches], 1) + self.position_embedding.embedding[None]


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


class VisionTower(nn.Module):
    """The vision transformer."""

    config: ClipConfig
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.embeddings = VisionEmbeddings(self.config, self.precision)
        self.pre_layrnorm, self.post_layernorm = layer_norm(self.config.vision), layer_norm(self.config.vision)
        self.encoder = Encoder(self.config.vision, self.precision)

    def __call__(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns hidden states [B, 1 + P, D]; the class token is first."""
        return self.encoder(self.pre_layrnorm(self.embeddings(pixels)), n_blocks=n_blocks)

    def pooled(self, pixels: jax.Array) -> jax.Array:
        """Returns the normed class token [B, D] of the last layer."""
        return self.post_layernorm(self(pixels, n_blocks=self.config.vision.layers)[-1][:, 0])


class TextTower(nn.Module):
    """The causal text transformer."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.embeddings = TextEmbeddings(self.tower)
        self.encoder = Encoder(self.tower, self.precision)
        self.final_layer_norm = layer_norm(self.tower)

    def __call__(self, ids: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, T, D], before the final norm."""
        mask = jnp.tril(jnp.ones((1, 1, ids.shape[1], ids.shape[1]), bool))
        return self.encoder(self.embeddings(ids), mask, n_blocks=self.tower.layers)

    def pooled(self, ids: jax.Array) -> jax.Array:
        """Returns the normed state [B, D] at the end token."""
        # legacy checkpoints name a wrong end token; there it is the highest id of the text
        end = ids if self.tower.end is None else (ids == self.tower.end).astype(jnp.int32)
        states = self.final_layer_norm(self(ids)[-1])
        return states[jnp.arange(ids.shape[0]), end.argmax(-1)]


def layer_norm(tower: Tower) -> nn.LayerNorm:
    """Returns the layer norm of a tower."""
    return nn.LayerNorm(epsilon=tower.epsilon, use_fast_variance=False)
