"""What NaFlex has in the place of SigLIP's embeddings: patches of any grid, and a table of positions that is resized.

All patches of an image are real: a grid is filled, never padded, so that no attention needs a mask.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports.config import Towers
from mine_jax.features.ports.siglip import model as siglip_model


class Naflex(siglip_model.Siglip):
    """Both towers; vision-only checkpoints have no text tower."""

    def vision_tower(self) -> siglip_model.VisionTower:
        """Returns the vision tower."""
        return VisionTower(self.config, self.precision)


class VisionTower(siglip_model.VisionTower):
    """SigLIP's tower on other embeddings."""

    def patches(self) -> nn.Module:
        """Returns the embeddings."""
        return Embeddings(self.config, self.precision)


class Embeddings(nn.Module):
    """Patches with learned positions, resized from those of a square."""

    config: Towers
    precision: str

    def setup(self) -> None:
        """Declares the parameters."""
        width = self.config.vision.width
        self.patch_embedding = nn.Dense(width, precision=self.precision)
        self.position_embedding = nn.Embed(self.config.side**2, width)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [B, rows, columns, 3] to [B, P, D]."""
        (b, height, width, _), size, side = pixels.shape, self.config.patch_size, self.config.side
        rows, columns, depth = height // size, width // size, self.config.vision.width
        patches = pixels.reshape(b, rows, size, columns, size, 3).transpose(0, 1, 3, 2, 4, 5)
        table = self.position_embedding.embedding.reshape(side, side, depth)
        # as torch's bilinear interpolation with antialias
        positions = jax.image.resize(table, (rows, columns, depth), "linear", antialias=True, precision=self.precision)
        states = self.patch_embedding(patches.reshape(b, rows * columns, size * size * 3))
        return states + jnp.reshape(positions, (1, rows * columns, depth))
