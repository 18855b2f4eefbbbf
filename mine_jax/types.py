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

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import numpy as np

from mine_jax._checks import check_shape, check_type
from mine_jax.errors import AlignmentError, DataError
from mine_jax.memory.rows import take_rows
from mine_jax.memory.sparse import SparseRows

if TYPE_CHECKING:
    import pandas as pd

Array = jax.Array | np.ndarray

# Why a voxel is or is not usable; codes are positions in this tuple.
STATUSES = ("ok", "constant", "nonfinite", "low_ceiling", "diverged", "n_test<2")
# What may be said of a voxel, least first: each claim includes those before it.
CLAIMS = ("none", "predicted", "reliable", "words", "localised", "causal")
# Shifts between rows of responses and their images at which both are compared.
LAGS = (-2, -1, 0, 1, 2)
# Radius of spheres of the cortex, and the unit of length on them, millimetres. Distances on fsaverage's sphere are
# about 1.5 times those along its white surface: 2 mm are 1.3 mm of cortex, less than a voxel of usual data.
SPHERE_RADIUS, _SPHERE_UNIT = 100.0, 2.0


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


class _Convertible(_Shown):
    """Of V voxels; may be had in the forms of other software."""

    def to_pandas(self) -> pd.DataFrame:
        """Returns a table: a row for each voxel, of responses for each image."""
        from mine_jax.convert import frames

        return frames.frame(self)

    def to_xarray(self) -> Any:
        """Returns labelled arrays with Brain-Score's names: `presentation`, `neuroid`, `stimulus_id`, `neuroid_id`."""
        from mine_jax.convert import labelled

        return labelled.labelled(self)

    def to_nifti(self, path: str | Path, name: str, *, like: Any = None) -> Path:
        """Writes a field [V] as a volume, NaN outside the voxels, and returns the path.

        Args:
            path: ends in .nii or .nii.gz.
            name: of the field, such as "r2"; claims become 0 (none) to 5 (causal).
            like: responses that know the voxels' places, or a NIfTI image or its path, of whose voxels the ids
                are positions in C order; responses may leave it out.
        """
        from mine_jax.convert import volumes

        return volumes.write_field(self, name, path, self if like is None else like)


def _matrix(name: str, values: Any, axes: str) -> Any:
    """Returns real numbers as NumPy sees them, memory-mapped ones as they are; of torch and jax too."""
    is_array = hasattr(values, "shape") and hasattr(values, "dtype")
    if not is_array or hasattr(values, "numpy") or isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except (TypeError, ValueError, RuntimeError) as error:
            # rows of several lengths; what torch says of gradients, devices and types that NumPy has not
            raise DataError(f"`{name}` cannot be read as an array: {error}") from None
    check_shape(name, values, axes)
    kind = np.dtype(values.dtype)
    if not (kind.kind in "biu" or jax.numpy.issubdtype(kind, jax.numpy.floating)):
        raise DataError(f"`{name}` must be real numbers, but are of type {kind}.")
    return values


def _listed(name: str, values: Any, default: np.ndarray, length: int) -> np.ndarray:
    listed = default if values is None else np.asarray(values)
    if listed.shape != (length,):
        raise DataError(f"`{name}` must have {length} entries, but has shape {listed.shape}.")
    return listed


def _check_unique(name: str, values: np.ndarray) -> None:
    found, counts = np.unique(values, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"`{name}` must name each once, but {found[counts > 1][0]} is there {counts.max()} times.")


@dataclass(frozen=True, repr=False)
class Volume(_Shown):
    """Space of volumetric data: `shape` (3 ints) and `affine` [4, 4] to millimetres."""

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True, repr=False)
class Surface(_Shown):
    """Space of surface data: its `name`, and `n_vertices` of the left and the right hemisphere.

    Voxel ids are the vertices of the left hemisphere, then those of the right.
    """

    name: str
    n_vertices: tuple[int, int]

    def places(self, voxel_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the hemisphere ("lh" or "rh") and the vertex of each voxel [V]."""
        is_left = np.asarray(voxel_ids) < self.n_vertices[0]
        return np.where(is_left, "lh", "rh"), np.where(is_left, voxel_ids, voxel_ids - self.n_vertices[0])


@dataclass(frozen=True, repr=False)
class Places(_Shown):
    """Where voxels lie, for questions about neighbours.

    Attributes:
        at: [V, 3] positions, in units of about the distance of neighbouring voxels.
        part: [V] int; voxels of different parts, such as hemispheres, are never neighbours, wherever they lie.
        is_resampled: whether data were brought to these places from others, so that neighbours share noise.
    """

    at: np.ndarray
    part: np.ndarray
    is_resampled: bool = False

    @classmethod
    def of_voxels(cls, indices: np.ndarray) -> Places:
        """Returns the places of voxels of a volume, from i j k [V, 3]; they are taken to be cubes, of side 1."""
        return cls(np.asarray(indices), np.zeros(len(indices), np.int8))

    @classmethod
    def of_vertices(cls, sphere: np.ndarray, surface: Surface, voxel_ids: np.ndarray) -> Places:
        """Returns the places of vertices of a surface.

        Args:
            sphere: [V, 3] positions on the spheres of the hemispheres, of radius 100 mm.
            surface: of the vertices.
            voxel_ids: [V] int64.

        Returns:
            Places, in units of 2 mm on the sphere or, on coarser surfaces, of the distance of neighbouring vertices.
        """
        # vertices of equal distance are the centres of hexagons
        spacing = SPHERE_RADIUS * np.sqrt(8 * np.pi / (np.sqrt(3) * max(surface.n_vertices)))
        is_right = surface.places(voxel_ids)[0] == "rh"
        return cls(np.asarray(sphere, np.float64) / max(_SPHERE_UNIT, spacing), is_right.astype(np.int8), True)

    def take(self, voxels: np.ndarray) -> Places:
        """Returns the places of some voxels (positions or mask [V])."""
        return replace(self, at=self.at[voxels], part=self.part[voxels])


@dataclass(frozen=True, repr=False)
class Responses(_Convertible):
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
        surface: space of vertices, where voxels are vertices.
        moved: [len(LAGS), N, v] float32, responses of some voxels as they would be if each row of the files (trial
            or average) belonged to the image of the row so many further on; None where unknown.
        sphere: [V, 3] float32, positions of vertices on the spheres of their hemispheres, of radius 100 mm; None
            where unknown.
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
    surface: Surface | None = None
    moved: Any = None
    sphere: np.ndarray | None = None

    @property
    def places(self) -> Places | None:
        """Where the voxels lie: in the volume, or on the sphere of a surface; None where neither is known."""
        if self.sphere is not None and self.surface is not None:
            return Places.of_vertices(self.sphere, self.surface, self.voxel_ids)
        return None if self.indices is None else Places.of_voxels(self.indices)

    @classmethod
    def from_array(
        cls,
        responses: Any,
        *,
        image_ids: Sequence[str] | np.ndarray | None = None,
        voxel_ids: Sequence[int] | np.ndarray | None = None,
        rois: Sequence[str] | np.ndarray | None = None,
        noise_ceiling: Sequence[float] | np.ndarray | None = None,
        n_repeats: Sequence[int] | np.ndarray | None = None,
        subject: str = "",
    ) -> Responses:
        """Makes responses from a matrix alone.

        Args:
            responses: [N, V], one row for each image; z-scored by whoever made them.
            image_ids: [N]; "0", "1", ... where None.
            voxel_ids: [V]; column numbers where None.
            rois: [V] names of areas, ";"-joined; none where None.
            noise_ceiling: [V] explainable share of the variance of a row; unknown where None.
            n_repeats: [N] trials averaged in each row; 1 where None.
            subject: name of the subject.

        Returns:
            The responses; all voxels count as "ok" until they are fitted.

        Raises:
            DataError: if a list has another length than its axis, or ids are not unique.
        """
        responses = _matrix("responses", responses, "N V")
        n_images, n_voxels = responses.shape
        ids = _listed("image_ids", image_ids, np.arange(n_images), n_images).astype(str)
        numbers = _listed("voxel_ids", voxel_ids, np.arange(n_voxels), n_voxels).astype(np.int64)
        _check_unique("image_ids", ids)
        _check_unique("voxel_ids", numbers)
        unknown = np.full(n_voxels, np.nan)
        return cls(
            responses=responses,
            image_ids=ids,
            n_repeats=_listed("n_repeats", n_repeats, np.ones(n_images, int), n_images).astype(int),
            voxel_ids=numbers,
            status=np.full(n_voxels, "ok"),
            ncsnr=unknown,
            noise_ceiling=_listed("noise_ceiling", noise_ceiling, unknown, n_voxels).astype(np.float64),
            rois=_listed("rois", rois, np.full(n_voxels, ""), n_voxels).astype(str),
            subject=subject,
        )

    def take(self, voxels: np.ndarray) -> Responses:
        """Returns the responses of some voxels (positions or mask [V])."""
        per_voxel = {n: getattr(self, n)[voxels] for n in ("voxel_ids", "status", "ncsnr", "noise_ceiling", "rois")}
        places = {n: getattr(self, n)[voxels] for n in ("indices", "sphere") if getattr(self, n) is not None}
        return replace(self, responses=self.responses[:, voxels], **per_voxel, **places)

    def take_images(self, rows: np.ndarray) -> Responses:
        """Returns the responses to some images (positions or mask [N]); those in a file stay there."""
        responses, moved = take_rows(self.responses, rows), None if self.moved is None else self.moved[:, rows]
        ids, n_repeats = self.image_ids[rows], self.n_repeats[rows]
        return replace(self, responses=responses, image_ids=ids, n_repeats=n_repeats, moved=moved)


@dataclass(frozen=True, repr=False)
class Stimuli(_Shown):
    """The photos: ids and a reader.

    Attributes:
        image_ids: [N] str.
        read: takes ids, returns one uint8 [height, width, 3] RGB array for each; threads call it at once.
        hashes: [N] str, sha256 of each file or pixel array; "" where not computed.
        shared: [N] bool, True for images that every subject of the data set saw.
        source: where they come from, for messages.
        name: takes ids [T] of another list and its name, returns the image ids that they mean; None where they
            are image ids as they are. With `index_base` and `key` it takes the base of that list and where it is set.
        parts: named parts of the images that the data set itself defines -> their ids, such as test sets.
    """

    image_ids: np.ndarray
    read: Callable[[Sequence[str]], list[np.ndarray]]
    hashes: np.ndarray
    shared: np.ndarray
    source: str = ""
    name: Callable[..., np.ndarray] | None = None
    parts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


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

    @classmethod
    def from_array(
        cls,
        tokens: Any,
        *,
        image_ids: Sequence[str] | np.ndarray | None = None,
        grid: tuple[int, int] | None = None,
        mask: np.ndarray | None = None,
        model: str = "",
    ) -> ImageTokens:
        """Makes image-tokens from an array alone.

        Args:
            tokens: [N, P, D], or [N, F] for one vector per image.
            image_ids: [N]; "0", "1", ... where None.
            grid: rows and columns that the P tokens lie on, row by row; None where there is none.
            mask: [N, P] bool, True where a token is real; None when all are.
            model: name of the model, for the record.

        Returns:
            The tokens [N, P, D], of which one vector per image is the only one.

        Raises:
            DataError: if a shape does not fit, or ids are not unique.
        """
        if len(np.shape(tokens)) == 2:
            tokens = _matrix("tokens", tokens, "N F")[:, None]
        tokens = _matrix("tokens", tokens, "N P D")
        n_images, n_tokens, _ = tokens.shape
        ids = _listed("image_ids", image_ids, np.arange(n_images), n_images).astype(str)
        _check_unique("image_ids", ids)
        if grid is not None and (np.shape(grid) != (2,) or grid[0] * grid[1] != n_tokens):
            raise DataError(f"`grid` must be (rows, columns) of the {n_tokens} tokens of an image, but is {grid!r}.")
        if mask is not None:
            check_shape("mask", np.asarray(mask), "N P", N=n_images, P=n_tokens)
            mask = np.asarray(mask, bool)
        return cls(tokens, ids, mask, None if grid is None else (int(grid[0]), int(grid[1])), model=model)

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

    def __post_init__(self) -> None:
        """Checks types, and that row n of both is the same image."""
        remedy = "Of an array, make it with {}.from_array."
        check_type("tokens", self.tokens, ImageTokens, remedy=remedy.format("ImageTokens"))
        check_type("responses", self.responses, Responses, remedy=remedy.format("Responses"))
        tokens, responses = (np.asarray(ids) for ids in (self.tokens.image_ids, self.responses.image_ids))
        if len(tokens) != len(responses):
            raise AlignmentError(f"a split has tokens of {len(tokens)} images, but responses to {len(responses)}.")
        other = np.flatnonzero(tokens != responses)
        if len(other):
            raise AlignmentError(
                f"{len(other)} of {len(tokens)} images of a split have another place in the tokens than in the "
                f"responses: row {other[0]} is {tokens[other[0]]} there and {responses[other[0]]} here. "
                "`mine_jax.data.align` puts them in one order."
            )


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

    def __repr__(self) -> str:
        """Says kind and shapes, not numbers."""
        shapes = (f"{name}{list(np.shape(value))}" for name, value in self.per_voxel.items())
        return f"Encoders({self.architecture.kind}, {len(self.voxel_ids)} voxels: {', '.join(shapes)})"

    def take(self, voxels: np.ndarray) -> Encoders:
        """Returns the encoders of some voxels (positions or mask [V])."""
        return self.replace(  # ty: ignore[missing-attribute]
            per_voxel={name: value[voxels] for name, value in self.per_voxel.items()},
            voxel_ids=self.voxel_ids[voxels],
            status=self.status[voxels],
            selection_r2=None if self.selection_r2 is None else self.selection_r2[voxels],
        )


@dataclass(frozen=True, repr=False)
class Scores(_Convertible):
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

    def take(self, voxels: np.ndarray | slice) -> Attributions:
        """Returns the attributions of some voxels (positions, mask [V] or slice)."""
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

    def take(self, voxels: np.ndarray | slice) -> CriticalTokens:
        """Returns the critical tokens of some voxels (positions, mask [V] or slice)."""
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

    def take(self, voxels: np.ndarray | slice) -> Faithfulness:
        """Returns the faithfulness of some voxels (positions, mask [V] or slice)."""
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
class Profiles(_Convertible):
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


def _of_voxels(value: Any, voxels: np.ndarray | slice, *, whole: tuple[str, ...] = ()) -> Any:
    """Takes voxels of every array of a dataclass, and of the arrays in its dictionaries, but those named."""
    taken: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, dict):
            taken[field.name] = {name: array[voxels] for name, array in item.items()}
        elif field.name not in whole:
            taken[field.name] = item[voxels]
    return replace(value, **taken)
