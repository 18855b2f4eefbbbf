"""Finds test photos that show what a photo shows that encoders were fitted to.

Such a photo is no test: its response was seen. Every test photo is compared with windows of all other photos, and
its own windows with the whole of them, as they are and mirrored; the best candidate of each is looked at closely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.data.copies.windows import described, edges_fit, windows

# Coarse cells that correlate less are not looked at closely; edges that correlate more are of one picture.
# Of crops to 60-100 % of each side, compressed again, 95 of 100 real photos are found; of 200,000 other pairs none.
_LEAST_COARSE, _LEAST_EDGES = 0.85, 0.9
# Comparisons of photos above which crops are not searched for, only whole photos.
MOST_PAIRS = 20_000_000
_PHOTOS, _QUERIES = 16, 512
_SHOWN = 5


class _Candidates(NamedTuple):
    """The best partner of each test photo: coarse correlation, row, window, and whether the whole one is mirrored."""

    fit: np.ndarray
    row: np.ndarray
    window: np.ndarray
    mirrored: np.ndarray


def find_copies(
    thumbnails: Mapping[str, np.ndarray], split: Mapping[str, str], *, progress: Progress = silent
) -> list[tuple[str, str]]:
    """Finds test photos that are copies, mirror images or crops of others.

    Also those of which others are.

    Args:
        thumbnails: id -> [SIDE, SIDE, 3] uint8.
        split: id -> "train", "val" or "test".
        progress: called while photos are compared.

    Returns:
        Pairs of ids, the test photo last; at most one for each test photo.
    """
    is_test = {image_id: split.get(image_id) == "test" for image_id in thumbnails if split.get(image_id)}
    tests = [image_id for image_id in is_test if is_test[image_id]]
    others = [image_id for image_id in is_test if not is_test[image_id]]
    if not tests or not others:
        return []
    test, other = (np.stack([thumbnails[image_id] for image_id in ids]) for ids in (tests, others))
    whole_only = len(tests) * len(others) > MOST_PAIRS
    same = {content.tobytes(): row for row, content in reversed(list(enumerate(other)))}
    partner = np.array([same.get(content.tobytes(), -1) for content in test])
    best = np.where(partner < 0, _LEAST_EDGES, np.inf)
    total = len(tests) + len(others)
    inside = _candidates(other, test, False, whole_only, lambda done: progress(done, total))
    around = _candidates(test, other, True, whole_only, lambda done: progress(len(others) + done, total))
    for candidates, is_windowed in ((inside, False), (around, True)):
        for row in np.flatnonzero(candidates.fit > _LEAST_COARSE):
            progress(total, total)
            fit = _closely(test[row], other[candidates.row[row]], candidates, row, is_windowed)
            if fit > best[row]:
                best[row], partner[row] = fit, candidates.row[row]
    return [(others[partner[row]], tests[row]) for row in np.flatnonzero(partner >= 0)]


def warning_of_copies(pairs: Sequence[tuple[str, str]]) -> str:
    """Says what `find_copies` found; "" for nothing."""
    if not pairs:
        return ""
    shown = ", ".join(f"{one} = {other}" for one, other in pairs[:_SHOWN])
    return (
        f"{len(pairs)} test photos show what photos show that encoders are fitted to (copies, mirror images or crops), "
        f"first {shown}: their R2 is no test. Leave one of each pair out"
    )


def _candidates(
    windowed: np.ndarray, whole: np.ndarray, tests_windowed: bool, whole_only: bool, report: Callable[[int], None]
) -> _Candidates:
    """Compares windows of some photos with the whole of others, one of which are the test photos."""
    n = len(windowed) if tests_windowed else len(whole)
    best = _Candidates(np.zeros(n), np.zeros(n, int), np.zeros(n, int), np.zeros(n, bool))
    plain, mirrored = (described(photos, whole_only=True)[:, 0] for photos in (whole, whole[:, :, ::-1]))
    for first in range(0, len(windowed), _PHOTOS):
        report(first)
        parts = described(windowed[first : first + _PHOTOS], whole_only=whole_only)
        for start in range(0, len(whole), _QUERIES):
            both = np.concatenate([cells[start : start + _QUERIES] for cells in (plain, mirrored)])
            fits = (parts.reshape(-1, parts.shape[-1]) @ both.T).reshape(*parts.shape[:2], 2, -1)
            by_window = fits.max(2)
            by_photo = by_window.max(1)
            chosen = by_photo.argmax(1 if tests_windowed else 0)
            rows = np.arange(len(parts) if tests_windowed else len(both) // 2)
            i, j = (rows, chosen) if tests_windowed else (chosen, rows)
            at = rows + (first if tests_windowed else start)
            better = by_photo[i, j] > best.fit[at]
            at, i, j = at[better], i[better], j[better]
            window = by_window[i, :, j].argmax(1)
            best.fit[at], best.window[at] = by_photo[i, j], window
            best.row[at] = (j + start) if tests_windowed else (i + first)
            best.mirrored[at] = fits[i, window, 1, j] > fits[i, window, 0, j]
    return best


def _closely(test: np.ndarray, other: np.ndarray, candidates: _Candidates, row: int, is_windowed: bool) -> float:
    """How well the edges of a test photo and its candidate fit."""
    photo, whole = (test, other) if is_windowed else (other, test)
    window = windows()[candidates.window[row]]
    return edges_fit(photo, window, whole[:, ::-1] if candidates.mirrored[row] else whole, least=_LEAST_EDGES)
