"""Words that should not move the voxel, or less: of other image-tokens, of other voxels, and hard distractors.

Hard distractors are as near to the voxel's own words as words can be that it does not have: of its area, of
nearly the same meaning, or of things that come along in images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mine_jax import description
from mine_jax.description import TokenWords
from mine_jax.memory import sparse_rows
from mine_jax.types import CriticalTokens, Lens, Profiles
from mine_jax.validation.pairs.choose import Pair, leading_words, stable_seed

# Control tokens are at most this share of an image, so that they differ from the critical ones.
_CONTROL_SHARE = 0.25
# Words of other voxels: weights up to this quantile are little.
_LITTLE_QUANTILE = 0.25
# A word is the voxel's own if it has this share of its first word's weight.
_OWN_WEIGHT = 0.25


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
    rows = sparse_rows(profiles.distribution).take(np.array([pair.row for pair in pairs]))
    shares = np.nan_to_num(rows.dense().astype(np.float64))
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


def with_distractors(
    pairs: Sequence[Pair],
    profiles: Profiles,
    areas: np.ndarray,
    lens: Lens,
    token_words: TokenWords,
    *,
    image_words: np.ndarray,
    seed: int = 0,
) -> list[Pair]:
    """Gives every pair hard distractors, as many words as its profile has.

    Args:
        pairs: from `choose_pairs`.
        profiles: of V voxels; any explained one may lend its words.
        areas: [V] str.
        lens: W words, whose vectors say which mean nearly the same.
        token_words: of the pairs' images; their vocabulary is that of the profiles, C words.
        image_words: [T, C] shares of words in held-out images.
        seed: of the voxels that lend their words.

    Returns:
        The pairs with `area`, `near`, `cooccurring` and `bystanders`; empty where there are none.
    """
    column = {word: index for index, word in enumerate(profiles.words.tolist())}
    vectors = _unit(_word_vectors(lens, token_words))
    shares = _unit(image_words.T - image_words.mean(0)[:, None])
    in_image = dict(zip(token_words.image_ids.tolist(), token_words.per_image().dense(), strict=True))
    completed = []
    for pair in pairs:
        own = {*_own_words(profiles, pair.row), *pair.profile, *pair.description}
        is_own = np.isin(profiles.words, list(own))
        wanted = [column[word] for word in pair.profile if word in column]
        rng = np.random.default_rng(stable_seed(seed, pair.voxel_id, pair.image_id, "area"))
        shown = np.where(is_own, 0, in_image[pair.image_id])
        completed.append(
            replace(
                pair,
                area=_of_area(profiles, areas, pair, own, rng),
                near=_most_like(profiles.words, vectors[wanted] @ vectors.T, is_own),
                cooccurring=_most_like(profiles.words, shares[wanted] @ shares.T, is_own),
                bystanders=_names(profiles.words, shown, max(1, len(pair.present))),
            )
        )
    return completed


def _own_words(profiles: Profiles, row: int) -> tuple[str, ...]:
    ids, weights = profiles.word_ids[row], profiles.weights[row]
    return leading_words(profiles.words, ids, weights, n=len(ids), min_weight=_OWN_WEIGHT)


def _of_area(
    profiles: Profiles, areas: np.ndarray, pair: Pair, own: set[str], rng: np.random.Generator
) -> tuple[str, ...]:
    """Leading words of a random voxel of the same area, without this voxel's own."""
    beside = np.flatnonzero(profiles.explained & (areas == areas[pair.row]) & (np.arange(len(areas)) != pair.row))
    for row in rng.permutation(beside):
        words = tuple(word for word in _own_words(profiles, int(row)) if word not in own)
        if words:
            return words[: max(1, len(pair.profile))]
    return ()


def _most_like(words: np.ndarray, likeness: np.ndarray, is_own: np.ndarray) -> tuple[str, ...]:
    """Takes for each wanted word [n, C] the word most like it that is neither the voxel's nor taken."""
    taken, chosen = is_own.copy(), []
    for row in likeness:
        free = np.where(taken, -np.inf, row)
        best = int(free.argmax())
        if free[best] > 0:
            chosen.append(str(words[best]))
            taken[best] = True
    return tuple(chosen)


def _names(words: np.ndarray, shares: np.ndarray, n: int) -> tuple[str, ...]:
    order = np.argsort(-shares, kind="stable")[:n]
    return tuple(str(words[index]) for index in order if shares[index] > 0)


def _word_vectors(lens: Lens, token_words: TokenWords) -> np.ndarray:
    """Mean vector [C, J] of the entries of the lens that are one canonical word."""
    index = token_words.vocabulary.index
    kept = index >= 0
    sums = np.zeros((len(token_words.vocabulary.words), lens.unembedding.shape[1]), np.float32)
    np.add.at(sums, index[kept], np.asarray(lens.unembedding, np.float32)[kept])
    return sums - sums.mean(0)


def _unit(rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


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
        limit = np.quantile(weights[row, candidates], _LITTLE_QUANTILE)
        marked[row, candidates[weights[row, candidates] <= limit]] = True
    return marked
