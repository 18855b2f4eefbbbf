"""Decoys: voxels whose responses were exchanged between images, fitted like all others.

What is chosen anywhere between the fit and a claim (an epoch, a penalty, images, image-tokens, words) is
chosen for decoys in the same way, so their results are the null of the whole pipeline. Within a split some
voxels after the others follow one exchange: the more exchanges, the less one unlucky one decides, and where
responses are in a file the rows of neighbours are read together. Images change places with images of as many
repeats, so that the noise of a row stays what it is.

Source: target-decoy competition, Elias & Gygi 2007, doi:10.1038/nmeth1019, for whole voxels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mine_jax.errors import ConfigError
from mine_jax.memory.rows import ChosenRows, SideBySide
from mine_jax.types import Encoders, Split

# Voxel ids from here on are those of decoys: the copy, then the voxel that gave the responses.
FIRST_ID = 1 << 30
_COPY = 1 << 26
MAX_COPIES = 15
# With fewer decoys than this a small p cannot be told from a large one.
MIN_DECOYS = 100
# Exchanges of one copy at most.
_MAX_EXCHANGES = 64
# Images with the same number of repeats that change places among each other; fewer join their neighbours.
_MIN_STRATUM = 20


def n_copies(n_voxels: int, wanted: int) -> int:
    """Computes how many decoys each voxel gets: more where voxels are few.

    Args:
        n_voxels: V.
        wanted: copies of each voxel; 0 for none.

    Returns:
        Copies of each voxel, at most 15; as many as are wanted where that makes 100 decoys.
    """
    if wanted == 0:
        return 0
    return min(MAX_COPIES, max(wanted, -(-MIN_DECOYS // n_voxels)))


def add_decoys(split: Split, copies: int, *, seed: int = 0) -> Split:
    """Puts decoys beside the voxels of a split.

    Args:
        split: tokens and responses [N, V]; the exchange depends on its name.
        copies: decoys of each voxel.
        seed: of the exchanges.

    Returns:
        The split with responses [N, V + copies * V], first the voxels, then their decoys copy by copy;
        nothing is read or copied here. A decoy keeps status, noise ceiling and areas of its voxel.

    Raises:
        ConfigError: if voxel ids are so large that decoys cannot be told from voxels.
    """
    responses = split.responses
    if copies == 0:
        return split
    if len(responses.voxel_ids) and int(np.max(responses.voxel_ids)) >= _COPY:
        raise ConfigError(f"voxel ids above {_COPY - 1} leave no ids for decoys: set encoder.decoys = 0.")
    n_voxels = len(responses.voxel_ids)
    blocks = np.array_split(np.arange(n_voxels), min(n_voxels, _MAX_EXCHANGES))
    sources = []
    for copy in range(copies):
        for i, block in enumerate(blocks):
            rows = _exchange(responses.n_repeats, [seed, copy, i, *split.name.encode()])
            columns = slice(int(block[0]), int(block[-1]) + 1)
            sources.append((ChosenRows(responses.responses, rows), columns))
    ids = [FIRST_ID + copy * _COPY + responses.voxel_ids for copy in range(copies)]
    per_voxel = {
        name: np.concatenate([getattr(responses, name)] * (1 + copies))
        for name in ("status", "ncsnr", "noise_ceiling", "rois")
    }
    places = {
        name: np.concatenate([getattr(responses, name)] * (1 + copies))
        for name in ("indices", "sphere")
        if getattr(responses, name) is not None
    }
    joined = replace(
        responses,
        responses=SideBySide((responses.responses, slice(0, n_voxels)), *sources),
        voxel_ids=np.concatenate([responses.voxel_ids, *ids]),
        **per_voxel,
        **places,
    )
    return replace(split, responses=joined)


def is_decoy(voxel_ids: np.ndarray) -> np.ndarray:
    """Returns which voxel ids are those of decoys.

    Args:
        voxel_ids: [V].

    Returns:
        [V] bool.
    """
    return np.asarray(voxel_ids) >= FIRST_ID


def together(voxels: Encoders, decoys: Encoders | None) -> Encoders:
    """Joins encoders of voxels and of their decoys.

    Args:
        voxels: encoders of V voxels.
        decoys: of their decoys; None for none.

    Returns:
        Encoders of all, voxels first.
    """
    if decoys is None:
        return voxels
    known = [one.selection_r2 for one in (voxels, decoys) if one.selection_r2 is not None]
    return voxels.replace(  # ty: ignore[missing-attribute]
        per_voxel={
            name: np.concatenate([np.asarray(value), np.asarray(decoys.per_voxel[name])])
            for name, value in voxels.per_voxel.items()
        },
        voxel_ids=np.concatenate([voxels.voxel_ids, decoys.voxel_ids]),
        status=np.concatenate([voxels.status, decoys.status]),
        selection_r2=np.concatenate(known) if len(known) == 2 else None,
    )


def _exchange(n_repeats: np.ndarray, seed: list[int]) -> np.ndarray:
    """Row whose responses each image gets [N]: one cycle through the images of a stratum, so none keeps its own."""
    rng = np.random.default_rng(seed)
    order = np.argsort(np.asarray(n_repeats), kind="stable")
    rows = np.arange(len(order))
    for stratum in _strata(np.asarray(n_repeats)[order]):
        cycle = rng.permutation(order[stratum])
        rows[cycle] = np.roll(cycle, 1)
    return rows


def _strata(ascending: np.ndarray) -> list[slice]:
    """Divides sorted numbers of repeats [N] where they change; strata that are too small join the next, or the last."""
    strata: list[slice] = []
    start = 0
    for stop in [*(np.flatnonzero(np.diff(ascending)) + 1), len(ascending)]:
        if stop - start >= _MIN_STRATUM:
            strata.append(slice(start, int(stop)))
            start = int(stop)
    if start < len(ascending):
        last = strata.pop() if strata else slice(0, 0)
        strata.append(slice(last.start, len(ascending)))
    return strata
