"""The null of smooth maps: fields over the voxels that are as smooth as a map is within its areas.

Neighbouring voxels resemble each other, so exchanging voxels makes every map look special. The null here is a
Gaussian field with the variogram that the map has between voxels of the same area: whatever it does over and
above that, at the borders of areas, is what an area prefers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.memory import BLOCK_BYTES, blocks
from mine_jax.statistics import SequentialP
from mine_jax.types import Places

# All lengths are in the unit of `Places`: voxels, or 2 mm on the sphere of a surface.
# Standard deviations of the smoothing kernels that the model of a variogram may mix.
WIDTHS = (0.8, 1.2, 1.8, 2.7, 4.0, 6.0, 9.0, 14.0)
# Voxels whose distances to all others estimate a variogram, and the distances told apart.
N_ANCHORS = 500
_FINE = (0.5, 1.2, 1.6, 2.1)
# Pairs of a lag below which it says nothing; distance up to which a border is looked at.
_MIN_PAIRS = 30
_NEAR = 6.0
# Voxels beyond that distance that each anchor is compared with: there are very many.
_FAR = 4000
# Extent of the voxels that tell of a field, in standard deviations of its kernel.
_WIDEST = 3.0
# Frequencies whose products are summed in float32, before float64.
_FREQUENCIES = 1 << 14
# Surrogates after which no more are drawn of maps whose test has ended.
_DRAWS_AT_ONCE = 50


@dataclass(frozen=True)
class Space:
    """Where voxels are, and what pairs of them a variogram is taken from.

    Attributes:
        at: [V, 3] positions from the corner of the box of the voxels' part.
        cells: part and three axes, [V] int each: where voxels read a field that is drawn.
        shape: parts, then the grid on which a field of each is drawn: its box with a margin, so that ends do not meet.
        is_crowded: whether voxels share cells, as vertices of a fine surface do.
        widths: [n] kernels that are narrow enough for the box.
        anchors: [A] int, voxels from which distances are measured.
        lag: [A, V] int16, bin of each distance; -1 for none, and between parts.
        same: [A, V] bool, pairs within one area.
        distances: [B] mean distance of each bin.
        kernels: [n, ...] float32, power of a field of each width over the frequencies that rfftn keeps, of mean 1.
        counted: frequencies of the whole grid that each of those stands for, over its last axis.
    """

    at: np.ndarray
    cells: tuple[np.ndarray, ...]
    shape: tuple[int, int, int, int]
    is_crowded: bool
    widths: np.ndarray
    anchors: np.ndarray
    lag: np.ndarray
    same: np.ndarray
    distances: np.ndarray
    kernels: np.ndarray
    counted: np.ndarray


def space(places: Places, areas: np.ndarray, *, seed: int = 0) -> Space:
    """Measures distances between voxels.

    Args:
        places: of V voxels. Distances are straight lines: on a sphere a field of the space around it is one whose
            correlation depends on distance alone, too.
        areas: [V] str, the area of each voxel; voxels with equal text are in one area.
        seed: of the choice of anchors where there are more than 500 voxels.

    Returns:
        The space; its size is 500 V however many voxels there are.
    """
    from scipy import fft

    part = np.unique(places.part, return_inverse=True)[1]
    corners = np.stack([places.at[part == number].min(0) for number in range(part.max() + 1)])
    at = places.at - corners[part]
    extent = float(np.linalg.norm(at.max(0)))
    names = np.unique(areas, return_inverse=True)[1]
    anchors, rng = _anchors(names, seed=seed), np.random.default_rng(seed)
    edges = np.concatenate([_FINE, np.arange(3.1, max(0.5 * extent, 4.0) + 1)])
    lag = np.empty((len(anchors), len(at)), np.int16)
    total, count = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for row, anchor in enumerate(anchors):
        distance = np.sqrt(((at - at[anchor]) ** 2).sum(1))
        found = np.digitize(distance, edges) - 1
        found[(found >= len(total)) | (part != part[anchor])] = -1
        found[(distance > _NEAR) & (rng.random(len(at)) > _FAR / len(at))] = -1
        lag[row], known = found, found >= 0
        total += np.bincount(found[known], distance[known], minlength=len(total))
        count += np.bincount(found[known], minlength=len(total))
    widths = np.array([w for w in WIDTHS if w < extent / 4] or WIDTHS[:1])
    margin = int(3 * widths.max())
    grid = tuple(fft.next_fast_len(int(n) + 1 + margin, real=True) for n in at.max(0))
    cells, shape = (part, *at.astype(int).T), (len(corners), *grid)
    n_cells = len(np.unique(np.ravel_multi_index(cells, shape)))
    same = names[anchors][:, None] == names[None]
    middle = 0.5 * (edges[1:] + edges[:-1])
    distances = np.where(count > 0, total / np.maximum(count, 1), middle)
    return Space(at, cells, shape, n_cells < len(at), widths, anchors, lag, same, distances, *_kernels(grid, widths))


def part_of(place: Space, voxels: np.ndarray) -> Space:
    """Leaves some voxels of a space, with the kernels of the whole.

    Args:
        place: where V voxels are.
        voxels: [V] bool.

    Returns:
        The space of these voxels; its anchors are those among them.
    """
    position, kept = np.cumsum(voxels) - 1, voxels[place.anchors]
    return replace(
        place,
        at=place.at[voxels],
        cells=tuple(axis[voxels] for axis in place.cells),
        anchors=position[place.anchors[kept]],
        lag=place.lag[kept][:, voxels],
        same=place.same[kept][:, voxels],
    )


def components(place: Space, values: np.ndarray, *, within: bool) -> np.ndarray:
    """Fits the variogram of maps by a mixture of smooth fields.

    Args:
        place: where the V voxels are.
        values: [V, n] maps.
        within: from pairs of the same area only, else from all.

    Returns:
        Variances [n, 1 + widths] at least 0: of what is independent between voxels, and of a field of each width.
        Without any pair of voxels all is taken to be independent.
    """
    from scipy.optimize import nnls
    from scipy.sparse import csr_array

    # a few voxels say nothing of fields wider than themselves
    extent = _extent(place, place.anchors)
    narrow = place.widths <= max(extent / _WIDEST, place.widths[0])
    n_lags = len(place.distances)
    half, count = np.zeros((n_lags, values.shape[1])), np.zeros(n_lags)
    for row, anchor in enumerate(place.anchors):
        pairs = place.lag[row] >= 0
        if within:
            pairs = pairs & place.same[row]
        lags = place.lag[row][pairs]
        squared = 0.5 * (values[pairs] - values[anchor]) ** 2
        count += np.bincount(lags, minlength=n_lags)
        half += csr_array((np.ones(len(lags)), (lags, np.arange(len(lags)))), (n_lags, len(lags))) @ squared
    known = count > min(_MIN_PAIRS, count.max() / 4)
    if not known.any():
        variances = np.zeros((values.shape[1], 1 + len(narrow)))
        variances[:, 0] = values[place.anchors].var(0)
        return variances
    smooth = 1 - np.exp(-(place.distances[known, None] ** 2) / (4 * place.widths**2))
    weight = np.sqrt(count[known]) / place.distances[known]
    model = np.concatenate([np.ones((known.sum(), 1)), smooth], 1) * weight[:, None]
    variogram = half[known] / count[known, None] * weight[:, None]
    found = np.stack([nnls(model[:, np.r_[True, narrow]], column)[0] for column in variogram.T])
    variances = np.zeros((len(found), 1 + len(narrow)))
    variances[:, np.r_[True, narrow]] = found
    return variances


def variance_of_weighted_sums(place: Space, weights: np.ndarray) -> np.ndarray:
    """Computes how much a weighted sum of voxels varies, for a field of each width.

    Args:
        place: where the V voxels are.
        weights: [V], such as those of the difference of two means.

    Returns:
        [1 + widths] variances for independent voxels and for a field of each width, of variance 1. Their sum,
        weighted by `components`, is the variance over infinitely many surrogates.
    """
    from scipy import fft

    grids = np.zeros(place.shape, np.float32)
    np.add.at(grids, place.cells, weights)
    # of parts, whose fields are independent, variances add up
    power = sum(np.abs(fft.rfftn(grid)).astype(np.float64) ** 2 for grid in grids) * place.counted
    smooth = [(power * kernel).sum() / grids[0].size for kernel in place.kernels]
    return np.array([(weights**2).sum(), *smooth])


def variances_of_contrasts(place: Space, areas: np.ndarray, *, progress: Progress = silent) -> np.ndarray:
    """Computes how much the difference of the means of two areas varies, for a field of each width.

    Args:
        place: where the V voxels are.
        areas: [A, V] bool.
        progress: called with (done, total) blocks of areas.

    Returns:
        [A, A, 1 + widths], what `variance_of_weighted_sums` gives for the difference of the means of each two areas.
    """
    n_areas, sizes = len(areas), areas.sum(1)
    # covariances of means: [1 + widths, A, A]
    shared = np.zeros((1 + len(place.widths), n_areas, n_areas))
    shared[0] = (areas.astype(np.float32) @ areas.T) / np.outer(sizes, sizes)
    n_values = int(np.prod(place.shape[1:]))
    parts = list(blocks(n_areas, BLOCK_BYTES // (8 * n_values)))
    weights = (place.kernels * place.counted).reshape(len(place.widths), -1) / n_values
    for number, first in enumerate(parts):
        progress(number, len(parts))
        own = _spectra(place, areas[first] / sizes[first, None])
        for second in parts[number:]:
            progress(number, len(parts))
            others = own if second == first else _spectra(place, areas[second] / sizes[second, None])
            for some in blocks(own.shape[2], _FREQUENCIES):
                for width, weight in enumerate(weights[:, some]):
                    products = (own[..., some] * weight) @ others[..., some].transpose(0, 2, 1)
                    shared[1 + width, first, second] += products.sum(0, dtype=np.float64)
    variance = np.diagonal(shared, axis1=1, axis2=2)
    upper = np.triu(shared, 1)
    together = upper + upper.transpose(0, 2, 1)
    return np.maximum(variance[:, :, None] + variance[:, None] - 2 * together, 0).transpose(1, 2, 0)


def surrogates(place: Space, variances: np.ndarray, *, n: int, seed: int | list[int] = 0) -> Iterator[np.ndarray]:
    """Draws surrogates of maps; those of one draw come from the same noise.

    Args:
        place: where the V voxels are.
        variances: [maps, 1 + widths] of `components`.
        n: draws.
        seed: of the noise.

    Returns:
        n times [maps, V] float32, Gaussian fields with these variograms.

    Source: spectral form of the variogram-matched surrogates of Burt et al. 2020, doi:10.1016/j.neuroimage.2020.117038.
    """
    from scipy import fft

    rng, grid = np.random.default_rng(seed), place.shape[1:]
    # what is independent between voxels is drawn with the fields, or voxel by voxel where they share cells
    in_cells, in_voxels = variances[:, 0] * (not place.is_crowded), variances[:, 0] * place.is_crowded
    power = in_cells[:, None, None, None] + np.einsum("mw,wijk->mijk", variances[:, 1:], place.kernels)
    amplitudes = np.sqrt(power.astype(np.float32))
    for _ in range(n):
        noise = [fft.rfftn(rng.standard_normal(grid, np.float32)) for _ in range(place.shape[0])]
        maps = np.empty((len(variances), len(place.at)), np.float32)
        for drawn, amplitude in zip(maps, amplitudes, strict=True):
            drawn[:] = np.stack([fft.irfftn(part * amplitude, s=grid) for part in noise])[place.cells]
        if place.is_crowded:
            maps += np.sqrt(in_voxels, dtype=np.float32)[:, None] * rng.standard_normal(len(place.at), np.float32)
        yield maps


def border_p(
    place: Space, values: np.ndarray, *, n_surrogates: int = 500, seed: int = 0, progress: Progress = silent
) -> np.ndarray:
    """Tests whether maps change at the borders of areas more than elsewhere at the same distance.

    Args:
        place: where the V voxels are.
        values: [V, n] maps.
        n_surrogates: surrogates at most, as smooth as the whole map, with its values.
        seed: of the surrogates.
        progress: called with (done, total) surrogates.

    Returns:
        p [n] of `SequentialP`: how often a surrogate differs across borders, beyond what it does within areas, as
        much as the map.
    """
    from scipy.sparse import csr_array

    rows, columns, weights = _across(place)
    if not len(rows):
        return np.ones(values.shape[1])
    n_voxels = len(place.at)
    pairs = csr_array((weights, (rows, columns)), (len(place.anchors), n_voxels))
    each = np.bincount(place.anchors[rows], weights, minlength=n_voxels) + np.bincount(
        columns, weights, minlength=n_voxels
    )

    def jump(maps: np.ndarray) -> np.ndarray:
        """Weighted sum of squared differences of all pairs, for each of the maps [n, V]."""
        centred = maps.T - maps.mean(1)
        return each @ centred**2 - 2 * ((pairs @ centred) * centred[place.anchors]).sum(0)

    variances, ordered = components(place, values, within=False), np.sort(values, 0)
    test = SequentialP(jump(values.T))
    for part in blocks(n_surrogates, _DRAWS_AT_ONCE):
        progress(part.start, n_surrogates)
        going = np.flatnonzero(test.is_open)
        if not len(going):
            break
        n_drawn = part.stop - part.start
        for drawn in surrogates(place, variances[going], n=n_drawn, seed=[seed, part.start]):
            progress(part.start, n_surrogates)
            maps = np.empty_like(drawn, np.float64)
            for number, field in enumerate(drawn):
                maps[number, np.argsort(field)] = ordered[:, going[number]]
            test.add(jump(maps), going)
    return test.p


def _anchors(names: np.ndarray, *, seed: int) -> np.ndarray:
    """Voxels [A] to measure distances from: the same number in each area that has as many."""
    if len(names) <= N_ANCHORS:
        return np.arange(len(names))
    rng, most = np.random.default_rng(seed), max(N_ANCHORS // (names.max() + 1), 1)
    areas = [np.flatnonzero(names == name) for name in range(names.max() + 1)]
    return np.sort(np.concatenate([rng.choice(area, min(most, len(area)), replace=False) for area in areas]))


def _spectra(place: Space, weights: np.ndarray) -> np.ndarray:
    """Real and imaginary parts, those of all parts one after the other, of sums over voxels, [2 parts, A, F]."""
    from scipy import fft

    grids = np.zeros((len(weights), *place.shape), np.float32)
    for grid, own in zip(grids, weights, strict=True):
        np.add.at(grid, place.cells, own)
    spectra = fft.rfftn(grids, axes=(2, 3, 4)).reshape(len(weights), place.shape[0], -1).transpose(1, 0, 2)
    return np.concatenate([spectra.real, spectra.imag])


def _extent(place: Space, voxels: np.ndarray) -> float:
    """Diagonal of the box around some voxels of one part, of the part where it is the longest."""
    part = place.cells[0][voxels]
    return max(float(np.linalg.norm(np.ptp(place.at[voxels[part == number]], axis=0))) for number in np.unique(part))


def _across(place: Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (anchor row, voxel) near each other, with weights that take within from across at equal distance."""
    near = (place.lag >= 0) & (place.distances[np.maximum(place.lag, 0)] < _NEAR)
    rows, columns = np.nonzero(near)
    lags, same, n_lags = place.lag[near], place.same[near], len(place.distances)
    n_same, n_across = (np.bincount(lags[kind], minlength=n_lags) for kind in (same, ~same))
    both = (n_same > _MIN_PAIRS) & (n_across > _MIN_PAIRS)
    share = np.where(both, 1 / (1 / np.maximum(n_same, 1) + 1 / np.maximum(n_across, 1)), 0)
    share = share / max(share.sum(), 1e-12)
    weights = np.where(same, -share[lags] / np.maximum(n_same[lags], 1), share[lags] / np.maximum(n_across[lags], 1))
    used = both[lags]
    return rows[used], columns[used], weights[used]


def _kernels(shape: tuple[int, ...], widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power of a field of each width, and how many frequencies each of the half that is kept stands for."""
    counted = np.full(shape[2] // 2 + 1, 2.0)
    counted[0] = 1
    if shape[2] % 2 == 0:
        counted[-1] = 1
    axes = [np.fft.fftfreq(n) for n in shape[:2]] + [np.fft.rfftfreq(shape[2])]
    squared = (2 * np.pi) ** 2 * sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    power = np.exp(-(widths[:, None, None, None] ** 2) * squared)
    mean = (power * counted).sum((1, 2, 3)) / np.prod(shape)
    return (power / mean[:, None, None, None]).astype(np.float32), counted
