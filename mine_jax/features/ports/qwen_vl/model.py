"""Qwen2.5-VL in flax: a vision tower with attention in windows, what merges its patches, and a decoder.

The tower has no grid of its own: the pixels say how many patches there are, and rotary positions where
each is. Patches are in the order in which they are merged: row by row of image-tokens, in each the patches
row by row.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mine_jax.features.ports.decoder.model import GatedMlp, LanguageModel, RmsNorm, rotated
from mine_jax.features.ports.layers import ACTIVATIONS, Dense, product
from mine_jax.features.ports.qwen_vl.config import QwenConfig, QwenTower
from mine_jax.types import Array

# of the norms of the tower; config.json does not say it
EPSILON = 1e-6


class Windows(NamedTuple):
    """Which patches see each other: `index` [windows, L] of patches, `real` [windows, L], `place` [T] in the index."""

    index: np.ndarray
    real: np.ndarray
    place: np.ndarray


class Qwen(nn.Module):
    """All parts but the head, which only the lens needs."""

    config: QwenConfig
    precision: str = "highest"

    def setup(self) -> None:
        """Declares the parts."""
        self.visual = VisionTower(self.config.vision, self.precision, self.config.decoder.width)
        self.language_model = LanguageModel(self.config.decoder, self.precision)

    def embed(self, pixels: jax.Array, ids: jax.Array) -> jax.Array:
        """Puts merged patches in the places of the image ids: [B, T, D] float32."""
        return self.language_model.embed(self.visual(pixels), ids, self.config.image_token)

    def everything(self) -> None:
        """Touches every parameter that is loaded; for shapes only."""
        size = self.config.vision.token_size
        ids = jnp.full((1, 1), self.config.image_token, jnp.int32)
        self.language_model.everything(self.embed(jnp.zeros((1, size, size, 3)), ids))


class VisionTower(nn.Module):
    """The vision transformer with its merger."""

    tower: QwenTower
    precision: str
    out_width: int

    def setup(self) -> None:
        """Declares the parts."""
        self.patch_embed = PatchEmbed(self.tower, self.precision)
        self.blocks = [VisionBlock(self.tower, self.precision) for _ in range(self.tower.layers)]
        self.merger = Merger(self.tower, self.out_width, self.precision)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [B, rows, columns, 3] to image-tokens [B, P, D]."""
        return self.merger(self.states(pixels)[-1])

    def states(self, pixels: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, patches, width] after 0 to all blocks."""
        rows, columns = (side // self.tower.token_size for side in pixels.shape[1:3])
        cos, sin = patch_angles(self.tower, rows, columns)
        windows, whole = windows_of(self.tower, rows, columns), windows_of(self.tower, rows, columns, whole=True)
        states = [self.patch_embed(pixels)]
        for number, block in enumerate(self.blocks):
            seen = whole if number in self.tower.whole else windows
            states.append(block(states[-1], cos, sin, seen))
        return states


class PatchEmbed(nn.Module):
    """A linear map of each patch, the same for all frames of the still film."""

    tower: QwenTower
    precision: str

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [B, rows, columns, 3] to patches [B, T, D] in the order of merging."""
        side, merge = self.tower.patch_size, self.tower.merge
        kernel = Kernel((self.tower.frames, side, side, 3, self.tower.width), name="proj")().sum(0)
        b, rows, columns, _ = pixels.shape
        shape = (b, rows // side // merge, merge, side, columns // side // merge, merge, side, 3)
        patches = pixels.reshape(shape).transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, -1, side * side * 3)
        return product("btp,pd->btd", patches, kernel.reshape(-1, self.tower.width), self.precision)


class Kernel(nn.Module):
    """A kernel alone."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the kernel."""
        return self.param("kernel", nn.initializers.zeros, self.shape)


class VisionBlock(nn.Module):
    """Pre-norm transformer block."""

    tower: QwenTower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        sizes = self.tower
        self.norm1, self.norm2 = RmsNorm(EPSILON), RmsNorm(EPSILON)
        self.attn = VisionAttention(sizes, self.precision)
        self.mlp = GatedMlp(sizes.width, sizes.hidden, sizes.activation, True, self.precision)

    def __call__(self, x: jax.Array, cos: Array, sin: Array, windows: Windows) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        x = x + self.attn(self.norm1(x), cos, sin, windows)
        return x + self.mlp(self.norm2(x))


class VisionAttention(nn.Module):
    """Attention among the patches of each window, with rotary positions."""

    tower: QwenTower
    precision: str

    def setup(self) -> None:
        """Declares the projections."""
        self.qkv = Dense(3 * self.tower.width, True, self.precision)
        self.proj = Dense(self.tower.width, True, self.precision)

    def __call__(self, x: jax.Array, cos: Array, sin: Array, windows: Windows) -> jax.Array:
        """Maps normed [B, T, D] to [B, T, D]."""
        (b, t, width), heads = x.shape, self.tower.heads
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(b, t, 3, heads, width // heads), 2, 0)
        kind = self.proj.kind
        q, k = rotated(q, cos, sin) * (width // heads) ** -0.5, rotated(k, cos, sin)
        # [B, windows, L, heads, head width]
        q, k, v = (part.astype(kind)[:, windows.index] for part in (q, k, v))
        logits = product("bwlhe,bwshe->bwhls", q, k, self.precision)
        logits = jnp.where(windows.real[None, :, None, None], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1)
        mixed = product("bwhls,bwshe->bwlhe", weights.astype(kind), v, self.precision)
        return self.proj(mixed.reshape(b, -1, width)[:, windows.place])


class Merger(nn.Module):
    """From the patches of each image-token to the width of the decoder."""

    tower: QwenTower
    out_width: int
    precision: str

    def setup(self) -> None:
        """Declares the layers; their numbers are those of the checkpoint."""
        self.ln_q = RmsNorm(EPSILON)
        self.mlp_0 = Dense(self.tower.width * self.tower.merge**2, True, self.precision)
        self.mlp_2 = Dense(self.out_width, True, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, patches, width] to [B, P, D]."""
        merged = self.ln_q(x).reshape(x.shape[0], -1, self.tower.width * self.tower.merge**2)
        return self.mlp_2(ACTIVATIONS["gelu"](self.mlp_0(merged)))


@functools.cache
def windows_of(tower: QwenTower, rows: int, columns: int, *, whole: bool = False) -> Windows:
    """Returns the windows of a grid of image-tokens, the last of a row or column cut off; one where it is `whole`."""
    side = max(rows, columns) if whole else tower.window
    tokens = np.arange(rows * columns).reshape(rows, columns)
    n_patches = tower.merge**2
    members = [
        (tokens[row : row + side, column : column + side].reshape(-1, 1) * n_patches + np.arange(n_patches)).ravel()
        for row in range(0, rows, side)
        for column in range(0, columns, side)
    ]
    longest = max(map(len, members))
    index = np.zeros((len(members), longest), np.int32)
    real = np.zeros(index.shape, bool)
    place = np.zeros(tokens.size * n_patches, np.int32)
    for number, patches in enumerate(members):
        index[number, : len(patches)], real[number, : len(patches)] = patches, True
        place[patches] = number * longest + np.arange(len(patches))
    return Windows(index, real, place)


def patch_angles(tower: QwenTower, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosines and sines [1, T, head width / 2] float32: rows turn half of a head, columns the other half."""
    merge, quarter = tower.merge, tower.width // tower.heads // 4
    exponents = np.arange(0, 2 * quarter, 2, dtype=np.float32) / np.float32(2 * quarter)
    frequencies = (1 / np.float32(tower.theta) ** exponents).astype(np.float32)
    places = np.indices((rows * merge, columns * merge)).reshape(2, rows, merge, columns, merge)
    places = places.transpose(0, 1, 3, 2, 4).reshape(2, -1, 1).astype(np.float32)
    angles = np.concatenate([places[0] * frequencies[None], places[1] * frequencies[None]], -1)[None]
    return np.cos(angles), np.sin(angles)
