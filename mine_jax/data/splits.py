"""Splits by image, and tokens and responses joined by image id."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import numpy as np

from mine_jax._checks import takes
from mine_jax.data import ids as image_lists
from mine_jax.data.noise_ceiling import with_noise_ceiling
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.types import ImageTokens, Responses, Split, Stimuli

_log = logging.getLogger(__name__)
NAMES = ("train", "val", "test")
# With so many test images or fewer the tests of the ladder hold, but find little (`mine-jax study`).
_FEW_TEST_IMAGES, _FEW_IMAGES = 100, 500
_OF_ARRAYS = "Of arrays, make them with Responses.from_array(Y) and ImageTokens.from_array(X)."


@takes(_OF_ARRAYS, responses=Responses)
def assign_splits(
    responses: Responses, stimuli: Stimuli, *, test: float | str, val: float = 0.15, seed: int = 0
) -> np.ndarray:
    """Assigns every image to train, val or test.

    Images are ranked by a hash of seed and id, so a split does not depend on row order, and an
    image keeps its place when voxels or sessions are added.

    Args:
        responses: N images.
        stimuli: for the shared images.
        test: share of the images, "shared" for those that every subject saw, or a file: image ids, or a split as
            LAION-fMRI writes it (`.json` with `test_ids`).
        val: share of the remaining images that is kept for early stopping.
        seed: another number gives another split.

    Returns:
        np.ndarray: [N] str, "train", "val" or "test".

    Raises:
        ConfigError: if a share is outside 0..1.
        AlignmentError: if the file names images that have no responses.
        DataError: if test is empty or fewer than two training images remain.
    """
    ids = responses.image_ids
    for name, value in (("test", test), ("val", val)):
        if not isinstance(value, str) and not 0 <= value < 1:
            raise ConfigError(f"`{name}` must be a share from 0 to below 1, but is {value}.")
    rank = np.array([hashlib.sha256(f"{seed}:{image_id}".encode()).hexdigest() for image_id in ids.tolist()], str)
    if isinstance(test, str):
        is_test = np.isin(ids, _test_ids(ids, stimuli, test))
    else:
        is_test = _lowest(rank, np.ones(len(ids), bool), test)
    is_val = _lowest(rank, ~is_test, val)
    assigned = np.where(is_test, "test", np.where(is_val, "val", "train"))
    counts = {name: int((assigned == name).sum()) for name in NAMES}
    if counts["test"] < 1 or counts["train"] < 2:
        raise DataError(
            f"the split has {counts['train']} training, {counts['val']} validation and {counts['test']} test "
            "images, but needs at least 2 for training and 1 for testing. Change `test` or `val`, or load more images."
        )
    return assigned


@takes(_OF_ARRAYS, responses=Responses, tokens=ImageTokens)
def align(responses: Responses, tokens: ImageTokens, *, on_missing: str = "error") -> Split:
    """Joins tokens and responses by image id, in the order of the responses.

    Args:
        responses: N images.
        tokens: at least these images, in any order; others are left out.
        on_missing: "error", or "drop" to leave out images without tokens.

    Returns:
        Split: both with the same image ids in the same rows.

    Raises:
        AlignmentError: if images have no tokens, or one id has two different sets of tokens.
    """
    row_of = _first_rows(tokens)
    here = np.array([image_id in row_of for image_id in responses.image_ids.tolist()], bool)
    missing = responses.image_ids[~here]
    if len(missing):
        image_lists.check_not_shifted(responses.image_ids, row_of, source="the responses", other="the tokens")
        reason = image_lists.why_differ(missing, row_of)
        if on_missing != "drop" or not here.any():
            remedy = "" if reason else 'Extract the features again, or set `on_missing` = "drop".'
            raise AlignmentError(
                f"{len(missing)} of {len(here)} images have responses but no tokens, first {', '.join(missing[:5])}. "
                f"{reason or remedy}"
            )
        _log.warning("%d images without tokens are left out. %s", len(missing), reason)
        if _is_first_or_last(missing, responses.image_ids):
            _log.warning("only the image %s is left out: is one list counted from 0, the other from 1?", missing[0])
        responses = responses.take_images(here)
    rows = np.array([row_of[image_id] for image_id in responses.image_ids.tolist()], np.int64)
    unused = len(row_of) - len(rows)
    if unused:
        _log.info("%d images have tokens but no responses and are left out", unused)
    if not np.array_equal(rows, np.arange(len(tokens.image_ids))):
        tokens = tokens.take_images(rows)
    return Split(tokens, responses)


@takes("`mine_jax.data.align(responses, tokens)` makes one.", split=Split)
def split_rows(split: Split, assigned: np.ndarray, *, names: str | tuple[str, ...]) -> Split:
    """Takes the images of one or more parts.

    Args:
        split: N aligned images.
        assigned: [N] str from `assign_splits`, in the same order.
        names: "train", "val", "test", or several of them.

    Returns:
        Split: those images, named "train+val" and the like; the noise ceiling is that of these rows.

    Raises:
        AlignmentError: if the number of images differs.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if len(assigned) != len(split.responses.image_ids):
        raise AlignmentError(
            f"`assigned` has {len(assigned)} images, but the split has {len(split.responses.image_ids)}. "
            "Assign splits after `align`, or drop the same images from both."
        )
    rows = np.flatnonzero(np.isin(assigned, wanted))
    responses = split.responses.take_images(rows)
    if len(rows):
        responses = with_noise_ceiling(responses, np.arange(len(rows)))
    return Split(split.tokens.take_images(rows), responses, "+".join(wanted))


def with_low_ceiling(responses: Responses, *, min_noise_ceiling: float) -> Responses:
    """Gives "ok" voxels below a noise ceiling the status "low_ceiling".

    Args:
        responses: of V voxels.
        min_noise_ceiling: fraction of variance; voxels whose ceiling is unknown keep their status.

    Returns:
        The responses with `status` [V] changed.
    """
    low = (responses.status == "ok") & (responses.noise_ceiling < min_noise_ceiling)
    return replace(responses, status=np.where(low, "low_ceiling", responses.status))


def warning_of_few(assigned: np.ndarray) -> str:
    """Says where there are too few images, or test images, for much to be found.

    Args:
        assigned: [N] of `assign_splits`.

    Returns:
        str: empty where there are enough.
    """
    n_test, n_images = int((assigned == "test").sum()), len(assigned)
    if n_test <= _FEW_TEST_IMAGES:
        return f"only {n_test} test images: with {_FEW_TEST_IMAGES} or fewer, few words can be told from chance"
    if n_images <= _FEW_IMAGES:
        return (
            f"only {n_images} images: with {_FEW_IMAGES} or fewer, profiles of halves of them rarely agree, and few "
            "words can be told from chance"
        )
    return ""


def _test_ids(ids: np.ndarray, stimuli: Stimuli, test: str) -> np.ndarray:
    """Ids of test images, by name of the rule or file."""
    if test == "shared":
        shared = stimuli.image_ids[stimuli.shared]
        if not len(shared):
            raise DataError('`test` = "shared" needs images that all subjects saw, but none are marked. Give a share.')
        return shared
    wanted = image_lists.read_split(test) if test.endswith(".json") else image_lists.read(test)
    wanted = np.unique(wanted if stimuli.name is None else stimuli.name(wanted, test))
    unknown = wanted[~np.isin(wanted, ids)]
    if len(unknown):
        image_lists.check_not_shifted(wanted, ids, source=test, other="the responses")
        raise AlignmentError(
            f"{test} names {len(unknown)} test images without responses, first {', '.join(unknown[:5])}. "
            f"{image_lists.why_differ(wanted, ids)}".strip()
        )
    return wanted


def _is_first_or_last(missing: np.ndarray, ids: np.ndarray) -> bool:
    """Says whether one image is missing, the first or last in the order of ids."""
    ordered = sorted(ids.tolist(), key=lambda text: (len(text), text))
    return len(missing) == 1 and missing[0] in (ordered[0], ordered[-1])


def _lowest(rank: np.ndarray, among: np.ndarray, share: float) -> np.ndarray:
    """Marks the share of images [N] with the lowest rank, at least one where the share is above 0."""
    marked = np.zeros(len(rank), bool)
    candidates = np.flatnonzero(among)
    count = round(share * len(candidates)) or int(share > 0)
    marked[candidates[np.argsort(rank[candidates], kind="stable")[:count]]] = True
    return marked


def _first_rows(tokens: ImageTokens) -> dict[str, int]:
    """Row of each id; an id may come twice only with equal tokens."""
    ids = tokens.image_ids.tolist()
    if len(ids) != tokens.tokens.shape[0]:
        raise AlignmentError(f"`tokens` has {tokens.tokens.shape[0]} images, but {len(ids)} image ids are given.")
    row_of: dict[str, int] = {}
    repeated = 0
    for row, image_id in enumerate(ids):
        if image_id not in row_of:
            row_of[image_id] = row
            continue
        repeated += 1
        if not np.array_equal(np.asarray(tokens.tokens[row]), np.asarray(tokens.tokens[row_of[image_id]])):
            raise AlignmentError(f"the image id {image_id} has different tokens in rows {row_of[image_id]} and {row}.")
    if repeated:
        _log.info("%d image ids come more than once with equal tokens; the first of each is used", repeated)
    return row_of
