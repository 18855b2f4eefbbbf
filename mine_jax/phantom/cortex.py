"""A simulated cortex: a seed enters; voxels with planted preferences and their responses leave.

Category voxels sum what their receptive field sees of every thing, compressed by a power, and
weigh it by a category and by a finer preference (a concept, two, or a colour). V1 voxels see
local luminance contrast and no word. What each voxel wants is known exactly, so a run on its
responses can be scored.

Source: compressive spatial summation, Kay et al. 2013, doi:10.1152/jn.00105.2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mine_jax._progress import Progress, silent
from mine_jax.errors import DataError
from mine_jax.phantom import scenes as scene_module
from mine_jax.phantom.scenes import CATEGORIES, CATEGORY_OF, COLORS, CONCEPTS, Scene

# Area -> (preferred categories, voxels at the default size), in the order in which they tile the sheet.
AREAS: dict[str, tuple[tuple[str, ...], int]] = {
    "V1v": ((), 30),
    "V1d": ((), 30),
    "OFA": (("face",), 45),
    "FFA-1": (("face",), 45),
    "FFA-2": (("face",), 45),
    "EBA": (("body",), 45),
    "VWFA-1": (("word",), 45),
    "food": (("food",), 45),
    "PPA": (("place", "building"), 45),
    "OPA": (("place", "building"), 45),
    "": ((), 95),
}
KINDS = ("concept", "pair", "category", "attribute", "lowlevel", "noise", "constant", "invalid")
# Shares of the fine preferences among the voxels of a category area.
_SHARES = {"concept": 0.55, "pair": 0.20, "category": 0.15, "attribute": 0.10}
_N_CONSTANT, _N_INVALID = 10, 5
# Receptive fields are given in pixels of an image of this size.
_SIZE = 64
_EXPONENT = 0.7  # between 0.2 and 1 in Kay et al. 2013
_REPEATS = 3  # `noise_ceiling` is for the mean of this many
_LUMINANCE = np.array([0.299, 0.587, 0.114]) / 255
_BLOCK = 512


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
        concepts: [V] str, what the fine preference matches, ";"-joined; a colour for "attribute".
        weight_category: [V] float64.
        weight_fine: [V] float64.
        rf_x: [V] float64, centre of the receptive field in pixels of a 64-pixel image, from the left.
        rf_y: [V] float64, from the top.
        rf_sigma: [V] float64, standard deviation of the Gaussian, pixels.
        gain: [V] float64, percent signal change per standard deviation of the signal.
        noise_ceiling: [V] float64, true fraction of variance for the mean of three repeats.
        signal_mean: [V] float64, mean of the raw signal over the images of `calibrate`.
        signal_sd: [V] float64, its standard deviation.
        exponent: power on the coverage of the receptive field.
    """

    shape: tuple[int, int, int]
    sheet: np.ndarray
    voxel_ids: np.ndarray
    area: np.ndarray
    category: np.ndarray
    kind: np.ndarray
    concepts: np.ndarray
    weight_category: np.ndarray
    weight_fine: np.ndarray
    rf_x: np.ndarray
    rf_y: np.ndarray
    rf_sigma: np.ndarray
    gain: np.ndarray
    noise_ceiling: np.ndarray
    signal_mean: np.ndarray
    signal_sd: np.ndarray
    exponent: float = _EXPONENT


def plant(
    seed: int | Sequence[int],
    *,
    shape: tuple[int, int, int] = (24, 24, 18),
    ceiling: float = 0.6,
    exponent: float = _EXPONENT,
) -> Cortex:
    """Plants areas and preferences on a folded sheet.

    Args:
        seed: decides the fold, every preference, receptive field and noise ceiling.
        shape: size of the volume; small ones get fewer voxels per area, in proportion.
        ceiling: about the mean noise ceiling of the voxels, fraction of variance for three repeats.
        exponent: power on the coverage of the receptive field.

    Returns:
        Cortex: about 515 voxels at the default shape, not yet calibrated (mean 0, deviation 1).

    Raises:
        DataError: if the volume is too small for three voxels per area.
    """
    rng = np.random.default_rng(seed)
    sheet = _fold(rng, shape)
    voxel_ids, area = _tile(sheet, shape)
    n = len(voxel_ids)
    kind = np.full(n, "lowlevel", object)
    concepts = np.full(n, "", object)
    for name, (categories, _) in AREAS.items():
        where = np.flatnonzero(area == name)
        if categories:
            kind[where] = rng.permutation(_spread(len(where)))
            pool = [concept for category in categories for concept in CATEGORIES[category]]
            for voxel in where:
                concepts[voxel] = _fine(rng, kind[voxel], pool)
        elif not name:
            kind[where] = rng.permutation(_silent_kinds(len(where)))
    lowlevel, has_fine = kind == "lowlevel", concepts != ""
    has_signal = np.isin(kind.astype(str), KINDS[:5])
    has_category = has_signal & ~lowlevel
    centre = rng.uniform(12, 52, (2, n))
    logit = np.log(ceiling / (1 - ceiling)) + np.clip(rng.normal(0, 0.6, n), -1.5, 1.5)
    return Cortex(
        shape=shape,
        sheet=sheet,
        voxel_ids=voxel_ids,
        area=area.astype(str),
        category=np.array([";".join(AREAS[name][0]) for name in area]),
        kind=kind.astype(str),
        concepts=concepts.astype(str),
        weight_category=np.where(has_category, 0.5 * rng.uniform(0.6, 1.2, n), 0.0),
        weight_fine=np.where(has_fine, rng.uniform(0.8, 1.2, n), 0.0),
        rf_x=centre[0],
        rf_y=centre[1],
        rf_sigma=np.where(lowlevel, rng.uniform(5, 9, n), rng.uniform(14, 28, n)),
        gain=rng.uniform(0.5, 1.5, n),
        noise_ceiling=np.where(has_signal, 1 / (1 + np.exp(-logit)), 0.0),
        signal_mean=np.zeros(n),
        signal_sd=np.ones(n),
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
    by_thing = np.isin(cortex.kind, KINDS[:4])
    by_contrast = cortex.kind == "lowlevel"
    table = _preferences(cortex)[:, by_thing]
    for start in range(0, len(scenes), _BLOCK):
        block = scenes[start : start + _BLOCK]
        size = block[0].size
        fields = _receptive_fields(cortex, size)
        out[start : start + _BLOCK, by_thing] = _thing_signal(block, fields[:, by_thing], table, cortex.exponent)
        if by_contrast.any():
            drawn = [scene_module.render(s) for s in block] if images is None else images[start : start + _BLOCK]
            out[start : start + _BLOCK, by_contrast] = _contrast(np.stack(drawn), fields[:, by_contrast])
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
    columns = {name: getattr(cortex, name) for name in _COLUMNS}
    table = pd.DataFrame({"subject": subject, "voxel_id": cortex.voxel_ids, "i": i, "j": j, "k": k, **columns})
    return table.assign(exponent=cortex.exponent)


def from_table(table: pd.DataFrame, *, shape: tuple[int, int, int]) -> Cortex:
    """Restores the cortex of one subject from its truth rows; unlabelled cortex is not kept."""
    ids = table["voxel_id"].to_numpy(np.int64)
    columns = {name: table[name].fillna("").to_numpy(str) for name in _COLUMNS[:4]}
    columns |= {name: table[name].to_numpy(np.float64) for name in _COLUMNS[4:]}
    return Cortex(shape=shape, sheet=ids, voxel_ids=ids, exponent=float(table["exponent"].iloc[0]), **columns)


_COLUMNS = (
    *("area", "category", "kind", "concepts", "weight_category", "weight_fine", "rf_x", "rf_y", "rf_sigma"),
    *("gain", "noise_ceiling", "signal_mean", "signal_sd"),
)


def _fold(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Positions [C] of the voxels within one voxel of a wavy sheet."""
    x, y, z = np.indices(shape)
    phase = rng.uniform(0, 1, 2)
    # The slope stays below one voxel per voxel, so the sheet has no holes.
    height = min(0.3 * shape[2], 0.13 * min(shape[:2]))
    wave = np.sin(2 * np.pi * (x / shape[0] + phase[0])) * np.cos(2 * np.pi * (0.8 * y / shape[1] + phase[1]))
    return np.flatnonzero(np.abs(z - (shape[2] - 1) / 2 - height * wave) < 1.0).astype(np.int64)


def _tile(sheet: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Gives each area a contiguous patch of the sheet's middle: positions [V] and areas [V]."""
    wanted = {name: count for name, (_, count) in AREAS.items()}
    # At least a fifth of the cortex stays outside, as unlabelled cortex does in a brain.
    share = min(1.0, 0.8 * len(sheet) / sum(wanted.values()))
    counts = {name: int(count * share) for name, count in wanted.items()}
    if min(counts.values()) < 3:
        raise DataError(
            f"`shape` {shape} holds {len(sheet)} cortex voxels, too few for {len(AREAS)} areas of three. "
            "Choose a larger one, for instance 16, 16, 12."
        )
    x, y, _ = np.unravel_index(sheet, shape)
    distance = np.maximum(np.abs(x / (shape[0] - 1) - 0.5), np.abs(y / (shape[1] - 1) - 0.5))
    inside = sheet[np.argsort(distance, kind="stable")[: sum(counts.values())]]
    area = dict(_bisect(np.sort(inside), list(counts.items()), shape))
    voxel_ids = np.sort(inside)
    return voxel_ids, np.array([area[int(voxel)] for voxel in voxel_ids], object)


def _bisect(ids: np.ndarray, counts: list[tuple[str, int]], shape: tuple[int, int, int]) -> list[tuple[int, str]]:
    """Cuts a patch along its longer side until each part is one area."""
    if len(counts) == 1:
        return [(int(voxel), counts[0][0]) for voxel in ids]
    totals = np.cumsum([count for _, count in counts])
    cut = int(np.argmin(np.abs(totals[:-1] - totals[-1] / 2))) + 1
    x, y, z = np.unravel_index(ids, shape)
    order = np.lexsort((z, y, x) if np.ptp(x) >= np.ptp(y) else (z, x, y))
    first, second = ids[order[: totals[cut - 1]]], ids[order[totals[cut - 1] :]]
    return _bisect(first, counts[:cut], shape) + _bisect(second, counts[cut:], shape)


def _spread(n: int) -> np.ndarray:
    """Kinds [n] of fine preference in their shares."""
    edges = np.cumsum(list(_SHARES.values())) * n
    return np.array(list(_SHARES), object)[np.searchsorted(edges, np.arange(n) + 0.5, side="right").clip(0, 3)]


def _silent_kinds(n: int) -> np.ndarray:
    """Kinds [n] of the voxels without a signal."""
    constant, invalid = min(_N_CONSTANT, n // 6), min(_N_INVALID, n // 12 + 1)
    return np.array(["constant"] * constant + ["invalid"] * invalid + ["noise"] * (n - constant - invalid), object)


def _fine(rng: np.random.Generator, kind: str, pool: list[str]) -> str:
    """What a voxel prefers within (or, for a colour, beside) its categories."""
    if kind == "attribute":
        return str(rng.choice(list(COLORS)))
    number = {"concept": 1, "pair": 2, "category": 0}[kind]
    return ";".join(sorted(rng.choice(pool, number, replace=False).tolist()))


def _preferences(cortex: Cortex) -> np.ndarray:
    """Weight [concepts + colours, V] that one fully covered receptive field adds."""
    names = (*CONCEPTS, *COLORS)
    fine = [set(text.split(";")) for text in cortex.concepts]
    categories = [set(text.split(";")) for text in cortex.category]
    matches = np.array([[name in wanted for wanted in fine] for name in names], float)
    kinds = np.array([[CATEGORY_OF.get(name, "?") in wanted for wanted in categories] for name in names], float)
    return (matches * cortex.weight_fine + kinds * cortex.weight_category).astype(np.float32)


def _receptive_fields(cortex: Cortex, size: int) -> np.ndarray:
    """Gaussians [size * size, V], each of sum 1."""
    grid = (np.arange(size) + 0.5) * _SIZE / size
    across = np.exp(-((grid[:, None] - cortex.rf_x) ** 2) / (2 * cortex.rf_sigma**2))
    down = np.exp(-((grid[:, None] - cortex.rf_y) ** 2) / (2 * cortex.rf_sigma**2))
    fields = (down[:, None] * across[None]).reshape(size * size, -1)
    return (fields / fields.sum(0)).astype(np.float32)


def _thing_signal(scenes: Sequence[Scene], fields: np.ndarray, table: np.ndarray, exponent: float) -> np.ndarray:
    """Raw signal [N, V] of category voxels; the place counts as a thing that fills the background."""
    rows, masks, features = [], [], []
    column = {name: index for index, name in enumerate((*CONCEPTS, *COLORS))}
    for row, scene in enumerate(scenes):
        shown = scene_module.thing_masks(scene)
        for thing, mask in zip(scene.things, shown, strict=True):
            rows.append(row)
            masks.append(mask.ravel())
            features.append([column[name] for name in (thing.concept, thing.color) if name])
        if scene.place is not None:
            rows.append(row)
            masks.append(~shown.any(0).ravel())
            features.append([column[scene.place]])
    signal = np.zeros((len(scenes), fields.shape[1]), np.float32)
    if rows:
        weights = np.stack([table[found].sum(0) for found in features])
        coverage = np.stack(masks).astype(np.float32) @ fields
        np.add.at(signal, rows, weights * np.maximum(coverage, 0) ** exponent)
    return signal


def _contrast(images: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Weighted standard deviation [N, V] of luminance (0..1) within receptive fields."""
    luminance = (images @ _LUMINANCE).reshape(len(images), -1)
    fields = fields.astype(np.float64)
    return np.sqrt(np.maximum(luminance**2 @ fields - (luminance @ fields) ** 2, 0))
