"""What CLIP's towers add to `vision`: a class token, a norm before the blocks, causal text."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports import vision
from mine_jax.features.ports.vision import TwoTowers, layer_norm


class Clip(TwoTowers):
    """Both towers and projections; vision-only checkpoints have no text tower."""

    def setup(self) -> None:
        """Declares the towers."""
        self.vision_model = VisionTower(self.config, self.precision)
        if self.config.projection:
            self.visual_projection = nn.Dense(self.config.projection, use_bias=False, precision=self.precision)
        if self.config.text is not None:
            self.text_model = TextTower(self.config.text, self.precision)
            self.text_projection = nn.Dense(self.config.projection, use_bias=False, precision=self.precision)
            self.logit_scale = self.param("logit_scale", nn.initializers.zeros, ())

    def value_states(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns `image_states` whose image-tokens are what the class token becomes that looks at one alone."""
        return self.vision_model.encoder.first_at_one(self.image_states(pixels, n_blocks=n_blocks))

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


class VisionTower(vision.VisionTower):
    """The vision transformer with a class token."""

    has_class = True

    def setup(self) -> None:
        """Declares the parts."""
        super().setup()
        self.pre_layrnorm = layer_norm(self.config.vision)

    def embed(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels to the normed input of the first block."""
        return self.pre_layrnorm(self.embeddings(pixels))

    def pooled(self, pixels: jax.Array) -> jax.Array:
        """Returns the normed class token [B, D] of the last layer."""
        return self.post_layernorm(self(pixels, n_blocks=self.config.vision.layers)[-1][:, 0])


class TextTower(vision.TextTower):
    """The causal text transformer."""

    is_causal = True

    def pooled(self, ids: jax.Array) -> jax.Array:
        """Returns the normed state [B, D] at the end token."""
        # legacy checkpoints name a wrong end token; there it is the highest id of the text
        end = ids if self.tower.end is None else (ids == self.tower.end).astype(jnp.int32)
        states = self.final_layer_norm(self(ids)[-1])
        return states[jnp.arange(ids.shape[0]), end.argmax(-1)]
