"""A lens and image-tokens -> scores over words; the reference implementation.

`types.Lens` states the formula. Pure jnp, so it can be vmapped, jitted and chunked by
later stages.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import logging
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax._checks import check_shape
from mine_jax._progress import Progress, silent
from mine_jax.errors import ConfigError, DataError, MissingInputError, WeightsError
from mine_jax.features.backbone import Backbone
from mine_jax.features.ports.layers import ACTIVATIONS
from mine_jax.memory.chunks import padded_chunks
from mine_jax.types import Array, ImageTokens, Lens

_log = logging.getLogger("mine_jax")

# Images whose tokens are held at once while the mean is computed.
CENTER_IMAGES = 64


def lens_scores(lens: Lens, tokens: Array, *, precision: str = "highest") -> jax.Array:
    """Scores every word of a lens for every token.

    Args:
        lens: W words.
        tokens: [..., D], any float dtype; computed in float32.
        precision: of the matrix products, as in `jax.default_matmul_precision`.

    Returns:
        Scores [..., W] float32: scale * (z - center) @ unembedding^T + bias, see `types.Lens`.

    Raises:
        DataError: if D differs from the width that the lens reads.
    """
    z = project_tokens(lens, tokens, precision=precision)
    unembedding = jnp.asarray(lens.unembedding, jnp.float32)
    scores = jnp.einsum("...j,wj->...w", z, unembedding, precision=precision)
    return lens.scale * scores + _like(lens.bias, scores)


def project_tokens(lens: Lens, tokens: Array, *, precision: str = "highest") -> jax.Array:
    """Takes tokens to the space of the words: z - center of `types.Lens`.

    Args:
        lens: W words with vectors of length J.
        tokens: [..., D], any float dtype; computed in float32.
        precision: of the matrix product.

    Returns:
        [..., J] float32.

    Raises:
        DataError: if D differs from the width that the lens reads.
    """
    width = _width(lens)
    if tokens.shape[-1] != width:
        raise DataError(
            f"`tokens` must have width D = {width} (what the lens reads), but has shape "
            f"{tuple(tokens.shape)}. Do tokens and lens come from the same model?"
        )
    x = jnp.asarray(tokens).astype(jnp.float32)
    if lens.lift is not None:
        x = _affine(x, lens.lift, lens.lift_offset, precision)
    y = _norm(lens, x)
    if lens.projection is not None:
        y = _affine(y, lens.projection, lens.projection_bias, precision)
    if lens.mlp is not None:
        y = y + _mlp(lens, y, precision)
    if lens.normalize:
        y = y / jnp.maximum(jnp.linalg.norm(y, axis=-1, keepdims=True), 1e-12)
    return y if lens.center is None else y - _like(lens.center, y)


def center_lens(
    lens: Lens,
    tokens: ImageTokens,
    *,
    fitted_on: np.ndarray | None = None,
    sample: int | None = 200_000,
    progress: Progress = silent,
) -> Lens:
    """Sets the center of a lens to the mean projected token of a corpus.

    Image and text vectors of CLIP-type models sit in two separate cones; subtracting the
    mean of each makes their products comparable.

    Args:
        lens: W words; its own center is ignored.
        tokens: image-tokens [N, P, D].
        fitted_on: ids of the images that are the corpus, such as those of the fit; None for all N.
        sample: most tokens used, from evenly spaced images of the corpus; None for all.
        progress: called with (images done, images used).

    Returns:
        The lens with `center` [J]: the mean over real tokens of z in `types.Lens`, summed in float64.

    Raises:
        DataError: if the corpus has no real image-token.
    """
    check_shape("tokens", tokens.tokens, "N P D")
    n_tokens = tokens.tokens.shape[1]
    bare = dataclasses.replace(lens, center=None)
    most = None if sample is None else max(1, sample // n_tokens)
    rows = spaced_rows(np.asarray(tokens.image_ids), fitted_on, most)
    project = jax.jit(functools.partial(project_tokens, bare))
    total, count, done = 0.0, 0, 0
    for positions, n_valid in padded_chunks(len(rows), CENTER_IMAGES):
        chunk = rows[positions]
        z = np.asarray(project(np.asarray(tokens.tokens[chunk])), np.float64)[:n_valid]
        real = np.ones(z.shape[:2], bool) if tokens.mask is None else np.asarray(tokens.mask[chunk[:n_valid]])
        total, count = total + z[real].sum(0), count + int(real.sum())
        done += n_valid
        progress(done, len(rows))
    if count == 0:
        raise DataError("the lens cannot be centered: no image-token is real in the sampled images. Check the mask.")
    return dataclasses.replace(lens, center=np.asarray(total / count, np.float32))


def spaced_rows(image_ids: np.ndarray, fitted_on: np.ndarray | None, most: int | None) -> np.ndarray:
    """Finds evenly spaced images among those that something may be fitted on.

    Args:
        image_ids: [N] str.
        fitted_on: ids of the images that may be used; None for all.
        most: images found at most; None for all.

    Returns:
        Their positions [n], ascending.

    Raises:
        DataError: if there are none.
    """
    rows = np.arange(len(image_ids)) if fitted_on is None else np.flatnonzero(np.isin(image_ids, fitted_on))
    if not len(rows):
        raise DataError("none of the images that features are fitted on is among the images. Check the ids.")
    n = len(rows) if most is None else min(len(rows), most)
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(np.int64))]


def text_lens_vectors(vectors: np.ndarray) -> np.ndarray:
    """Makes word vectors of a contrastive model from its text vectors.

    Each vector is scaled to unit length, templates are averaged and scaled again, the mean
    word is subtracted, and the result is scaled to unit length.

    Args:
        vectors: [W, T, J], W words in T templates.

    Returns:
        [W, J] float32.

    Source: prompt ensembling of CLIP (Radford et al. 2021, section 3.1.4). Differs: centered.
    """
    unit = _unit(np.asarray(vectors, np.float64))
    words = _unit(unit.mean(1))
    return _unit(words - words.mean(0)).astype(np.float32)


def read_words(path: str | Path) -> np.ndarray:
    """Reads a word list, one per line; empty lines are skipped.

    Args:
        path: a UTF-8 text file.

    Returns:
        Words [W] str.

    Raises:
        MissingInputError: if the file is not there.
        DataError: see `check_words`.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no word list at {path}. Write one word per line, or drop `features.words`.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    return check_words([line.strip() for line in lines if line.strip()], source=str(path))


def build_lens(
    backbone: Backbone, word_list: str | Path | None, templates: Sequence[str], progress: Progress
) -> Lens | None:
    """Builds the lens of a backbone over the words asked for, the checkpoint's, or the shipped ones.

    Args:
        backbone: the frozen model.
        word_list: file of words, see `read_words`; None for the checkpoint's list, else the shipped one.
        templates: used where the checkpoint has none.
        progress: as `Backbone.lens` takes it.

    Returns:
        The lens, not centered; None if no words were asked for and the model reads none.
    """
    words, checkpoint_templates = backbone.lens_defaults()
    templates = checkpoint_templates or templates
    if word_list is not None:
        words = read_words(word_list)
    if words is not None:
        return backbone.lens(words, templates, progress=progress)
    try:
        return backbone.lens(visual_words(), templates, progress=progress)
    except (ConfigError, WeightsError) as error:
        # nobody asked for words of this model, which may have no text tower or tokenizer
        _log.warning("no lens, so later stages find no words: %s", error)
        return None


def why_no_lens(backbone: Backbone, word_list: str | Path | None, templates: Sequence[str]) -> str | None:
    """Says why a backbone that nobody asked for words reads none; None if it does.

    Two words are tried.

    Args:
        backbone: the frozen model.
        word_list: file of words, see `read_words`; None for the checkpoint's list, else the shipped one.
        templates: prompts with one `{}`.

    Returns:
        The reason, or None.

    Raises:
        ConfigError: if words were asked for and the model reads none.
        WeightsError: likewise, if its tokenizer does not fit.
    """
    asked, checkpoint_templates = backbone.lens_defaults()
    if word_list is not None:
        asked = read_words(word_list)
    try:
        backbone.lens((visual_words() if asked is None else asked)[:2], checkpoint_templates or templates)
    except (ConfigError, WeightsError) as error:
        if asked is not None:
            raise
        return str(error)
    return None


def visual_words() -> np.ndarray:
    """Returns the words [W] that ship with the package: what photos show, in English.

    It was written for this project; see `visual_words.NOTICE` beside it.
    """
    text = (importlib.resources.files("mine_jax") / "features" / "visual_words.txt").read_text(encoding="utf-8")
    return check_words(text.split("\n")[:-1], source="visual_words.txt")


def check_words(words: Sequence[str] | np.ndarray, *, source: str = "words") -> np.ndarray:
    """Returns words [W] str, each once.

    Raises:
        DataError: for fewer than two words, or a word that occurs twice.
    """
    words = np.asarray(words, dtype=str)
    if words.ndim != 1 or len(words) < 2:
        raise DataError(f"{source} must list at least 2 words, but has shape {words.shape}.")
    unique, counts = np.unique(words, return_counts=True)
    if len(unique) < len(words):
        raise DataError(f"{source} lists {unique[counts > 1][:5].tolist()} more than once. Keep each word once.")
    return words


def reduced_lens(lens: Lens, mean: np.ndarray, basis: np.ndarray) -> Lens:
    """Makes a lens read tokens that were reduced to (x - mean) @ basis.

    The reduced token is lifted back, so the lens sees the token's projection on the basis; what
    the reduction removed is lost.

    Args:
        lens: reads tokens of width D.
        mean: [D], subtracted before the reduction.
        basis: [D, E], orthonormal columns.

    Returns:
        The lens that reads [..., E].
    """
    return dataclasses.replace(lens, lift=np.asarray(basis, np.float32).T.copy(), lift_offset=np.float32(mean))


def _width(lens: Lens) -> int:
    """Returns the width of the tokens that a lens reads."""
    if lens.lift is not None:
        return lens.lift.shape[0]
    return lens.unembedding.shape[1] if lens.projection is None else lens.projection.shape[0]


def _affine(x: jax.Array, matrix: Array, bias: Array | None, precision: str) -> jax.Array:
    y = jnp.einsum("...d,dj->...j", x, jnp.asarray(matrix, jnp.float32), precision=precision)
    return y if bias is None else y + _like(bias, y)


def _mlp(lens: Lens, y: jax.Array, precision: str) -> jax.Array:
    """Returns the residual of the MLP [..., J]."""
    parts = lens.mlp
    assert parts is not None
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt((y**2).mean(-1, keepdims=True) + lens.norm_epsilon)
    y = y * _like(parts["norm_scale"], y) + _like(parts["norm_bias"], y)
    hidden = ACTIVATIONS[lens.mlp_activation](_affine(y, parts["fc1"], parts["fc1_bias"], precision))
    return _affine(hidden, parts["fc2"], parts["fc2_bias"], precision)


def _norm(lens: Lens, x: jax.Array) -> jax.Array:
    if lens.norm == "none":
        return x
    if lens.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    elif lens.norm != "rms":
        raise DataError(f"`norm` of a lens must be none, layer or rms, but is {lens.norm!r}.")
    x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + lens.norm_epsilon)
    if lens.norm_scale is not None:
        x = x * _like(lens.norm_scale, x)
    if lens.norm == "layer" and lens.norm_bias is not None:
        x = x + _like(lens.norm_bias, x)
    return x


def _like(vector: Array, x: jax.Array) -> jax.Array:
    """Gives a vector [J] the axes of x [..., J]; tests forbid rank promotion."""
    return jnp.asarray(vector, jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
