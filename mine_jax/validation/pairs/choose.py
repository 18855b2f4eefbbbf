"""Chooses what is tested: voxels, images and words.

Everything is decided by identity (seed, voxel id, image id), not by position, and nothing by how well a
voxel does: the plan of a voxel does not depend on the other voxels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mine_jax.types import Descriptions, Profiles

# A word is in the image if it has this share of the description's first weight.
_PRESENT = 0.05
# An image lacks words if they have a lower share there than in three quarters of the images.
_LACKING_QUANTILE = 0.25


@dataclass(frozen=True)
class Pair:
    """One (voxel, image) pair and the words that are tested on it.

    Attributes:
        row: position of the voxel among the profiles.
        voxel_id: the voxel.
        image_id: the image that was described, and from which words are removed.
        target_id: an image that lacks the words, into which they are inserted.
        description: words of the image's description, best first.
        profile: words of the voxel's profile.
        present: those words of the profile that the image shows.
        random: words of random image-tokens of the image.
        lowest: words of its image-tokens with the lowest attribution.
        other: words of another voxel's profile, of little weight in this one's.
        area: words of another voxel of the same area that this one does not have.
        near: words that mean nearly the same as this voxel's.
        cooccurring: words that images show where they show this voxel's.
        bystanders: words of the image that are not this voxel's.
        exchanged: position among the pairs of the voxel that takes this one's place in the null test.
    """

    row: int
    voxel_id: int
    image_id: str
    target_id: str
    description: tuple[str, ...]
    profile: tuple[str, ...]
    present: tuple[str, ...]
    random: tuple[str, ...] = ()
    lowest: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    area: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    cooccurring: tuple[str, ...] = ()
    bystanders: tuple[str, ...] = ()
    exchanged: int = -1


def choose_pairs(
    descriptions: Descriptions,
    profiles: Profiles,
    areas: np.ndarray,
    *,
    image_words: np.ndarray,
    image_ids: np.ndarray,
    n_pairs: int,
    n_images: int = 6,
    n_words: int = 3,
    min_weight: float = 0.25,
    seed: int = 0,
) -> list[Pair]:
    """Chooses pairs of explained voxels and their images.

    Voxels are drawn at random, areas taking turns, and each gives several images, so that there is a test of
    each voxel. Images are drawn at random from those described, held-out ones first.

    Args:
        descriptions: of V x I pairs.
        profiles: of the same V voxels.
        areas: [V] str.
        image_words: [N, C] shares of words in held-out images.
        image_ids: [N] str, their ids.
        n_pairs: pairs wanted.
        n_images: images of each voxel; more where there are too few voxels for so many pairs.
        n_words: most words of a description or profile.
        min_weight: smallest weight of a word, relative to the first.
        seed: decides voxels and images.

    Returns:
        At most `n_pairs` pairs; none if no voxel is explained.
    """
    order = _voxel_order(profiles, areas, seed)[: -(-n_pairs // n_images)]
    ranked = {row: _images(descriptions, row, image_ids, seed) for row in order}
    chosen: list[tuple[int, int]] = []
    for turn in range(descriptions.image_ids.shape[1]):
        chosen += [(row, ranked[row][turn]) for row in order if turn < len(ranked[row])]
        if len(chosen) >= n_pairs:
            break
    pairs = []
    for row, column in chosen[:n_pairs]:
        ids, weights = descriptions.word_ids[row, column], descriptions.weights[row, column]
        words = leading_words(descriptions.words, ids, weights, n=n_words, min_weight=min_weight)
        profile = leading_words(
            profiles.words, profiles.word_ids[row], profiles.weights[row], n=n_words, min_weight=min_weight
        )
        shown = set(leading_words(descriptions.words, ids, weights, n=len(ids), min_weight=_PRESENT))
        ranked_profile = leading_words(
            profiles.words, profiles.word_ids[row], profiles.weights[row], n=len(profiles.word_ids[row]), min_weight=0
        )
        image_id, voxel_id = str(descriptions.image_ids[row, column]), int(profiles.voxel_ids[row])
        target = _lacking(profiles.words, image_words, image_ids, {*words, *profile}, image_id, (seed, voxel_id))
        present = tuple(word for word in ranked_profile if word in shown)[:n_words]
        pairs.append(Pair(row, voxel_id, image_id, target, words, profile, present))
    return pairs


def leading_words(
    words: np.ndarray, word_ids: np.ndarray, weights: np.ndarray, *, n: int, min_weight: float
) -> tuple[str, ...]:
    """Takes the first words whose weight is not small beside the first one's.

    Args:
        words: [C] str, vocabulary.
        word_ids: [L] int, best first; -1 for none.
        weights: [L].
        n: most words.
        min_weight: smallest weight, relative to the first word's.

    Returns:
        Words, best first; none for an empty description.
    """
    real = word_ids >= 0
    if not real.any():
        return ()
    least = min_weight * float(weights[real][0])
    kept = real & (np.nan_to_num(weights, nan=-1) >= least)
    return tuple(str(words[index]) for index in word_ids[kept][:n])


def stable_seed(*parts: object) -> int:
    """Returns a number below 2^31 that depends on the parts only, not on order or platform."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _voxel_order(profiles: Profiles, areas: np.ndarray, seed: int) -> list[int]:
    """Rows of explained voxels in random order, areas taking turns."""
    rows = np.flatnonzero(profiles.explained & (profiles.word_ids[:, 0] >= 0))
    drawn = np.array([stable_seed(seed, int(voxel), "voxel") for voxel in profiles.voxel_ids[rows]], np.int64)
    turns: list[tuple[int, int, int]] = []
    for area in np.unique(areas[rows]):
        inside = np.flatnonzero(areas[rows] == area)
        shuffled = inside[np.argsort(drawn[inside], kind="stable")]
        turns += [(turn, int(drawn[member]), int(rows[member])) for turn, member in enumerate(shuffled)]
    return [row for _, _, row in sorted(turns)]


def _images(descriptions: Descriptions, row: int, held_out: np.ndarray, seed: int) -> list[int]:
    """Columns of a voxel's described images in random order, held-out ones first."""
    columns = np.flatnonzero(descriptions.word_ids[row, :, 0] >= 0)
    rng = np.random.default_rng(stable_seed(seed, int(descriptions.voxel_ids[row]), "images"))
    shuffled = rng.permutation(columns)
    known = np.isin(descriptions.image_ids[row, shuffled], held_out)
    return [*shuffled[known].tolist(), *shuffled[~known].tolist()]


def _lacking(
    words: np.ndarray,
    image_words: np.ndarray,
    image_ids: np.ndarray,
    wanted: set[str],
    image_id: str,
    parts: tuple[object, ...],
) -> str:
    """A held-out image in which none of the words has a noticeable share."""
    columns = np.flatnonzero(np.isin(words, list(wanted)))
    share = image_words[:, columns].max(1) if len(columns) else np.zeros(len(image_ids))
    allowed = (share <= np.quantile(share, _LACKING_QUANTILE)) & (image_ids != image_id)
    candidates = np.flatnonzero(allowed) if allowed.any() else np.flatnonzero(image_ids != image_id)
    rng = np.random.default_rng(stable_seed(*parts, image_id, "target"))
    return str(image_ids[candidates[int(rng.integers(len(candidates)))]]) if len(candidates) else ""
