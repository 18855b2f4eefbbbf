"""Chooses what is tested: voxels, images, words, and the controls beside them.

Everything is decided by identity (seed, voxel id, image id), not by position, so the plan of
a voxel does not depend on the other voxels, but for the words of "other" voxels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mine_jax import description
from mine_jax.description import TokenWords
from mine_jax.types import CriticalTokens, Descriptions, Profiles

# A word is in the image if it has this share of the description's first weight.
_PRESENT = 0.05
# An image lacks words if they have a lower share there than in three quarters of the images.
_LACKING_QUANTILE = 0.25
# Control tokens are at most this share of an image, so that they differ from the critical ones.
_CONTROL_SHARE = 0.25


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
        other: words of another voxel's profile.
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
    exchanged: int = -1


def choose_pairs(
    descriptions: Descriptions,
    profiles: Profiles,
    areas: np.ndarray,
    *,
    image_words: np.ndarray,
    image_ids: np.ndarray,
    n_pairs: int,
    n_words: int = 3,
    min_weight: float = 0.25,
    seed: int = 0,
) -> list[Pair]:
    """Chooses pairs of explained voxels and their images.

    Areas take turns, each with its best voxels by the correlation of profile and measured
    responses; where voxels run out, each gives another image. Images are drawn at random from
    those described, held-out ones first.

    Args:
        descriptions: of V x I pairs.
        profiles: of the same V voxels.
        areas: [V] str.
        image_words: [N, C] shares of words in held-out images.
        image_ids: [N] str, their ids.
        n_pairs: pairs wanted.
        n_words: most words of a description or profile.
        min_weight: smallest weight of a word, relative to the first.
        seed: decides images, other voxels and exchanges.

    Returns:
        At most `n_pairs` pairs; none if no voxel is explained.
    """
    order = _voxel_order(profiles, areas)
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


def with_control_words(
    pairs: Sequence[Pair],
    token_words: TokenWords,
    attributions: dict[tuple[int, str], np.ndarray],
    *,
    corpus: np.ndarray,
    k: int,
    seed: int = 0,
) -> list[Pair]:
    """Adds the words of random tokens and of the tokens with the lowest attribution.

    Both get as many words as the description has.

    Args:
        pairs: from `choose_pairs`.
        token_words: of the pairs' images.
        attributions: (voxel id, image id) -> integrated gradients [P].
        corpus: [C] mean share of each word.
        k: tokens read, at most a quarter of an image.
        seed: of the random tokens.

    Returns:
        The pairs with `random` and `lowest`.
    """
    n_tokens = token_words.word_ids.shape[1]
    k = min(k, max(1, int(_CONTROL_SHARE * n_tokens)))
    row_of = {image_id: row for row, image_id in enumerate(token_words.image_ids.tolist())}
    drawn = []
    for pair in pairs:
        mask = np.ones(n_tokens, bool) if token_words.mask is None else token_words.mask[row_of[pair.image_id]]
        real = np.flatnonzero(mask)
        scores = np.asarray(attributions[pair.voxel_id, pair.image_id], np.float64)
        rng = np.random.default_rng(stable_seed(seed, pair.voxel_id, pair.image_id, "tokens"))
        drawn.append([rng.permutation(real)[:k], real[np.argsort(scores[real], kind="stable")[:k]]])
    if not drawn:
        return []
    indices = np.full((len(pairs), 2, min(len(tokens) for both in drawn for tokens in both)), 0, np.int32)
    for row, both in enumerate(drawn):
        for column, tokens in enumerate(both):
            indices[row, column] = tokens[: indices.shape[2]]
    image_ids = np.array([[pair.image_id] * 2 for pair in pairs], dtype=str)
    voxel_ids = np.array([pair.voxel_id for pair in pairs])
    critical = CriticalTokens(voxel_ids, image_ids, indices, np.ones(indices.shape, np.float32))
    read = description.describe(
        critical, token_words, corpus=corpus, n_words=max(len(pair.description) for pair in pairs)
    )

    def read_words(row: int, column: int, n: int) -> tuple[str, ...]:
        return leading_words(read.words, read.word_ids[row, column], read.weights[row, column], n=n, min_weight=0)

    return [
        replace(
            pair, random=read_words(row, 0, len(pair.description)), lowest=read_words(row, 1, len(pair.description))
        )
        for row, pair in enumerate(pairs)
    ]


def with_partners(pairs: Sequence[Pair], profiles: Profiles, *, seed: int = 0) -> list[Pair]:
    """Gives every pair another voxel's words, and a voxel to change places with.

    The other words have little weight in the profile of the pair's own voxel; the voxel that
    changes places gives little weight to any word of the pair, controls included. So neither
    should see an effect.

    Args:
        pairs: with the words of all conditions.
        profiles: of the voxels.
        seed: of the choice among those that qualify.

    Returns:
        The pairs with `other` and `exchanged`; as they were where there is only one voxel.
    """
    ids = np.array([pair.voxel_id for pair in pairs])
    if len(set(ids.tolist())) < 2:
        return list(pairs)
    shares = np.nan_to_num(np.asarray(profiles.distribution, np.float64)[[pair.row for pair in pairs]])
    column = {word: index for index, word in enumerate(profiles.words.tolist())}

    def weights(word_sets: Sequence[set[str]]) -> np.ndarray:
        """Weight [n, n] of the words of one pair (column) in the profile of another (row)."""
        tables = np.zeros((len(pairs), shares.shape[1]))
        for row, words in enumerate(word_sets):
            tables[row, [column[word] for word in words if word in column]] = 1
        return shares @ tables.T

    foreign = ids[:, None] != ids
    usable = foreign & np.array([bool(pair.profile) for pair in pairs])
    of_others = _lowest(weights([set(pair.profile) for pair in pairs]), usable if usable.any(1).all() else foreign)
    everything = [{*p.description, *p.profile, *p.present, *p.random, *p.lowest} for p in pairs]
    partners = _exchange(_lowest(weights(everything).T, foreign), np.random.default_rng(stable_seed(seed, "exchange")))
    partnered = []
    for index, pair in enumerate(pairs):
        pick = np.random.default_rng(stable_seed(seed, pair.voxel_id, pair.image_id, "other"))
        other = pairs[int(pick.choice(np.flatnonzero(of_others[index])))].profile
        partnered.append(replace(pair, other=other, exchanged=partners[index]))
    return partnered


def stable_seed(*parts: object) -> int:
    """Returns a number below 2^31 that depends on the parts only, not on order or platform."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class _Turn(NamedTuple):
    """When a voxel is chosen; sorts by turn of its area, then best profile first."""

    turn: int
    negative_score: float
    row: int


def _voxel_order(profiles: Profiles, areas: np.ndarray) -> list[int]:
    """Rows of explained voxels; areas take turns, best profile first in each."""
    rows = np.flatnonzero(profiles.explained & (profiles.word_ids[:, 0] >= 0))
    score = np.nan_to_num(np.asarray(profiles.r_measured, np.float64), nan=-1)
    turns: list[_Turn] = []
    for area in np.unique(areas[rows]):
        members = rows[areas[rows] == area]
        best = members[np.argsort(-score[members], kind="stable")]
        turns += [_Turn(turn, -score[row], int(row)) for turn, row in enumerate(best)]
    return [turn.row for turn in sorted(turns)]


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


def _exchange(allowed: np.ndarray, rng: np.random.Generator) -> list[int]:
    """A random partner for every pair, as evenly used as possible."""
    uses = np.zeros(len(allowed))
    partners = np.zeros(len(allowed), int)
    for row in rng.permutation(len(allowed)):
        candidates = np.flatnonzero(allowed[row])
        least = candidates[uses[candidates] == uses[candidates].min()]
        partners[row] = int(rng.choice(least))
        uses[partners[row]] += 1
    return partners.tolist()


def _lowest(weights: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Marks in each row the allowed entries that are not above their lower quartile: [n, n] bool."""
    marked = np.zeros_like(allowed)
    for row in range(len(weights)):
        candidates = np.flatnonzero(allowed[row])
        limit = np.quantile(weights[row, candidates], _LACKING_QUANTILE)
        marked[row, candidates[weights[row, candidates] <= limit]] = True
    return marked
