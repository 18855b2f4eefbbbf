"""Who judges an image: the encoders that made the descriptions, and independent ones.

A description is chosen with the describing encoders, so their word about its images is
circular. The second judge is of another kind (ridge on the token grid) and was fitted on
images that the describing encoders never saw.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder, features
from mine_jax._progress import Progress, silent
from mine_jax.config import RidgeConfig
from mine_jax.description import TokenWords
from mine_jax.features import Backbone
from mine_jax.types import Encoders, ImageTokens, Split, Stimuli
from mine_jax.validation.inputs import Inputs

# With fewer images a ridge encoder is no judge.
MIN_IMAGES = 40
# Names of judges: encoders that never saw what the describing ones saw.
INDEPENDENT = "ridge (independent)"
_FOLDS = 5
_MAX_CELLS = 16
_WIDTH = 32
logger = logging.getLogger("mine_jax")


@dataclass(frozen=True)
class Evaluator:
    """A judge of images.

    Attributes:
        name: for tables.
        encoders: of V voxels.
        r2: [V] float64, its own accuracy on images it was not fitted on.
        held_out: what those images were.
        mesh: devices of this process; None for one. Never the result.
        pictures: image-tokens of all pictures by a backbone of its own; None for those of the run.
    """

    name: str
    encoders: Encoders
    r2: np.ndarray
    held_out: str
    mesh: Mesh | None = None
    pictures: ImageTokens | None = None

    def predict(self, tokens: ImageTokens) -> np.ndarray:
        """Predicts responses [N, V] float64, z-scored beta, to image-tokens [N, P, D]."""
        return np.asarray(encoder.predict(self.encoders, tokens, mesh=self.mesh), np.float64)


def judges(
    inputs: Inputs,
    voxel_ids: np.ndarray,
    *,
    exclude: Sequence[str],
    with_independent: bool,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> list[Evaluator]:
    """Returns the describing encoders and, if wanted, independent ones, the most independent last.

    Args:
        inputs: of the stage.
        voxel_ids: [V] int, ascending, the voxels that are judged.
        exclude: images of the test itself.
        with_independent: whether there shall be independent encoders too, where images are enough.
        seed: of their folds.
        mesh: devices of this process; None for one. Never the result.
        progress: called while they are fitted.
    """
    rows = np.searchsorted(inputs.profiles.voxel_ids, voxel_ids)
    encoders = inputs.encoders.take(rows)
    name = f"{encoders.architecture.kind} (describing)"
    describing = Evaluator(name, encoders, inputs.scores.r2[rows], "test images", mesh)
    if not with_independent:
        return [describing]
    unseen, seen = (
        Split(split.tokens, split.responses.take(rows), split.name) for split in (inputs.unseen, inputs.seen)
    )
    found = [describing]
    for name, other in ((INDEPENDENT, None), *inputs.other_backbones.items()):
        both = (unseen, seen) if other is None else (_read_by(other, inputs, unseen), _read_by(other, inputs, seen))
        judge = independent_evaluator(*both, exclude=exclude, seed=seed, name=name, mesh=mesh, progress=progress)
        if judge is None:
            logger.warning("validation: too few held-out images for an independent evaluator")
            break
        found.append(judge)
    return found


def _read_by(other: Backbone, inputs: Inputs, split: Split) -> Split:
    """Reads the images of a split with another backbone."""
    tokens = read_pictures(
        other,
        lambda image_id: inputs.stimuli.read([image_id])[0],
        split.responses.image_ids.tolist(),
        layer=-1,
        dtype=inputs.reading.dtype,
        batch_size=inputs.reading.batch_size,
    )
    return Split(tokens, split.responses, split.name)


def independent_evaluator(
    unseen: Split,
    seen: Split,
    *,
    exclude: Sequence[str] = (),
    seed: int = 0,
    name: str = INDEPENDENT,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Evaluator | None:
    """Fits ridge encoders on images that the describing encoders did not see.

    Args:
        unseen: tokens [N, P, D] and responses [N, V] of the test images.
        seen: those of the training images, on which these encoders are scored.
        exclude: images of the test itself, left out of the fit.
        seed: of the folds.
        name: for tables.
        mesh: devices of this process, which fit, score and predict; None for one. Never the result.
        progress: called with (done, total).

    Returns:
        The evaluator; None where too few images remain.
    """
    rows = np.flatnonzero(~np.isin(unseen.responses.image_ids, list(exclude)))
    if len(rows) < MIN_IMAGES:
        return None
    held = np.arange(len(rows)) % _FOLDS == 0
    parts = [
        Split(unseen.tokens.take_images(rows[part]), unseen.responses.take_images(rows[part]), unseen.name)
        for part in (~held, held)
    ]
    settings = _settings(unseen.tokens.grid)
    key = jax.random.key(seed)
    encoders = encoder.fit(parts[0], key=key, validation=parts[1], config=settings, mesh=mesh, progress=progress)
    r2 = encoder.score(encoders, seen, mesh=mesh).r2
    return Evaluator(name, encoders, r2, f"{len(seen.responses.image_ids)} training images", mesh)


def read_pictures(
    backbone: Backbone,
    read: Callable[[str], np.ndarray],
    names: Sequence[str],
    *,
    layer: int,
    dtype: str,
    batch_size: int,
    progress: Progress = silent,
) -> ImageTokens:
    """Turns pictures into image-tokens.

    Args:
        backbone: the frozen model of the run.
        read: gives uint8 [h, w, 3] for a name.
        names: N pictures.
        layer: as in the run.
        dtype: as in the run.
        batch_size: pictures encoded at once. Memory only.
        progress: called with (done, N).

    Returns:
        Tokens [N, P, D]; `image_ids` are the names.
    """
    ids = np.array(list(names), dtype=str)
    empty = np.full(len(ids), "", dtype="<U64")
    stimuli = Stimuli(
        ids, lambda wanted: [read(name) for name in wanted], empty, np.zeros(len(ids), bool), "validation"
    )
    return features.extract(backbone, stimuli, layer=layer, dtype=dtype, batch_size=batch_size, progress=progress)


def word_presence(token_words: TokenWords) -> np.ndarray:
    """Computes how clearly each word is read anywhere in each image.

    Args:
        token_words: of N images over C canonical words.

    Returns:
        Presence [N, C] float32: the largest share of the word in any token.
    """
    n_images = len(token_words.image_ids)
    presence = np.zeros((n_images, len(token_words.vocabulary.words) + 1), np.float32)
    shares = token_words.shares if token_words.mask is None else token_words.shares * token_words.mask[..., None]
    rows = np.repeat(np.arange(n_images), token_words.word_ids[0].size)
    np.maximum.at(presence, (rows, token_words.word_ids.reshape(-1)), shares.reshape(-1))
    return presence[:, :-1]


def _settings(grid: tuple[int, int] | None) -> RidgeConfig:
    """Few images carry few features: about two by two windows of the grid, else the mean token."""
    side = 0 if grid is None else math.gcd(*grid)
    pool = max((n for n in range(1, side // 2 + 1) if side % n == 0), default=1)
    few = grid is not None and (grid[0] // pool) * (grid[1] // pool) <= _MAX_CELLS
    if few:
        return RidgeConfig(summary="grid", pool=pool, width=_WIDTH)
    return RidgeConfig(summary="mean", width=_WIDTH)
