"""The network of dino.txt, in flax: DINOv2 with registers, the blocks that text training put on it, and a text tower.

Module and parameter names are those of the original code, but for its wrapper around DINOv2.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mine_jax.features.ports.config import Tower
from mine_jax.features.ports.dinotxt.config import DinoTxtConfig
from mine_jax.features.ports.layers import Dense
from mine_jax.features.ports.vision import Mlp, TwoTowers, attend, causal_mask, layer_norm


class DinoTxt(TwoTowers):
    """Both towers with their heads."""

    config: DinoTxtConfig  # ty: ignore[incompatible-mutable-override]  # flax freezes modules

    def setup(self) -> None:
        """Declares the towers."""
        assert self.config.text is not None
        self.visual_model = VisualModel(self.config, self.precision)
        self.text_model = TextModel(self.config.text, 2 * self.config.projection, self.precision)
        self.logit_scale = self.param("logit_scale", nn.initializers.zeros, (1,))

    def image_states(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns states [B, P, D] of the patches after 0 to n_blocks blocks, those of the head after DINOv2's."""
        states = self.visual_model(pixels, n_blocks=n_blocks)
        return [state[:, 1 + self.config.registers :] for state in states]

    def image_features(self, pixels: jax.Array) -> jax.Array:
        """Returns image vectors [B, 2 J]: the class token, then the mean of the patches."""
        n_blocks = self.config.vision.layers + self.config.head.layers
        tokens = self.visual_model.head(self.visual_model(pixels, n_blocks=n_blocks)[-1])
        return jnp.concatenate([tokens[:, 0], tokens[:, 1 + self.config.registers :].mean(1)], -1)

    def text_states(self, ids: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, T, D] of the text tower, before the final norm."""
        return self.text_model.backbone(ids)

    def text_features(self, ids: jax.Array) -> jax.Array:
        """Returns text vectors [B, 2 J] at the highest id, which ends a text."""
        return self.text_model(ids)

    def everything(self) -> None:
        """Touches every parameter; for shapes only."""
        self.image_features(jnp.zeros((1, *self.config.image_shape, 3)))
        self.text_features(jnp.zeros((1, 2), jnp.int32))


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    tower: Tower
    use_bias: bool
    precision: str

    def setup(self) -> None:
        """Declares the projections."""
        self.qkv = Dense(3 * self.tower.width, self.use_bias, self.precision)
        self.proj = Dense(self.tower.width, True, self.precision)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; mask [1, 1, T, T] is True where a token may look."""
        heads = self.tower.heads
        split = self.qkv(x).reshape(*x.shape[:2], 3, heads, self.tower.width // heads)
        mixed = attend(split[:, :, 0], split[:, :, 1], split[:, :, 2], mask, self.proj.kind, self.precision)
        return self.proj(mixed.reshape(x.shape))


class LayerScale(nn.Module):
    """A factor for each dimension."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        return x * self.param("gamma", nn.initializers.ones, (self.width,))[None, None]


class GatedMlp(nn.Module):
    """Two dense layers of which one gates the other, then a third."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the layers."""
        self.w1, self.w2 = (Dense(self.tower.hidden, True, self.precision) for _ in range(2))
        self.w3 = Dense(self.tower.width, True, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        return self.w3(jax.nn.silu(self.w1(x)) * self.w2(x))


class Block(nn.Module):
    """Pre-norm transformer block of DINOv2, or of the head."""

    tower: Tower
    precision: str
    in_head: bool = False

    def setup(self) -> None:
        """Declares the parts."""
        self.norm1, self.norm2 = layer_norm(self.tower), layer_norm(self.tower)
        self.ls1, self.ls2 = LayerScale(self.tower.width), LayerScale(self.tower.width)
        self.attn = Attention(self.tower, not self.in_head, self.precision)
        self.mlp = (GatedMlp if self.in_head else Mlp)(self.tower, self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches of pixels."""

    width: int
    patch_size: int
    precision: str

    def setup(self) -> None:
        """Declares the convolution."""
        side = (self.patch_size,) * 2
        self.proj = nn.Conv(self.width, side, side, "VALID", precision=self.precision)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [B, rows, columns, 3] to [B, P, D]."""
        return self.proj(pixels).reshape(pixels.shape[0], -1, self.width)


class DinoV2(nn.Module):
    """DINOv2 with registers, on a grid of any shape."""

    config: DinoTxtConfig
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        tower, zeros = self.config.vision, nn.initializers.zeros
        self.cls_token = self.param("cls_token", zeros, (1, 1, tower.width))
        self.register_tokens = self.param("register_tokens", zeros, (1, self.config.registers, tower.width))
        self.pos_embed = self.param("pos_embed", zeros, (1, 1 + self.config.side**2, tower.width))
        self.patch_embed = PatchEmbed(tower.width, self.config.patch_size, self.precision)
        self.blocks = [Block(tower, self.precision) for _ in range(tower.layers)]
        self.norm = layer_norm(tower)

    def __call__(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns states [B, 1 + R + P, D] after 0 to n_blocks blocks: class token, registers, patches."""
        patches = self.patch_embed(pixels) + self.positions()
        first = jnp.concatenate([self.cls_token + self.pos_embed[:, :1], self.register_tokens], 1)
        first = jnp.broadcast_to(first, (pixels.shape[0], *first.shape[1:]))
        states = [jnp.concatenate([first, patches], 1)]
        for block in self.blocks[:n_blocks]:
            states.append(block(states[-1]))
        return states

    def positions(self) -> jax.Array:
        """Returns the table of positions for the grid, [1, P, D]."""
        side, width = self.config.side, self.config.vision.width
        table = self.pos_embed[0, 1:].reshape(side, side, width)
        # as torch's bicubic interpolation with antialias, which models with registers were trained with
        resized = jax.image.resize(table, (*self.config.grid, width), "cubic", antialias=True, precision=self.precision)
        return resized.reshape(1, -1, width)


class VisualHead(nn.Module):
    """The blocks that were trained with text, and what follows them."""

    config: DinoTxtConfig
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        head, projection = self.config.head, self.config.projection
        self.block_list = [Block(head, self.precision, in_head=True) for _ in range(head.layers)]
        self.ln_final = layer_norm(head)
        if projection != head.width:
            self.linear_projection = nn.Dense(projection, use_bias=False, precision=self.precision)

    def __call__(self, states: jax.Array) -> jax.Array:
        """Maps states [B, T, D] after the blocks to the space of words, [B, T, J]."""
        normed = self.ln_final(states)
        return normed if self.config.projection == self.config.head.width else self.linear_projection(normed)


class VisualModel(nn.Module):
    """DINOv2 and its head."""

    config: DinoTxtConfig
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.backbone = DinoV2(self.config, self.precision)
        self.head = VisualHead(self.config, self.precision)

    def __call__(self, pixels: jax.Array, *, n_blocks: int) -> list[jax.Array]:
        """Returns states [B, 1 + R + P, D] after 0 to n_blocks blocks, those of the head after DINOv2's."""
        states = self.backbone(pixels, n_blocks=n_blocks)
        after = n_blocks - self.config.vision.layers
        if after > 0:
            x = self.backbone.norm(states[-1])
            for block in self.head.block_list[:after]:
                x = block(x)
                states.append(x)
        return states


class TextBlock(nn.Module):
    """Pre-norm transformer block of the text tower."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.attention_norm, self.ffn_norm = layer_norm(self.tower), layer_norm(self.tower)
        self.attention = Attention(self.tower, False, self.precision)
        self.feed_forward = Mlp(self.tower, self.precision)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.feed_forward(self.ffn_norm(x))


class TextBackbone(nn.Module):
    """The causal text transformer."""

    tower: Tower
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        tower = self.tower
        self.token_embedding = nn.Embed(tower.vocabulary, tower.width)
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.zeros, (tower.positions, tower.width)
        )
        self.blocks = [TextBlock(tower, self.precision) for _ in range(tower.layers)]
        self.ln_final = layer_norm(tower)

    def __call__(self, ids: jax.Array) -> list[jax.Array]:
        """Returns hidden states [B, T, D], before the final norm."""
        states = [self.token_embedding(ids) + self.positional_embedding[None, : ids.shape[1]]]
        for block in self.blocks:
            states.append(block(states[-1], causal_mask(ids)))
        return states


class TextHead(nn.Module):
    """The projection of texts."""

    features: int
    precision: str

    def setup(self) -> None:
        """Declares the matrix."""
        self.linear_projection = nn.Dense(self.features, use_bias=False, precision=self.precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, D] to [B, features]."""
        return self.linear_projection(x)


class TextModel(nn.Module):
    """The text tower and its projection."""

    tower: Tower
    features: int
    precision: str

    def setup(self) -> None:
        """Declares the parts."""
        self.backbone = TextBackbone(self.tower, self.precision)
        self.head = TextHead(self.features, self.precision)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Returns text vectors [B, features] at the highest id of each text."""
        normed = self.backbone.ln_final(self.backbone(ids)[-1])
        return self.head(normed[jnp.arange(ids.shape[0]), ids.argmax(-1)])
