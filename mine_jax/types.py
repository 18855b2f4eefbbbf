"""Every dataclass that crosses a stage border, in pipeline order.

Dimension letters, used in every docstring of this package:

    V voxels (encoders)            K critical image-tokens kept
    N images (stimuli)             M vocabulary-tokens per image-token
    P image-tokens per image       W vocabulary size
    D width of an image-token      S integration steps
    E attention width              R repeats of an image in the scanner
    H attention heads              I images attributed per voxel
    L words kept

Image ids are strings everywhere (NSD: the 0-based 73k id written as a decimal number).
Host types are frozen dataclasses; `Encoders` is a pytree, since it enters jit and orbax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import flax.struct
import jax
import numpy as np

from mine_jax.memory.rows import take_rows
from mine_jax.memory.sparse import SparseRows

Array = jax.Array | np.ndarray

# Why a voxel is or is not usable; codes are positions in this tuple.
STATUSES = ("ok", "constant", "nonfinite", "low_ceiling", "diverged", "n_test<2")
# What may be said of a voxel, least first: each claim includes those before it.
CLAIMS = ("none", "predicted", "reliable", "words", "localised", "causal")


class _Shown:
    """Prints shapes, dtypes and bytes instead of values."""

    def __repr__(self) -> str:
        parts, n_bytes = [], 0
        for field in fields(self):  # ty: ignore[invalid-argument-type]
            value = getattr(self, field.name)
            if hasattr(value, "shape") and hasattr(value, "dtype"):
                n_bytes += value.nbytes
                parts.append(f"{field.name}={value.dtype}[{','.join(map(str, value.shape))}]")
            elif isinstance(value, (str, int, float, tuple)) and len(str(value)) < 60:
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)}; {n_bytes / 2**20:.1f} MiB)"


@dataclass(frozen=True, repr=False)
class Volume(_Shown):
    """Space of volumetric data: `shape` (3 ints) and `affine` [4, 4] to millimetres."""

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True, repr=False)
class Responses(_Shown):
    """What the encoder predicts: z-scored betas, averaged over repeats.

    Attributes:
        responses: [N, V] float32, z-scored betas; may be memory-mapped, or rows of such an array that
            are read when they are asked for.
        image_ids: [N] str, row order of `responses`, each id once.
        n_repeats: [N] int, trials averaged in each row.
        voxel_ids: [V] int64, position in the subject's volume (C order) or column number.
        status: [V] str of `STATUSES`; only "ok" voxels are fitted.
        ncsnr: [V] float64, noise-ceiling signal-to-noise ratio; NaN where unknown.
        noise_ceiling: [V] float64, fraction of variance explainable in the test rows; NaN where unknown.
        rois: [V] str, names of the areas that hold the voxel, ";"-joined.
        indices: [V, 3] int, i j k in `volume`; None without geometry.
        volume: space of the voxels; None without geometry.
        subject: name of the subject.
    """

    responses: Any
    image_ids: np.ndarray
    n_repeats: np.ndarray
    voxel_ids: np.ndarray
    status: np.ndarray
    ncsnr: np.ndarray
    noise_ceiling: np.ndarray
    rois: np.ndarray
    indices: np.ndarray | None = None
    volume: Volume | None = None
    subject: str = ""

    def take(self, voxels: np.ndarray) -> Responses:
        """Returns the responses of some voxels (positions or mask [V])."""
        per_voxel = {n: getattr(self, n)[voxels] for n in ("voxel_ids", "status", "ncsnr", "noise_ceiling", "rois")}
        indices = None if self.indices is None else self.indices[voxels]
        return replace(self, responses=self.responses[:, voxels], indices=indices, **per_voxel)

    def take_images(self, rows: np.ndarray) -> Responses:
        """Returns the responses to some images (positions or mask [N]); those in a file stay there."""
        responses = take_rows(self.responses, rows)
        return replace(self, responses=responses, image_ids=self.image_ids[rows], n_repeats=self.n_repeats[rows])


@dataclass(frozen=True, repr=False)
class Stimuli(_Shown):
    """The photos: ids and a reader.

    Attributes:
        image_ids: [N] str.
        read: takes ids, returns one uint8 [height, width, 3] RGB array for each; threads call it at once.
        hashes: [N] str, sha256 of each file or pixel array; "" where not computed.
        shared: [N] bool, True for images that every subject of the data set saw.
        source: where they come from, for messages.
    """

    image_ids: np.ndarray
    read: Callable[[Sequence[str]], list[np.ndarray]]
    hashes: np.ndarray
    shared: np.ndarray
    source: str = ""


@dataclass(frozen=True, repr=False)
class ImageTokens(_Shown):
    """Hidden states of the image-tokens of a frozen model at one layer.

    Attributes:
        tokens: [N, P, D] bfloat16, float16 or float32; may be memory-mapped.
        image_ids: [N] str.
        mask: [N, P] bool, True where a token is real; None when all are.
        grid: rows and columns of the token grid (row-major), or None.
        layer: layer of the model.
        model: name or hash of the model.
    """

    tokens: Any
    image_ids: np.ndarray
    mask: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    layer: int = -1
    model: str = ""

    def take_images(self, rows: np.ndarray) -> ImageTokens:
        """Returns the tokens of some images (positions or mask [N]); those in files stay there."""
        mask = None if self.mask is None else self.mask[rows]
        return replace(self, tokens=take_rows(self.tokens, rows), image_ids=self.image_ids[rows], mask=mask)


@dataclass(frozen=True, repr=False)
class Lens(_Shown):
    """Reads image-tokens as words.

    For one token x [E or D], in float32:

        x' = x @ lift + lift_offset   where tokens were reduced to E dimensions, else x
        n = norm(x')                  "layer": (x' - mean) / sqrt(var + norm_epsilon) * norm_scale + norm_bias,
                                      "rms": x' / sqrt(mean(x'^2) + norm_epsilon) * norm_scale, "none": x'
        y = n @ projection + projection_bias
        y' = y + fc2(activation(fc1(layer_norm(y)))) where there is an `mlp`, else y
        z = f(y')                     f(y) = y / max(|y|, 1e-12) when `normalize`, else y
        scores = scale * (z - center) @ unembedding^T + bias

    `features.lens_scores` is the reference implementation. The centered vector is not scaled
    to unit length again: a token near the corpus mean scores near 0 for every word. For
    CLIP-type models `normalize` is True and the rows of `unembedding` are unit vectors around
    the mean word.

    Attributes:
        words: [W] str.
        unembedding: [W, J] float32.
        bias: [W] float32.
        norm: "none", "layer" or "rms", applied to the token first.
        norm_scale: [D], or None for ones.
        norm_bias: [D], or None for zeros; only for "layer".
        norm_epsilon: added to the variance (mean square for "rms"); also in the norm of `mlp`.
        projection: [D, J], or None for the identity (J = D).
        projection_bias: [J], or None for zeros.
        mlp: residual MLP after the projection, with float32 arrays norm_scale [J], norm_bias [J],
            fc1 [J, H], fc1_bias [H], fc2 [H, J], fc2_bias [J]; None without.
        mlp_activation: its activation, by the name that transformers uses.
        lift: [E, D], takes reduced tokens back to the width of the model; None for full tokens.
        lift_offset: [D], added after it; None for zeros.
        center: [J], mean z over corpus tokens, subtracted after f; None for zeros.
        normalize: whether the projected token is scaled to unit length.
        scale: factor on the scores before the bias (logit scale of the model).
    """

    words: np.ndarray
    unembedding: np.ndarray
    bias: np.ndarray
    norm: str = "none"
    norm_scale: np.ndarray | None = None
    norm_bias: np.ndarray | None = None
    norm_epsilon: float = 1e-5
    projection: np.ndarray | None = None
    projection_bias: np.ndarray | None = None
    mlp: dict[str, np.ndarray] | None = None
    mlp_activation: str = "gelu_pytorch_tanh"
    lift: np.ndarray | None = None
    lift_offset: np.ndarray | None = None
    center: np.ndarray | None = None
    normalize: bool = False
    scale: float = 1.0


@dataclass(frozen=True, repr=False)
class Split(_Shown):
    """Tokens and responses of the same images in the same order (aligned by image id); `name` says which."""

    tokens: ImageTokens
    responses: Responses
    name: str = ""


@dataclass(frozen=True)
class Architecture:
    """What `predict` must know besides the arrays; hashable, so it can be static in jit.

    Attributes:
        kind: "query", "ridge", or "own" for an encoder of yours.
        grid: token grid, or None.
        pool: side of the windows over which tokens are averaged before attention.
        summary: image-level features of "ridge": "mean" token, or "grid" of pooled tokens.
        own: of kind "own": predicts one voxel's response to one image, with the arguments of
            `encoder.predict_one`; differentiable in the tokens. Such encoders cannot be saved.
    """

    kind: str
    grid: tuple[int, int] | None = None
    pool: int = 1
    summary: str = "mean"
    own: Callable[..., Any] | None = None


@flax.struct.dataclass
class Encoders:
    """V fitted encoders.

    Attributes:
        shared: arrays without a voxel axis (fixed projection or shared trunk).
        per_voxel: arrays with leading axis V.
        baseline: [P, D] or [D], mean training token, start of the attribution path.
        voxel_ids: [V] int64.
        status: [V] int8, positions in `STATUSES`.
        architecture: static description of the predictor.
        selection_r2: [V] float32, R2 on the images that chose the epoch (validation) or the penalty
            (held-out folds); NaN where not fitted, None where unknown. No test image has a part in it.
    """

    shared: dict[str, Array]
    per_voxel: dict[str, Array]
    baseline: Array
    voxel_ids: Array
    status: Array
    architecture: Architecture = flax.struct.field(pytree_node=False)
    selection_r2: Array | None = None

    def take(self, voxels: np.ndarray) -> Encoders:
        """Returns the encoders of some voxels (positions or mask [V])."""
        return self.replace(  # ty: ignore[missing-attribute]
            per_voxel={name: value[voxels] for name, value in self.per_voxel.items()},
            voxel_ids=self.voxel_ids[voxels],
            status=self.status[voxels],
            selection_r2=None if self.selection_r2 is None else self.selection_r2[voxels],
        )


@dataclass(frozen=True, repr=False)
class Scores(_Shown):
    """Accuracy on held-out images.

    Attributes:
        voxel_ids: [V] int64.
        r2: [V] float64, coefficient of determination around the test mean; may be negative.
        r: [V] float64, Pearson correlation; NaN where responses or predictions do not vary.
        r2_normalized: [V] float64, r2 / noise_ceiling; NaN where the ceiling is unknown or too low.
        noise_ceiling: [V] float64, fraction of variance.
        n_train: training images (with validation).
        n_test: test images.
        status: [V] str of `STATUSES`.
        r2_selection: [V] float64, R2 on images that chose epoch or penalty, none of them a test image: the
            number that voxels may be chosen by.
    """

    voxel_ids: np.ndarray
    r2: np.ndarray
    r: np.ndarray
    r2_normalized: np.ndarray
    noise_ceiling: np.ndarray
    n_train: int
    n_test: int
    status: np.ndarray
    r2_selection: np.ndarray

    def take(self, voxels: np.ndarray) -> Scores:
        """Returns the scores of some voxels (positions or mask [V])."""
        names = ("voxel_ids", "r2", "r", "r2_normalized", "noise_ceiling", "status", "r2_selection")
        return replace(self, **{name: getattr(self, name)[voxels] for name in names})

    def best(self, n: int, *, min_noise_ceiling: float = 0.0) -> np.ndarray:
        """Returns positions [<= n] of the best predicted voxels, best first."""
        usable = np.isfinite(self.r2) & (self.status == "ok")
        if min_noise_ceiling > 0:
            usable &= np.nan_to_num(self.noise_ceiling) >= min_noise_ceiling
        order = np.argsort(-np.where(usable, self.r2, -np.inf), kind="stable")
        return order[: min(n, int(usable.sum()))]


@dataclass(frozen=True, repr=False)
class Attributions(_Shown):
    """Integrated gradients of V voxels' predictions over the tokens of I images each.

    Attributes:
        voxel_ids: [V] int64.
        image_ids: [V, I] str; every row the same when all images were attributed.
        scores: [V, I, P] float32, in units of predicted response (z-scored beta).
        predicted: [V, I] float32, h(x).
        predicted_baseline: [V, I] float32, h(x').
        completeness_gap: [V, I] float32, h(x) - h(x') - sum of scores; 0 when exact.
    """

    voxel_ids: np.ndarray
    image_ids: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray
    predicted_baseline: np.ndarray
    completeness_gap: np.ndarray

    def take(self, voxels: np.ndarray) -> Attributions:
        """Returns the attributions of some voxels (positions or mask [V])."""
        return _of_voxels(self, voxels)


@dataclass(frozen=True, repr=False)
class CriticalTokens(_Shown):
    """The K image-tokens that drive each (voxel, image) most, best first.

    Attributes:
        voxel_ids: [V] int64.
        image_ids: [V, I] str.
        indices: [V, I, K] int32, positions in 0..P-1; ties go to the lowest position.
        scores: [V, I, K] float32, z-scored beta.
    """

    voxel_ids: np.ndarray
    image_ids: np.ndarray
    indices: np.ndarray
    scores: np.ndarray

    def take(self, voxels: np.ndarray) -> CriticalTokens:
        """Returns the critical tokens of some voxels (positions or mask [V])."""
        return _of_voxels(self, voxels)


@dataclass(frozen=True, repr=False)
class Faithfulness(_Shown):
    """Activation patching: what remains when critical tokens go, or when only they stay.

    Attributes:
        faithfulness: [V, I] float32, area between the sufficiency curves of "ig" and "random" over all numbers of
            tokens: 0 no better than random, 1 best; NaN where h(x) is h(x').
        k_adaptive: [V, I] int32, smallest K whose sufficiency reaches the set level; -1 if none.
        k_values: [C] int32, numbers of tokens patched.
        necessity: order -> [V, I, C] float32, predictions with the first k tokens replaced by the baseline.
        sufficiency: order -> [V, I, C] float32, predictions with only the first k tokens kept.
            Orders: "ig" (highest scores first), "random", "lowest".
    """

    faithfulness: np.ndarray
    k_adaptive: np.ndarray
    k_values: np.ndarray
    necessity: dict[str, np.ndarray]
    sufficiency: dict[str, np.ndarray]

    def take(self, voxels: np.ndarray) -> Faithfulness:
        """Returns the faithfulness of some voxels (positions or mask [V])."""
        return _of_voxels(self, voxels, whole=("k_values",))


@dataclass(frozen=True, repr=False)
class Descriptions(_Shown):
    """Words that describe what drives each voxel in each image, best first.

    Attributes:
        voxel_ids: [V] int64.
        image_ids: [V, I] str.
        words: [W] str, the lens's vocabulary.
        word_ids: [V, I, L] int32, positions in `words`; -1 where fewer than L words remain.
        weights: [V, I, L] float32, share of the critical attribution that the word explains.
        n_tokens: [V, I, L] int32, critical tokens that support the word.
        k: critical tokens of each pair.
    """

    voxel_ids: np.ndarray
    image_ids: np.ndarray
    words: np.ndarray
    word_ids: np.ndarray
    weights: np.ndarray
    n_tokens: np.ndarray
    k: int


@dataclass(frozen=True, repr=False)
class Profiles(_Shown):
    """Functional profile of each voxel: ranked words with uncertainty, or a reason to abstain.

    Attributes:
        voxel_ids: [V] int64.
        words: [W] str.
        word_ids: [V, L] int32, best first; -1 where fewer than L words remain.
        weights: [V, L] float32, mean share over the images used.
        low: [V, L] float32, bootstrap interval over images, lower end.
        high: [V, L] float32, upper end.
        log_odds: [V, L] float32, natural logarithm, against the other voxels.
        distribution: [V, W] float32, the profile as shares of all words, before the baseline; most are 0.
        halves: two of [V, W], the same of encoders refitted on disjoint halves of the training images.
        is_named: [V, L] bool, whether the word's interval lies above its share in the corpus.
        faithfulness: [V] float32, median over the images used.
        n_images: [V] int32, images used.
        reliability: [V] float32, correlation of the two `halves`; NaN where no halves were fitted.
        r_measured: [V] float32, correlation of profile scores with measured held-out responses.
        effects: claim -> [V] float64, what its test measures; NaN where it was not tested.
        p_values: claim -> [V] float64.
        q_values: claim -> [V] float64, Benjamini-Hochberg over all fitted voxels.
        claims: [V] str of `CLAIMS`, the highest that holds.
        reasons: [V] str, why the next one does not.
    """

    voxel_ids: np.ndarray
    words: np.ndarray
    word_ids: np.ndarray
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray
    log_odds: np.ndarray
    distribution: SparseRows
    halves: tuple[SparseRows, SparseRows]
    is_named: np.ndarray
    faithfulness: np.ndarray
    n_images: np.ndarray
    reliability: np.ndarray
    r_measured: np.ndarray
    effects: dict[str, np.ndarray]
    p_values: dict[str, np.ndarray]
    q_values: dict[str, np.ndarray]
    claims: np.ndarray
    reasons: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Whether the claim is at least "words", [V] bool."""
        return reaches(self.claims, "words")


def reaches(claims: np.ndarray, claim: str) -> np.ndarray:
    """Says which claims [V] are at least a given one of `CLAIMS`."""
    enough = CLAIMS[CLAIMS.index(claim) :]
    return np.isin(claims, enough)


def _of_voxels(value: Any, voxels: np.ndarray, *, whole: tuple[str, ...] = ()) -> Any:
    """Takes voxels of every array of a dataclass, and of the arrays in its dictionaries, but those named."""
    taken: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, dict):
            taken[field.name] = {name: array[voxels] for name, array in item.items()}
        elif field.name not in whole:
            taken[field.name] = item[voxels]
    return replace(value, **taken)
