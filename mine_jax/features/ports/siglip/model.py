"""What SigLIP's towers add to `vision`: pooling.

There is no class token and no norm before the blocks; image vectors come from an attention-pooling
head, text vectors from the last position, padding included.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports import vision
from mine_jax.features.ports.config import Tower
from mine_jax.features.ports.vision import Mlp, TwoTowers, layer_norm


class Siglip(TwoTowers):
    """Both towers; vision-only checkpoints have no text tower."""

    def setup(self) -> None:
        """Declares the towers."""
        self.vision_model = self.vision_tower()
        if self.config.text is not None:
            self.text_model = TextTower(self.config.text, self.precision, self.config.projection)
            self.logit_scale = self.param("logit_scale", nn.initializers.zeros, (1,))
            self.logit_bias = self.param("logit_bias", nn.initializers.zeros, (1,))

    def vision_tower(self) -> VisionTower:
        """Returns the vision tower."""
        return VisionTower(self.config, self.precision)

    def image_features(self, pixels: jax.Array) -> jax.Array:
        """Returns pooled image vectors [B, J]."""
        return self.vision_model.pooled(pixels)

    def text_features(self, ids: jax.Array) -> jax.Array:
        """Returns projected text vectors [B, J]."""
        return self.text_model.pooled(ids)

    def token_features(self, states: jax.Array) -> jax.Array:
        """Returns what the head gives for tokens [B, D], each alone: [B, J]."""
        return self.vision_model.pool(states[:, None])

    def everything(self) -> None:
        """Touches every parameter; for shapes only."""
        side = self.config.image_size
        self.vision_model.everything(jnp.zeros((1, side, side, 3)))
        if self.config.text is not None:
            self.text_features(jnp.zeros((1, 2), jnp.int32))


class ProbeAttention(nn.Module):
    """Attention of one learned query, laid out as torch.nn.MultiheadAttention."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the projections."""
        width = self.tower.width
        self.in_proj_weight = self.param("in_proj_weight", nn.initializers.zeros, (3 * width, width))
        self.in_proj_bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * width,))
        self.out_proj = nn.Dense(width, precision=self.precision)

    def __call__(self, probe: jax.Array, x: jax.Array) -> jax.Array:
        """Maps the probe [1, 1, D] and tokens [B, P, D] to [B, 1, D]."""
        width, heads = self.tower.width, self.tower.heads
        matrices, biases = jnp.split(self.in_proj_weight, 3), jnp.split(self.in_proj_bias, 3)
        q, k, v = (
            (jnp.einsum("btd,ed->bte", source, matrix, precision=self.precision) + bias[None, None]).reshape(
                *source.shape[:2], heads, width // heads
            )
            for source, matrix, bias in zip((probe, x, x), matrices, biases, strict=True)
        )
        logits = jnp.einsum("the,bshe->bhts", q[0] * q.shape[-1] ** -0.5, k, precision=self.precision)
        weights = jax.nn.softmax(logits, axis=-1)
        mixed = jnp.einsum("bhts,bshe->bthe", weights, v, precision=self.precision)
        return self.out_proj(mixed.reshape(x.shape[0], 1, width))


class Head(nn.Module):
    """Attention pooling: a probe attends to all tokens, then an MLP."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.probe = self.param("probe", nn.initializers.zeros, (1, 1, self.tower.width))
        self.attention = ProbeAttention(self.tower, self.precision)
        self.layernorm, self.mlp = layer_norm(self.tower), Mlp(self.tower, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps normed tokens [B, P, D] to [B, D]."""
        pooled = self.attention(self.probe, x)
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class VisionTower(vision.VisionTower):
    """The vision transformer with its head."""

    def setup(self) -> None:
        """Declares the parts."""
        super().setup()
        if self.config.has_head:
            self.head = Head(self.config.vision, self.precision)

    def pool(self, states: jax.Array) -> jax.Array:
        """Pools hidden states [B, P, D] of the last layer to [B, D]."""
        return self.head(self.post_layernorm(states))

    def pooled(self, pixels: jax.Array) -> jax.Array:
        """Returns image vectors [B, D]."""
        return self.pool(self(pixels, n_blocks=self.config.vision.layers)[-1])

    def everything(self, pixels: jax.Array) -> None:
        """Touches every parameter; for shapes only."""
        states = self.post_layernorm(self(pixels, n_blocks=self.config.vision.layers)[-1])
        if self.config.has_head:
            self.head(states)


class TextTower(vision.TextTower):
    """The text transformer; every position sees every other."""

    projection: int

    def setup(self) -> None:
        """Declares the parts."""
        super().setup()
        self.head = nn.Dense(self.projection, precision=self.precision)

    def pooled(self, ids: jax.Array) -> jax.Array:
        """Returns text vectors [B, J] of the last position."""
        return self.head(self.final_layer_norm(self(ids)[-1])[:, -1])
