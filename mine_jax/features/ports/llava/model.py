"""LLaVA in flax: a vision tower, a projector and a decoder."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports.clip import model as clip_model
from mine_jax.features.ports.clip.config import ClipConfig
from mine_jax.features.ports.decoder.model import LanguageModel
from mine_jax.features.ports.layers import ACTIVATIONS, Dense
from mine_jax.features.ports.llava.config import LlavaConfig
from mine_jax.features.ports.siglip import model as siglip_model


class Llava(nn.Module):
    """All parts but the head, which only the lens needs."""

    config: LlavaConfig
    precision: str = "highest"

    def setup(self) -> None:
        """Declares the parts."""
        vision = self.config.vision
        if isinstance(vision, ClipConfig):
            self.vision_tower = clip_model.VisionTower(vision, self.precision)
        else:
            self.vision_tower = siglip_model.VisionTower(vision, self.precision)
        self.multi_modal_projector = Projector(self.config, self.precision)
        self.language_model = LanguageModel(self.config.decoder, self.precision)
        if self.config.crops:
            self.image_newline = self.param("image_newline", nn.initializers.zeros, (self.config.decoder.width,))

    def embed(self, pixels: jax.Array, ids: jax.Array) -> jax.Array:
        """Puts projected patches in the places of the image ids: [B, T, D] float32.

        Args:
            pixels: [B, rows, columns, 3].
            ids: [B, T] int32, with as many image ids per row as there are patches, and ends of rows of crops.
        """
        side = self.config.vision.image_size
        states = self.vision_tower(pixels.reshape(-1, side, side, 3), n_blocks=max(self.config.vision_layers))
        chosen = [states[layer][:, int(self.config.drops_class) :] for layer in self.config.vision_layers]
        patches = self.multi_modal_projector(jnp.concatenate(chosen, -1))
        if self.config.crops:
            patches = self.packed(patches.reshape(pixels.shape[0], -1, *patches.shape[1:]), self.config.crops)
        return self.language_model.embed(patches, ids, self.config.image_token)

    def packed(self, views: jax.Array, crops: tuple[int, int]) -> jax.Array:
        """Joins crops to rows that end with a newline, after the photo: views [B, 1 + crops, P, D] to [B, T, D]."""
        (b, _, _, width), (rows, columns), side = views.shape, crops, self.config.vision.side
        parts = views[:, 1:].reshape(b, rows, columns, side, side, width).transpose(0, 1, 3, 2, 4, 5)
        lines = parts.reshape(b, rows * side, columns * side, width)
        newline = jnp.broadcast_to(self.image_newline.astype(lines.dtype), (b, rows * side, 1, width))
        return jnp.concatenate([views[:, 0], jnp.concatenate([lines, newline], 2).reshape(b, -1, width)], 1)

    def everything(self) -> None:
        """Touches every parameter that is loaded; for shapes only."""
        ids = jnp.full((1, self.config.n_placeholders), self.config.image_token, jnp.int32)
        self.language_model.everything(self.embed(jnp.zeros((1, *self.config.image_shape, 3)), ids))


class Projector(nn.Module):
    """From the width of the vision tower to that of the decoder."""

    config: LlavaConfig
    precision: str

    def setup(self) -> None:
        """Declares the layers."""
        width, bias = self.config.decoder.width, self.config.projector_bias
        self.linear_1, self.linear_2 = Dense(width, bias, self.precision), Dense(width, bias, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, P, vision width] to [B, P, D]."""
        return self.linear_2(ACTIVATIONS[self.config.projector_activation](self.linear_1(x)))
