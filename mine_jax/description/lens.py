"""The best words of every image-token, once per image: the lens does not know the voxel."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax import sharding
from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.description.words import Vocabulary, clean_vocabulary
from mine_jax.features import lens_scores
from mine_jax.memory import SparseRows, column_means, summed_rows
from mine_jax.memory.plan import in_chunks
from mine_jax.types import Array, ImageTokens, Lens

# What to do with bare arrays.
_OF_ARRAYS = (
    "A lens is mine_jax.types.Lens(words, unembedding=W, bias=b); an array X becomes tokens by "
    "ImageTokens.from_array(X)."
)
# Scores of one chunk, images x tokens x words: 256 MiB of float32.
_CHUNK_SCORES = 1 << 26


@dataclass(frozen=True)
class TokenWords:
    """What the lens reads from every token.

    Attributes:
        image_ids: [N] str.
        vocabulary: canonical words.
        word_ids: [N, P, M] int32, positions in the canonical words, best first; -1 for dropped.
        shares: [N, P, M] float32, softmax of the lens scores over the whole vocabulary.
        mask: [N, P] bool or None.
    """

    image_ids: np.ndarray
    vocabulary: Vocabulary
    word_ids: np.ndarray
    shares: np.ndarray
    mask: np.ndarray | None = None

    def per_image(self) -> SparseRows:
        """Returns the mean share of each canonical word over the image's tokens, [N, C] float32; most are 0."""
        n_images, n_tokens, m = self.word_ids.shape
        real = self.word_ids >= 0
        if self.mask is not None:
            real &= self.mask[..., None]
        count = np.full(n_images, n_tokens) if self.mask is None else np.maximum(self.mask.sum(1), 1)
        n_entries = real.reshape(n_images, n_tokens * m).sum(1)
        summed = summed_rows(n_entries, self.word_ids[real], self.shares[real], len(self.vocabulary.words))
        return summed.with_values((summed.values / count[summed.rows]).astype(np.float32))

    def in_corpus(self) -> np.ndarray:
        """Returns the mean share [C] of each canonical word over the images: how common it is."""
        return column_means(self.per_image())


@takes(_OF_ARRAYS, lens=Lens, tokens=ImageTokens)
def top_words(
    lens: Lens,
    tokens: ImageTokens,
    *,
    rows: np.ndarray | None = None,
    m: int = 10,
    image_chunk: int | None = None,
    progress: Progress = silent,
) -> TokenWords:
    """Reads the M best words of every token of some images.

    Args:
        lens: W words.
        tokens: image-tokens [N, P, D].
        rows: positions of the images read; None for all.
        m: words kept per token, at most W.
        image_chunk: images held at once. Memory only, never the result.
        progress: called with (done, total) images.

    Returns:
        Token words, in the order of `rows`.

    Source: nostalgebraist 2020 (logit lens); MINE, M = 10.
    """
    rows = np.arange(len(tokens.image_ids)) if rows is None else np.asarray(rows)
    vocabulary = clean_vocabulary(lens.words)
    n_tokens = tokens.tokens.shape[1]
    m = min(m, len(lens.words))
    word_ids = np.empty((len(rows), n_tokens, m), np.int32)
    shares = np.empty((len(rows), n_tokens, m), np.float32)
    arrays, rest = _parts(lens)
    arrays = jax.tree.map(sharding.on_device, arrays)
    image_chunk = image_chunk or min(32, max(1, _CHUNK_SCORES // (n_tokens * len(lens.words))))

    def read_chunk(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states = np.asarray(tokens.tokens[rows[index]], dtype=np.float32)
        best, share = _top(arrays, states, rest=rest, m=m)
        return np.asarray(best), np.asarray(share)

    for (best, share), n_valid, done in in_chunks(read_chunk, len(rows), image_chunk, setting="run.image_chunk"):
        word_ids[done - n_valid : done] = vocabulary.index[best[:n_valid]]
        shares[done - n_valid : done] = share[:n_valid]
        progress(done, len(rows))
    mask = None if tokens.mask is None else tokens.mask[rows]
    return TokenWords(tokens.image_ids[rows], vocabulary, word_ids, shares, mask)


def _parts(lens: Lens) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """Divides a lens, without its words, into arrays and what its program is compiled for: equal lenses share it."""
    fields = {field.name: getattr(lens, field.name) for field in dataclasses.fields(lens) if field.name != "words"}
    arrays = {name: value for name, value in fields.items() if isinstance(value, (dict, np.ndarray, jax.Array))}
    return arrays, tuple((name, value) for name, value in fields.items() if name not in arrays)


@functools.partial(jax.jit, static_argnames=("rest", "m"))
def _top(
    arrays: dict[str, Any], states: Array, *, rest: tuple[tuple[str, Any], ...], m: int
) -> tuple[jax.Array, jax.Array]:
    """Returns entries [B, P, M] and their softmax shares, of the lens of `_parts`."""
    scores = lens_scores(Lens(words=np.empty(0, str), **arrays, **dict(rest)), states)
    top, best = jax.lax.top_k(scores, m)
    return best, jnp.exp(top - jax.nn.logsumexp(scores, -1, keepdims=True))
