"""Finds test photos that show what a photo shows that encoders were fitted to.

Such a photo is no test: its response was seen. Every test photo is compared with windows of all other photos, and
its own windows with the whole of them, as they are and mirrored; the best candidate of each is looked at closely.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.data.copies.windows import described, edges_fit, windows

# Coarse cells that correlate less are not looked at closely; edges that correlate more are of one picture.
# Of crops to 60-100 % of each side, compressed again, 95 of 100 real photos are found; of 200,000 other pairs none.
_LEAST_COARSE, _LEAST_EDGES = 0.85, 0.9
# Photos above which nothing is searched for, and pairs above which crops are not, only whole photos.
MOST_PHOTOS, MOST_PAIRS = 20_000, 20_000_000
# Photos of which windows are described at once, whole photos that are described at once, and that are compared.
_PHOTOS, _WHOLES, _QUERIES = 16, 256, 512
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
        Pairs of ids, the test photo last; at most one for each test photo. `not_searched` says what is left out
        where photos are many.
    """
    is_test = {image_id: split.get(image_id) == "test" for image_id in thumbnails if split.get(image_id)}
    tests = [image_id for image_id in is_test if is_test[image_id]]
    others = [image_id for image_id in is_test if not is_test[image_id]]
    if not tests or not others or len(is_test) > MOST_PHOTOS:
        return []
    test, other = ([thumbnails[image_id] for image_id in ids] for ids in (tests, others))
    whole_only = len(tests) * len(others) > MOST_PAIRS
    same = {_hash(other[row]): row for row in reversed(range(len(other)))}
    partner = np.array([same.get(_hash(content), -1) for content in test])
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


def not_searched(split: Mapping[str, str]) -> str:
    """Says what `find_copies` leaves out where there are many photos.

    Args:
        split: split of each photo, by id.

    Returns:
        One line; "" for nothing.
    """
    n_tests = sum(name == "test" for name in split.values())
    n_others = sum(bool(name) for name in split.values()) - n_tests
    if n_tests + n_others > MOST_PHOTOS:
        return f"not searched for copies of photos: more than {MOST_PHOTOS}"
    if n_tests * n_others > MOST_PAIRS:
        return f"searched for copies of whole photos, not for crops: more than {MOST_PAIRS} pairs"
    return ""


def warning_of_copies(pairs: Sequence[tuple[str, str]]) -> str:
    """Says what `find_copies` found.

    Args:
        pairs: of ids, the test photo last.

    Returns:
        One line; "" for nothing.
    """
    if not pairs:
        return ""
    shown = ", ".join(f"{one} = {other}" for one, other in pairs[:_SHOWN])
    return (
        f"{len(pairs)} test photos look like photos that encoders are fitted to, or like crops or mirrors of them: "
        f"look at {shown}{', ...' if len(pairs) > _SHOWN else ''}. Of copies R2 is no test: leave one of each pair out"
    )


def _hash(content: np.ndarray) -> bytes:
    return hashlib.sha256(content.tobytes()).digest()


def _wholes(photos: Sequence[np.ndarray], *, mirrored: bool) -> np.ndarray:
    """Describes whole photos, [n, cells]; few of them are held as numbers at once."""
    blocks = (np.stack(photos[start : start + _WHOLES]) for start in range(0, len(photos), _WHOLES))
    return np.concatenate(
        [described(block[:, :, ::-1] if mirrored else block, whole_only=True)[:, 0] for block in blocks]
    )


def _candidates(
    windowed: Sequence[np.ndarray],
    whole: Sequence[np.ndarray],
    tests_windowed: bool,
    whole_only: bool,
    report: Callable[[int], None],
) -> _Candidates:
    """Compares windows of some photos with the whole of others, one of which are the test photos."""
    n = len(windowed) if tests_windowed else len(whole)
    best = _Candidates(np.zeros(n), np.zeros(n, int), np.zeros(n, int), np.zeros(n, bool))
    plain, mirrored = _wholes(whole, mirrored=False), _wholes(whole, mirrored=True)
    for first in range(0, len(windowed), _PHOTOS):
        report(first)
        parts = described(np.stack(windowed[first : first + _PHOTOS]), whole_only=whole_only)
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
