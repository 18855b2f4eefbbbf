"""The profiles of a chain, and what may be claimed of each voxel: every rung of the ladder, beside decoys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mine_jax import encoder, memory, profile, sharding
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.description import CorpusShares, Presence
from mine_jax.memory import SparseRows
from mine_jax.types import Descriptions, Encoders, ImageTokens, Profiles, Responses, Scores, Split

# Voxels whose predictions and images are looked at together.
_VOXELS_AT_ONCE = 16384


class Pair(NamedTuple):
    """Descriptions of V x I pairs, and how faithful [V, I] their attributions are."""

    descriptions: Descriptions
    faithfulness: np.ndarray


class Described(NamedTuple):
    """All that profiles are built from.

    Attributes:
        voxels: their pairs, and the scores of all voxels that were fitted.
        decoys: the same of decoys; None where there are none.
        halves: pairs of voxels and decoys, of the refits on two halves of the images; none without refits.
        shares: of words, in the corpus and in every image.
        folder: where the tables of all voxels lie, in files without a name; None holds them in memory.
    """

    voxels: tuple[Pair, Scores]
    decoys: tuple[Pair, Scores] | None
    halves: list[Pair]
    shares: CorpusShares
    folder: Path | None = None


class Population(NamedTuple):
    """Voxels, or decoys: profiles of V, their scores, and the images [V, N] that made them, 1 / n for each of n."""

    profiles: Profiles
    scores: Scores
    used: SparseRows
    n_fitted: int


class HeldOut(NamedTuple):
    """Test images: shares of words [T, C]; measured responses, predictions and those of the rival, [T, V].

    Beside them `weights` [V, C], how much each word of a profile counts by the responses to training images.
    """

    words: SparseRows
    weights: SparseRows
    measured: np.ndarray
    predicted: np.ndarray
    rival: np.ndarray | None


def populations(config: Config, described: Described, progress: Progress) -> list[Population]:
    """Builds the profiles of voxels, then those of decoys where there are any.

    Args:
        config: of the chain.
        described: what they are built from.
        progress: called with (done, 2 V); the tests of `judge` are the other half.

    Returns:
        Voxels, then decoys.
    """
    decoys, common = [], None

    def still(done: int, total: int) -> None:
        """Lets signals through; decoys do not count."""
        progress(0, 1)

    if described.decoys is not None:
        halves = _halves(config, described, described.decoys[0].descriptions.voxel_ids)
        common = None if halves is None else profile.common_profile(halves, described.shares.mean)
        decoys = [_population(config, described, described.decoys, common, still)]

    def half_way(done: int, total: int) -> None:
        progress(done, 2 * total)

    return [_population(config, described, described.voxels, common, half_way), *decoys]


def held_out(
    config: Config,
    both: list[Population],
    described: Described,
    splits: dict[str, Split],
    encoders: Encoders,
    rival: tuple[np.ndarray, Scores] | None,
) -> HeldOut:
    """Collects what was measured and predicted in the test images, for voxels and decoys.

    Args:
        config: of the chain.
        both: from `populations`, V voxels and decoys.
        described: what they were built from.
        splits: the "train" images and the T images of "test", with decoys.
        encoders: of voxels and decoys.
        rival: what low-level statistics predict [T, V] of voxels and decoys, with the scores; None without.

    Returns:
        What `judge` tests on.
    """
    test, voxel_ids = splits["test"], np.concatenate([one.profiles.voxel_ids for one in both])
    shares, folder = described.shares, described.folder

    def columns(known: np.ndarray) -> np.ndarray:
        return np.searchsorted(known, voxel_ids)

    measured = memory.take_columns(test.responses.responses, columns(test.responses.voxel_ids), folder=folder)
    return HeldOut(
        words=shares.images.take(shares.rows_of(test.responses.image_ids)),
        weights=_weights(both, described, splits["train"].responses),
        measured=measured,
        predicted=_predicted(config, encoders.take(columns(np.asarray(encoders.voxel_ids))), test.tokens, folder),
        rival=None if rival is None else memory.take_columns(rival[0], columns(rival[1].voxel_ids), folder=folder),
    )


def judge(
    config: Config,
    both: list[Population],
    described: Described,
    unseen: HeldOut,
    progress: Progress,
) -> tuple[Profiles, Profiles | None]:
    """Tests every rung of the ladder, for voxels and for decoys.

    Args:
        config: of the chain.
        both: from `populations`.
        described: what they were built from.
        unseen: test images, of voxels, then decoys.
        progress: called with (done, total), from the half on.

    Returns:
        Profiles of voxels and of decoys, with their claims.
    """
    settings, voxels, shares = config.profile, both[0], described.shares
    distribution = memory.concatenated([one.profiles.distribution for one in both], folder=described.folder)
    measured = profile.measured_test(
        distribution,
        shares.mean,
        unseen.words,
        unseen.measured,
        weights=unseen.weights,
        predicted=unseen.predicted,
        rival=unseen.rival,
        n_permutations=settings.n_permutations,
        seed=config.run.seed,
        progress=lambda done, total: progress(2 * total + done, 4 * total),
    )
    localised = profile.localised_test(
        distribution,
        profile.WholeImages(memory.concatenated([one.used for one in both]), shares.images),
        shares.mean,
        unseen.words,
        unseen.measured,
        n_permutations=settings.n_permutations,
        seed=config.run.seed,
        progress=lambda done, total: progress(3 * total + done, 4 * total),
    )
    limits = profile.Limits(settings.max_q, settings.min_share, settings.max_rank)
    n_voxels = len(voxels.profiles.voxel_ids)
    of_voxels = _evidence(voxels, measured, localised, np.arange(n_voxels))
    of_decoys, judged_decoys = None, None
    if len(both) > 1:
        decoys = both[1]
        of_decoys = _evidence(decoys, measured, localised, np.arange(n_voxels, len(distribution)))
        climbed = profile.climb_decoys(of_decoys, limits)
        judged_decoys = _with_claims(decoys, of_decoys, climbed, settings.min_images)
    rungs = profile.climb(of_voxels, of_decoys, limits)
    return _with_claims(voxels, of_voxels, rungs, settings.min_images), judged_decoys


def _predicted(config: Config, encoders: Encoders, tokens: ImageTokens, folder: Path | None) -> np.ndarray:
    """Predicts responses [T, V], in a file without a name where there is a folder."""

    def predicted(some: Encoders) -> np.ndarray:
        mesh, run = sharding.local(sharding.mesh(config.run.mesh)), config.run
        return encoder.predict(some, tokens, voxel_chunk=run.voxel_chunk, image_chunk=run.image_chunk, mesh=mesh)

    n_voxels = len(encoders.voxel_ids)
    if folder is None or n_voxels <= _VOXELS_AT_ONCE:
        return predicted(encoders)
    out = memory.scratch((len(tokens.image_ids), n_voxels), np.float32, folder)
    for block in memory.blocks(n_voxels, _VOXELS_AT_ONCE):
        out[:, block] = predicted(encoders.take(np.arange(block.start, block.stop)))
        memory.release(out)
    return out


def _weights(both: list[Population], described: Described, training: Responses) -> SparseRows:
    """Weighs the words of all profiles by measured responses to the training images, some voxels at a time."""
    shares = described.shares
    presence = Presence.of(shares.images.take(shares.rows_of(training.image_ids)))
    at_once = memory.BLOCK_BYTES // (16 * max(presence.by_image.shape))

    def parts() -> Iterator[SparseRows]:
        for profiles in (one.profiles for one in both):
            columns = np.searchsorted(training.voxel_ids, profiles.voxel_ids)
            for block in memory.blocks(len(columns), at_once):
                measured = np.asarray(training.responses[:, columns[block]])
                yield profile.word_weights(profiles.distribution.take(block), presence, measured)

    return memory.concatenated(parts(), folder=described.folder)


def _population(
    config: Config,
    described: Described,
    one: tuple[Pair, Scores],
    common: np.ndarray | None,
    progress: Progress,
) -> Population:
    (descriptions, faithfulness), scores = one
    settings, shares = config.profile, described.shares
    usable = _of_no_test(descriptions.image_ids, shares)
    chosen = profile.most_faithful(
        faithfulness, usable=usable, quantile=settings.faithfulness_quantile, min_images=settings.min_images
    )
    profiles = profile.build(
        descriptions,
        faithfulness,
        corpus=shares.mean,
        chosen=chosen,
        n_words=settings.n_words,
        n_bootstrap=settings.n_bootstrap,
        seed=config.run.seed,
        folder=described.folder,
        progress=progress,
    )
    halves = _halves(config, described, descriptions.voxel_ids)
    if halves is not None:
        profiles = profile.with_halves(profiles, halves, corpus=shares.mean, common=common)
    rows = np.searchsorted(scores.voxel_ids, descriptions.voxel_ids)
    n_fitted = int((scores.status == "ok").sum())
    return Population(profiles, scores.take(rows), _used(descriptions, chosen, shares), n_fitted)


def _of_no_test(image_ids: np.ndarray, shares: CorpusShares) -> np.ndarray:
    """Says which images [V, I] are not for tests."""
    is_test, usable = shares.splits == "test", np.empty(image_ids.shape, bool)
    for block in memory.blocks(len(image_ids), memory.BLOCK_BYTES // (64 * max(1, image_ids.shape[1]))):
        usable[block] = ~is_test[shares.rows_of(image_ids[block])]
    return usable


def _halves(config: Config, described: Described, voxel_ids: np.ndarray) -> tuple[SparseRows, SparseRows] | None:
    """Builds the profiles, two of [V, C], of the refits on two halves of the images; None where there are none."""
    if len(described.halves) < 2:
        return None
    settings, tables = config.profile, []
    for descriptions, faithfulness in described.halves:
        chosen = profile.most_faithful(
            faithfulness, quantile=settings.faithfulness_quantile, min_images=settings.min_images
        )
        rows = np.searchsorted(descriptions.voxel_ids, voxel_ids)
        of_all = profile.mean_shares(descriptions, chosen, folder=described.folder)
        tables.append(of_all.take(rows))
    return tables[0], tables[1]


def _used(descriptions: Descriptions, chosen: np.ndarray, shares: CorpusShares) -> SparseRows:
    """Lists the images that made each profile, [V, N]."""

    def parts() -> Iterator[SparseRows]:
        yield memory.empty_rows(0, len(shares.image_ids))
        for block in memory.blocks(len(chosen), _VOXELS_AT_ONCE):
            voxel, image = np.nonzero(chosen[block])
            rows, counts = shares.rows_of(descriptions.image_ids[block][voxel, image]), chosen[block].sum(1)
            yield memory.summed_rows(counts, rows, 1 / counts[voxel], len(shares.image_ids))

    return memory.concatenated(parts())


def _evidence(
    population: Population, measured: profile.MeasuredTest, localised: profile.LocalisedTest, rows: np.ndarray
) -> profile.Evidence:
    return profile.Evidence(
        r2_selection=population.scores.r2_selection,
        reliability=np.asarray(population.profiles.reliability, np.float64),
        measured=measured.take(rows),
        localised=localised.take(rows),
        n_fitted=population.n_fitted,
    )


def _with_claims(
    population: Population, evidence: profile.Evidence, rungs: dict[str, profile.Rung], min_images: int
) -> Profiles:
    profiles = replace(population.profiles, r_measured=evidence.measured.r.astype(np.float32))
    return profile.judge(profiles, rungs, statuses=population.scores.status, min_images=min_images)
