"""A simulated cortex: a seed enters; voxels with planted preferences and their responses leave.

Voxels of category areas sum what their receptive field sees of every thing, compressed by a power, and
weigh it by a category and by a finer preference: a concept, two, a place, a colour, two categories at once,
or a category that lowers the response. Others see pixels only, prefer what their place on the sheet says, or
hold noise. What each voxel wants is known exactly, so a run on its responses can be scored.

Source: compressive spatial summation, Kay et al. 2013, doi:10.1152/jn.00105.2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mine_jax._progress import Progress, silent
from mine_jax.phantom import areas as area_module
from mine_jax.phantom import scenes as scene_module
from mine_jax.phantom import signals
from mine_jax.phantom.areas import AREAS
from mine_jax.phantom.scenes import CATEGORIES, CATEGORY_OF, COLORS, PLACES, Scene

# Kinds that respond to things and places; then those that do not.
THING_KINDS = ("concept", "pair", "category", "attribute", "place", "conjunction", "suppressed", "smooth")
KINDS = (*THING_KINDS, "lowlevel", "noise", "constant", "invalid")
_N_CONSTANT, _N_INVALID = 10, 5
_EXPONENT = 0.7  # between 0.2 and 1 in Kay et al. 2013
_REPEATS = 3  # `noise_ceiling` is for the mean of this many
_BLOCK = 512
# Smoothness of the preferences of the control areas, voxels; how much joint presence counts beyond one thing.
_SMOOTH_SIGMA, _JOINT = 2.5, 3.0
# A place fills the background, a thing a few per cent of the image: their responses vary about alike so.
_SMOOTH_SCALE = np.where(np.array(list(CATEGORIES)) == "place", 0.2, 0.6)
# What a conjunction asks for beside the area's own category, and what lowers a response.
_OTHER_CATEGORIES = ("animal", "vehicle", "tool")


@dataclass(frozen=True)
class Cortex:
    """Planted truth of V voxels.

    Attributes:
        shape: size of the volume.
        sheet: [C] int64, positions (C order) of all cortex, labelled or not.
        voxel_ids: [V] int64, positions of the planted voxels, ascending.
        area: [V] str, a key of `AREAS`.
        category: [V] str, preferred categories, ";"-joined.
        kind: [V] str of `KINDS`.
        concepts: [V] str, what the fine preference matches, ";"-joined: concepts, a colour for "attribute",
            categories for "conjunction" (both at once) and "suppressed" (lowers the response).
        feature: [V] str of `signals.FEATURES` for "lowlevel", else "".
        patch: [V] int, contiguous patch of fine preferences within the area; -1 where there are none.
        tuning: [V] float64, what a low-level feature is tuned to, see `signals.low_level`.
        weight_category: [V] float64.
        weight_fine: [V] float64.
        rf_x: [V] float64, centre of the receptive field in pixels of a 64-pixel image, from the left.
        rf_y: [V] float64, from the top.
        rf_sigma: [V] float64, standard deviation of the Gaussian, pixels.
        gain: [V] float64, percent signal change per standard deviation of the signal.
        noise_ceiling: [V] float64, true fraction of variance for the mean of three repeats.
        signal_mean: [V] float64, mean of the raw signal over the images of `calibrate`.
        signal_sd: [V] float64, its standard deviation.
        smooth: [V, categories] float64, weights of "smooth" voxels, which vary smoothly over the sheet.
        exponent: power on the coverage of the receptive field.
    """

    shape: tuple[int, int, int]
    sheet: np.ndarray
    voxel_ids: np.ndarray
    area: np.ndarray
    category: np.ndarray
    kind: np.ndarray
    concepts: np.ndarray
    feature: np.ndarray
    patch: np.ndarray
    tuning: np.ndarray
    weight_category: np.ndarray
    weight_fine: np.ndarray
    rf_x: np.ndarray
    rf_y: np.ndarray
    rf_sigma: np.ndarray
    gain: np.ndarray
    noise_ceiling: np.ndarray
    signal_mean: np.ndarray
    signal_sd: np.ndarray
    smooth: np.ndarray
    exponent: float = _EXPONENT


def plant(
    seed: int | Sequence[int],
    *,
    shape: tuple[int, int, int] = (24, 24, 18),
    ceiling: float | Sequence[float] = 0.6,
    exponent: float = _EXPONENT,
) -> Cortex:
    """Plants areas and preferences on a folded sheet.

    Args:
        seed: decides the fold, every preference, receptive field and noise ceiling.
        shape: size of the volume; small ones get fewer voxels per area, in proportion.
        ceiling: about the mean noise ceiling of the voxels, fraction of variance for three repeats; or the two
            ends between which they are spread evenly.
        exponent: power on the coverage of the receptive field.

    Returns:
        Cortex: about 575 voxels at the default shape, not yet calibrated (mean 0, deviation 1).

    Raises:
        DataError: if the volume is too small for three voxels per area.
    """
    rng = np.random.default_rng(seed)
    sheet = area_module.fold(rng, shape)
    voxel_ids, area = area_module.tile(sheet, shape)
    n = len(voxel_ids)
    kind, concepts = np.full(n, "noise", object), np.full(n, "", object)
    feature, patch, tuning = np.full(n, "", object), np.full(n, -1), np.zeros(n)
    for name, planted in AREAS.items():
        where = np.flatnonzero(area == name)
        kinds = _spread(planted.kinds, len(where)) if planted.kinds else _silent_kinds(len(where))
        kind[where] = rng.permutation(kinds)
        if planted.n_patches:
            patch[where] = area_module.patches(voxel_ids[where], planted.n_patches, shape)
        liked = _liked(rng, planted)
        for voxel in where:
            concepts[voxel] = _fine(rng, kind[voxel], planted.categories, liked[patch[voxel]])
            feature[voxel], tuning[voxel] = _low_level(rng) if kind[voxel] == "lowlevel" else ("", 0.0)
    lowlevel, has_fine = kind == "lowlevel", concepts != ""
    has_signal = np.isin(kind.astype(str), (*THING_KINDS, "lowlevel"))
    has_category = has_signal & ~lowlevel & (kind != "smooth")
    centre = rng.uniform(12, 52, (2, n))
    ceilings = _ceilings(rng, ceiling, n)
    return Cortex(
        shape=shape,
        sheet=sheet,
        voxel_ids=voxel_ids,
        area=area.astype(str),
        category=np.array([";".join(AREAS[name].categories) for name in area]),
        kind=kind.astype(str),
        concepts=concepts.astype(str),
        feature=feature.astype(str),
        patch=patch,
        tuning=tuning,
        weight_category=np.where(has_category, 0.5 * rng.uniform(0.6, 1.2, n), 0.0),
        weight_fine=np.where(has_fine, rng.uniform(0.8, 1.2, n), 0.0),
        rf_x=centre[0],
        rf_y=centre[1],
        rf_sigma=np.where(lowlevel, rng.uniform(5, 9, n), rng.uniform(14, 28, n)),
        gain=rng.uniform(0.5, 1.5, n),
        noise_ceiling=np.where(has_signal, ceilings, 0.0),
        signal_mean=np.zeros(n),
        signal_sd=np.ones(n),
        smooth=np.where((kind == "smooth")[:, None], _smooth_weights(rng, sheet, voxel_ids, shape), 0.0),
        exponent=exponent,
    )


def calibrate(cortex: Cortex, raw: np.ndarray) -> Cortex:
    """Returns the cortex with the mean and deviation of a raw signal [N, V], for `true_response`."""
    sd = raw.std(0, dtype=np.float64)
    return replace(cortex, signal_mean=raw.mean(0, dtype=np.float64), signal_sd=np.where(sd > 0, sd, 1.0))


def true_response(
    cortex: Cortex, scenes: Sequence[Scene], images: Sequence[np.ndarray] | None = None, *, progress: Progress = silent
) -> np.ndarray:
    """Computes the noise-free responses to scenes, also to edited ones.

    Args:
        cortex: V voxels, calibrated or not.
        scenes: N scenes of one size.
        images: their N renderings, uint8 [size, size, 3]; rendered here where not given.
        progress: called after each block of scenes.

    Returns:
        np.ndarray: float32 [N, V], in standard deviations of the calibration images.
    """
    out = np.zeros((len(scenes), len(cortex.voxel_ids)), np.float32)
    by_thing, by_pixel = np.isin(cortex.kind, THING_KINDS), cortex.kind == "lowlevel"
    for start in range(0, len(scenes), _BLOCK):
        block = scenes[start : start + _BLOCK]
        size = block[0].size
        fields = signals.receptive_fields(cortex.rf_x, cortex.rf_y, cortex.rf_sigma, size)
        out[start : start + _BLOCK, by_thing] = _thing_signal(cortex, by_thing, block, fields[:, by_thing])
        if by_pixel.any():
            drawn = [scene_module.render(s) for s in block] if images is None else images[start : start + _BLOCK]
            out[start : start + _BLOCK, by_pixel] = signals.low_level(
                np.stack(drawn), fields[:, by_pixel], cortex.feature[by_pixel], cortex.tuning[by_pixel]
            )
        progress(min(start + _BLOCK, len(scenes)), len(scenes))
    return ((out - cortex.signal_mean) / cortex.signal_sd).astype(np.float32)


def simulate_trials(
    cortex: Cortex, responses: np.ndarray, *, rows: np.ndarray, sessions: np.ndarray, seed: int | Sequence[int]
) -> np.ndarray:
    """Adds trial noise, session offset and session gain to noise-free responses.

    Single-trial noise has variance 3 (1 - ceiling) / ceiling in units of the signal's variance.

    Args:
        cortex: V voxels.
        responses: [N, V], standardised.
        rows: [T] int, row of `responses` shown in each trial.
        sessions: [T] int, session of each trial.
        seed: decides noise and drift.

    Returns:
        np.ndarray: betas [T, V] float32, percent signal change; NaN for "invalid" voxels.
    """
    rng = np.random.default_rng(seed)
    n = len(cortex.voxel_ids)
    ceiling = cortex.noise_ceiling
    has_signal = ceiling > 0
    safe = np.where(has_signal, ceiling, 0.5)
    noise_sd = np.where(has_signal, np.sqrt(_REPEATS * (1 - safe) / safe), 1.0)
    level = rng.normal(1.0, 0.5, n)
    betas = responses[rows] + noise_sd * rng.standard_normal((len(rows), n), np.float32)
    for session in np.unique(sessions):
        drift = rng.normal(1.0, 0.08) * rng.normal(1.0, 0.03, n)
        offset = level + rng.normal(0, 0.2) + rng.normal(0, 0.15, n)
        here = sessions == session
        betas[here] = betas[here] * (cortex.gain * drift) + offset
    betas[:, cortex.kind == "constant"] = 2.0
    betas[:, cortex.kind == "invalid"] = np.nan
    return betas.astype(np.float32)


def to_table(cortex: Cortex, *, subject: str) -> pd.DataFrame:
    """Returns one row of planted truth per voxel, as `phantom_truth.tsv` holds them."""
    i, j, k = np.unravel_index(cortex.voxel_ids, cortex.shape)
    columns = {name: getattr(cortex, name) for name in (*_TEXTS, "patch", *_NUMBERS)}
    table = pd.DataFrame({"subject": subject, "voxel_id": cortex.voxel_ids, "i": i, "j": j, "k": k, **columns})
    return table.assign(exponent=cortex.exponent, **dict(zip(_SMOOTH, cortex.smooth.T, strict=True)))


def from_table(table: pd.DataFrame, *, shape: tuple[int, int, int]) -> Cortex:
    """Restores the cortex of one subject from its truth rows; unlabelled cortex is not kept."""
    ids = table["voxel_id"].to_numpy(np.int64)
    columns = {name: table[name].fillna("").to_numpy(str) for name in _TEXTS}
    columns |= {name: table[name].to_numpy(np.float64) for name in _NUMBERS}
    columns |= {"patch": table["patch"].to_numpy(np.int64), "smooth": table[list(_SMOOTH)].to_numpy(np.float64)}
    return Cortex(shape=shape, sheet=ids, voxel_ids=ids, exponent=float(table["exponent"].iloc[0]), **columns)


def smooth_preferences(table: pd.DataFrame) -> np.ndarray:
    """Says which category each voxel of truth rows prefers by its place on the sheet, [V] str; "" for none."""
    weights = table[list(_SMOOTH)].to_numpy(np.float64) / _SMOOTH_SCALE
    return np.where(weights.max(1) > 0, np.array(list(CATEGORIES))[weights.argmax(1)], "")


_TEXTS = ("area", "category", "kind", "concepts", "feature")
_NUMBERS = (
    *("tuning", "weight_category", "weight_fine", "rf_x", "rf_y", "rf_sigma"),
    *("gain", "noise_ceiling", "signal_mean", "signal_sd"),
)
_SMOOTH = tuple(f"smooth_{category}" for category in CATEGORIES)


def _ceilings(rng: np.random.Generator, ceiling: float | Sequence[float], n: int) -> np.ndarray:
    if not isinstance(ceiling, (int, float)):
        return rng.uniform(*ceiling, n)
    logit = np.log(ceiling / (1 - ceiling)) + np.clip(rng.normal(0, 0.6, n), -1.5, 1.5)
    return 1 / (1 + np.exp(-logit))


def _spread(shares: dict[str, float], n: int) -> np.ndarray:
    """Kinds [n] in their shares."""
    edges = np.cumsum(list(shares.values())) * n
    positions = np.searchsorted(edges, np.arange(n) + 0.5, side="right")
    return np.array(list(shares), object)[positions.clip(0, len(shares) - 1)]


def _silent_kinds(n: int) -> np.ndarray:
    """Kinds [n] of the voxels without a signal."""
    constant, invalid = min(_N_CONSTANT, n // 6), min(_N_INVALID, n // 12 + 1)
    return np.array(["constant"] * constant + ["invalid"] * invalid + ["noise"] * (n - constant - invalid), object)


def _liked(rng: np.random.Generator, area: area_module.Area) -> dict[int, list[str]]:
    """Concepts that the voxels of each patch choose from: one in a patch, all of the categories elsewhere."""
    pool = [concept for category in area.categories for concept in CATEGORIES[category]]
    liked = {-1: pool}
    if area.n_patches:
        chosen = rng.choice(pool, area.n_patches, replace=False).tolist()
        liked |= {patch: [concept] for patch, concept in enumerate(chosen)}
    return liked


def _fine(rng: np.random.Generator, kind: str, categories: tuple[str, ...], liked: list[str]) -> str:
    """What a voxel prefers within its categories, or beside them."""
    if kind == "attribute":
        return str(rng.choice(list(COLORS)))
    if kind == "place":
        return str(rng.choice(list(PLACES)))
    if kind in ("conjunction", "suppressed"):
        other = str(rng.choice(list(_OTHER_CATEGORIES)))
        return f"{categories[-1]};{other}" if kind == "conjunction" else other
    if kind not in ("concept", "pair"):
        return ""
    pool = [concept for category in categories for concept in CATEGORIES[category]]
    first = str(rng.choice([concept for concept in liked if kind == "pair" or concept not in PLACES]))
    if kind == "concept":
        return first
    return ";".join(sorted((first, str(rng.choice([concept for concept in pool if concept != first])))))


def _low_level(rng: np.random.Generator) -> tuple[str, float]:
    """A feature, and what it is tuned to."""
    feature = str(rng.choice(list(signals.FEATURES)))
    tunings = {
        "contrast": (0.0,),
        "orientation": signals.ANGLES,
        "frequency": signals.FREQUENCIES,
        "color": signals.COLOR_AXES,
    }
    return feature, float(rng.choice(tunings[feature]))


def _smooth_weights(
    rng: np.random.Generator, sheet: np.ndarray, voxel_ids: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Weights [V, categories] at least 0 that vary smoothly over the volume, whatever the areas are."""
    from scipy.ndimage import gaussian_filter

    weights = []
    for _ in CATEGORIES:
        smooth = gaussian_filter(rng.standard_normal(shape), _SMOOTH_SIGMA).ravel()
        weights.append(np.maximum((smooth[voxel_ids] - smooth[sheet].mean()) / smooth[sheet].std(), 0))
    return _SMOOTH_SCALE * np.stack(weights, 1)


def _thing_signal(cortex: Cortex, voxels: np.ndarray, scenes: Sequence[Scene], fields: np.ndarray) -> np.ndarray:
    """Raw signal [N, v] of voxels that respond to things; a place counts as a thing that fills the background."""
    rows, is_named, covered = signals.coverages(scenes, fields, cortex.exponent)
    kind, n = cortex.kind[voxels], len(scenes)
    by_category = np.array([[CATEGORY_OF.get(name) == category for name in signals.NAMES] for category in CATEGORIES])
    sign = np.where(kind == "conjunction", 0.0, np.where(kind == "suppressed", -1.0, 1.0))
    weights = signals.matches(cortex.concepts[voxels]) * (sign * cortex.weight_fine[voxels])[:, None]
    weights = weights + signals.matches(cortex.category[voxels]) * cortex.weight_category[voxels, None]
    weights = (weights + cortex.smooth[voxels] @ by_category).astype(np.float32)
    signal = signals.summed(n, rows, covered * (is_named.astype(np.float32) @ weights.T))
    joint = np.flatnonzero(kind == "conjunction")
    if len(joint):
        words = [text.split(";") for text in cortex.concepts[voxels][joint]]
        first, second = (
            signals.summed(n, rows, covered[:, joint] * (is_named @ signals.matches([pair[i] for pair in words]).T))
            for i in (0, 1)
        )
        signal[:, joint] += (_JOINT * cortex.weight_fine[voxels][joint] * np.minimum(first, second)).astype(np.float32)
    return signal
