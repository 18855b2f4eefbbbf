"""The types as tables of pandas, one row for each voxel, word or image; column names are those of a run's tables."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.types import CLAIMS, Profiles, Responses, Scores, reaches

# Words of a profile that stand in the table of voxels.
_N_WORDS = 3
# Of a voxel that was fitted, and that no profile was built for.
TOO_POOR = "not profiled: R2 on the images that chose its encoder (r2_selection) is below attribution.min_r2"

# Status of a voxel that was not fitted or scored -> why nothing is said of it; another status says it itself.
UNFIT = {
    "constant": "responses do not vary",
    "nonfinite": "responses are not finite",
    "low_ceiling": "noise ceiling is below data.min_noise_ceiling",
    "diverged": "the fit did not converge",
    "n_test<2": "fewer than 2 test images have responses",
}


def voxels(responses: Responses, scores: Scores | None, profiles: Profiles | None) -> pd.DataFrame:
    """Tables what is known of voxels so far; numbers of later stages are empty.

    Args:
        responses: V voxels.
        scores: of the same voxels, or None before the encoder stage.
        profiles: of some of the voxels, or None before the profile stage.

    Returns:
        One row for each voxel. `words` has the first words of explained voxels, with their shares and 95 % intervals,
        and nothing of others.
    """
    n_voxels = len(responses.voxel_ids)
    table = pd.DataFrame({"voxel_id": responses.voxel_ids})
    if responses.indices is not None:
        table[["i", "j", "k"]] = responses.indices
    if responses.surface is not None:
        table["hemi"], table["vertex"] = responses.surface.places(responses.voxel_ids)
    table["rois"] = responses.rois
    table["ncsnr"], table["noise_ceiling"] = responses.ncsnr, responses.noise_ceiling
    for name in ("r2", "r", "r2_normalized", "r2_selection"):
        table[name] = np.nan if scores is None else getattr(scores, name)
    table["n_train"] = 0 if scores is None else scores.n_train
    table["n_test"] = 0 if scores is None else scores.n_test
    table["status"] = responses.status if scores is None else scores.status
    words = np.full(n_voxels, "", dtype=object)
    claim, reason = np.full(n_voxels, CLAIMS[0], dtype=object), np.array(["not profiled"] * n_voxels, dtype=object)
    unfit = (table["status"] != "ok").to_numpy()
    reason[unfit] = [UNFIT.get(status, status) for status in table["status"].to_numpy()[unfit]]
    if profiles is not None:
        reason[~unfit] = TOO_POOR
        rows = np.searchsorted(responses.voxel_ids, profiles.voxel_ids)
        claim[rows], reason[rows] = profiles.claims, profiles.reasons
        explained = np.flatnonzero(profiles.explained)
        words[rows[explained]] = [_first_words(profiles, voxel) for voxel in explained]
    table["claim"] = claim
    table["explained"] = np.where(reaches(claim, "words"), "true", "false")
    table["reason"], table["words"] = reason, words
    return table


def _first_words(profiles: Profiles, voxel: int) -> str:
    """Writes the first words of a profile with their shares and intervals."""
    ranks = np.flatnonzero(profiles.word_ids[voxel] >= 0)[:_N_WORDS]
    texts = [
        f"{profiles.words[profiles.word_ids[voxel, rank]]} {profiles.weights[voxel, rank]:.2f} "
        f"[{profiles.low[voxel, rank]:.2f}, {profiles.high[voxel, rank]:.2f}]"
        for rank in ranks
    ]
    return ", ".join(texts)


def profile_words(profiles: Profiles) -> pd.DataFrame:
    """Tables the ranked words of every voxel."""
    v, rank = np.nonzero(profiles.word_ids >= 0)
    return pd.DataFrame(
        {
            "voxel_id": profiles.voxel_ids[v],
            "rank": rank + 1,
            "word": profiles.words[profiles.word_ids[v, rank]],
            **{name: getattr(profiles, name)[v, rank] for name in ("weights", "low", "high", "log_odds")},
        }
    ).rename(columns={"weights": "weight"})


def profile_voxels(profiles: Profiles) -> pd.DataFrame:
    """Tables every rung of the ladder."""
    names = ("n_images", "reliability", "faithfulness", "r_measured")
    table = pd.DataFrame({"voxel_id": profiles.voxel_ids, **{name: getattr(profiles, name) for name in names}})
    for claim in CLAIMS[1:]:
        for name, values in (
            ("effect", profiles.effects),
            ("p", profiles.p_values),
            ("q", profiles.q_values),
        ):
            table[f"{name}_{claim}"] = values.get(claim, np.nan)
    table["claim"] = profiles.claims
    return table


@functools.singledispatch
def frame(value: Any) -> pd.DataFrame:
    """Tables responses (a row for each image), scores or profiles (a row for each voxel)."""
    raise TypeError(f"{type(value).__name__} has no table; responses, scores and profiles do.")


@frame.register
def _(value: Responses) -> pd.DataFrame:
    rows, columns = pd.Index(value.image_ids, name="image_id"), pd.Index(value.voxel_ids, name="voxel_id")
    return pd.DataFrame(np.asarray(value.responses), index=rows, columns=columns)


@frame.register
def _(value: Scores) -> pd.DataFrame:
    names = ("voxel_id", "r2", "r", "r2_normalized", "noise_ceiling", "r2_selection", "status")
    return pd.DataFrame({name: getattr(value, "voxel_ids" if name == "voxel_id" else name) for name in names})


@frame.register
def _(value: Profiles) -> pd.DataFrame:
    return profile_voxels(value).assign(reason=value.reasons)
