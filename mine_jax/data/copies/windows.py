"""Windows of thumbnails: where one photo may lie in another, and how well it fits there.

A photo is compared with windows of another one on a coarse grid of cells, in which neither a few pixels of
displacement nor compression matter. Where that fits, the window is moved until edges fit best: unrelated photos of
similar layout agree in coarse cells, but not in edges.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from mine_jax.data.copies.thumbnails import SIDE

# Sides of windows, as shares of the photo, and how far they are apart; height and width may differ by so much.
_SHARES, _STEP, _MOST_STRETCH = (1.0, 0.9, 0.8, 0.7, 0.6), 0.1, 0.31
_CELLS = 8
# Cells of a side, and width of the mean that is taken away, when edges are compared; moves of the borders.
_FINE, _SMOOTH, _MOVES = 20, 5, (0.0375, 0.01875)
# Thumbnails with less contrast than this many grey levels have nothing that could be compared.
_LEAST_CONTRAST = 2.0


class Window(NamedTuple):
    """Borders of a part of a photo, as shares of its height and width."""

    top: float
    bottom: float
    left: float
    right: float


@functools.cache
def windows(*, whole_only: bool = False) -> tuple[Window, ...]:
    """Returns the windows that are compared, the whole photo first."""
    spans = _spans()[:1] if whole_only else _spans()
    return tuple(
        Window(*down, *across)
        for down in spans
        for across in spans
        if abs((down[1] - down[0]) - (across[1] - across[0])) <= _MOST_STRETCH
    )


def described(thumbnails: np.ndarray, *, whole_only: bool = False) -> np.ndarray:
    """Describes the windows of photos by the colours of their cells.

    Args:
        thumbnails: [n, SIDE, SIDE, 3]; some hundreds at most, as they become float32.
        whole_only: whether only the whole photo is described.

    Returns:
        [n, windows, cells] float32 of length 1, or 0 where there is no contrast.
    """
    spans = _spans()[:1] if whole_only else _spans()
    places = {span: position for position, span in enumerate(spans)}
    chosen = windows(whole_only=whole_only)
    down, across = (
        np.array([places[span] for span in sides]) for sides in ([w[:2] for w in chosen], [w[2:] for w in chosen])
    )
    weights = np.concatenate([_weights(*span, _CELLS) for span in spans])
    cells = _averaged(np.asarray(thumbnails, np.float32), weights, weights)
    cells = cells.reshape(len(thumbnails), len(spans), _CELLS, len(spans), _CELLS, 3).transpose(0, 1, 3, 2, 4, 5)
    cells = cells[:, down, across].reshape(len(thumbnails), len(chosen), _CELLS**2, 3)
    cells = cells - cells.mean(2, keepdims=True)
    cells = cells.reshape(*cells.shape[:2], -1)
    length = np.linalg.norm(cells, axis=-1, keepdims=True)
    return np.where(length > _LEAST_CONTRAST * np.sqrt(cells.shape[-1]), cells / np.maximum(length, 1e-6), 0)


def edges_fit(photo: np.ndarray, window: Window, other: np.ndarray, *, least: float) -> float:
    """Correlates the edges of a window of a photo with those of another photo, at the best place nearby.

    Args:
        photo: thumbnail [SIDE, SIDE, 3].
        window: about where the other one lies in it.
        other: thumbnail.
        least: what is of interest; far below it the search ends early.

    Returns:
        Correlation, from -1 to 1.
    """
    whole = _weights(0.0, 1.0, _FINE)
    wanted = _edges(_averaged(np.asarray(other, np.float32)[None], whole, whole))[0].ravel()
    best = 0.0
    for move in _MOVES:
        down, across = (_moved(*window[first : first + 2], move) for first in (0, 2))
        averaged = _averaged(
            np.asarray(photo, np.float32)[None],
            np.concatenate([_weights(*span, _FINE) for span in down]),
            np.concatenate([_weights(*span, _FINE) for span in across]),
        )
        parts = averaged.reshape(len(down), _FINE, len(across), _FINE, 3).transpose(0, 2, 1, 3, 4)
        edges = _edges(parts.reshape(-1, _FINE, _FINE, 3)).reshape(len(down) * len(across), -1)
        sizes = np.linalg.norm(edges, axis=1) * np.linalg.norm(wanted)
        fits = np.where(sizes > edges.shape[1] * 0.1, edges @ wanted / np.maximum(sizes, 1e-6), 0)
        place = int(fits.argmax())
        best, window = float(fits[place]), Window(*down[place // len(across)], *across[place % len(across)])
        if best < least - 0.3:
            break
    return best


@functools.cache
def _spans() -> tuple[tuple[float, float], ...]:
    """Start and end of windows along one side."""
    return tuple(
        (start, min(1.0, start + share))
        for share in _SHARES
        for start in np.arange(0, 1 - share + 1e-6, _STEP).tolist()
    )


def _moved(start: float, stop: float, move: float) -> list[tuple[float, float]]:
    """The same span with each of its ends moved outwards, inwards, or not."""
    steps = (0.0, -move, move)
    return [(max(0.0, start + first), min(1.0, stop + last)) for first in steps for last in steps]


@functools.lru_cache(maxsize=4096)
def _weights(start: float, stop: float, cells: int) -> np.ndarray:
    """What each pixel of a side gives to the mean of each cell of a span, [cells, SIDE] float32."""
    borders, pixels = np.linspace(start * SIDE, stop * SIDE, cells + 1), np.arange(SIDE)
    shared = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    shared = np.clip(shared, 0, None)
    return (shared / shared.sum(1, keepdims=True)).astype(np.float32)


def _averaged(thumbnails: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Means [n, rows, columns, 3] of cells of thumbnails [n, SIDE, SIDE, 3]."""
    rows = np.tensordot(thumbnails, down, ([1], [1]))  # [n, SIDE, 3, rows]
    return np.tensordot(rows, across, ([1], [1])).transpose(0, 2, 3, 1)


def _edges(parts: np.ndarray) -> np.ndarray:
    """What remains of parts [n, h, w, 3] without their local means."""
    # heavy, and only photos need it
    from scipy.ndimage import uniform_filter

    return parts - uniform_filter(parts, size=(0, _SMOOTH, _SMOOTH, 0), mode="nearest")
