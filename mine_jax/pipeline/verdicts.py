"""What `describe` returns: what may be said of each voxel, and why not more."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pandas as pd

from mine_jax._numbers import decimal
from mine_jax.convert import frames
from mine_jax.types import CLAIMS, Encoders, Profiles, Responses, Scores

# Voxels that are printed.
_N_VOXELS = 5


@dataclass(frozen=True, repr=False)
class Verdicts:
    """The ladder of claims of V voxels.

    Attributes:
        responses: what was measured; places and areas of the voxels.
        scores: accuracy on test images.
        encoders: the fitted encoders.
        profiles: of the voxels that were predicted well enough; None where none was.
        decoys: profiles of voxels with exchanged responses, judged like the others; None without.
        left_out: what a run with photos has and this has not.
    """

    responses: Responses
    scores: Scores
    encoders: Encoders
    profiles: Profiles | None
    decoys: Profiles | None
    left_out: tuple[str, ...]

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """One row for each voxel: accuracy, claim and reason, words of explained ones, effect, p, q of every rung."""
        table = frames.voxels(self.responses, self.scores, self.profiles)
        if self.profiles is None:
            return table
        of_profiles = frames.profile_voxels(self.profiles).drop(columns="claim")
        # voxels without a profile have no number of images: not 6.0 of the others
        return table.merge(of_profiles.astype({"n_images": "Int64"}), on="voxel_id", how="left")

    @property
    def words(self) -> pd.DataFrame:
        """One row for each word of each profile: rank, share (`weight`) and its 95 % interval (`low`, `high`)."""
        if self.profiles is None:
            return pd.DataFrame(columns=["voxel_id", "rank", "word", "weight", "low", "high", "log_odds"])
        return frames.profile_words(self.profiles)

    def __repr__(self) -> str:
        """Counts claims, and shows the best voxels."""
        table = self.table
        counts = table["claim"].value_counts().reindex(list(CLAIMS), fill_value=0)
        lines = [
            f"Verdicts: {len(table)} voxels, {self.scores.n_train} training and {self.scores.n_test} test images",
            "  " + ", ".join(f"{claim} {n}" for claim, n in counts.items() if n),
        ]
        if self.decoys is not None:
            lines.append(f"  decoys with words: {self.decoys.explained.sum()} of {len(self.decoys.voxel_ids)}")
        height = table["claim"].map(CLAIMS.index)
        shown = table.assign(height=height).sort_values(["height", "r2"], ascending=False, kind="stable")
        for row in shown.head(_N_VOXELS).to_dict("records"):
            said = row["words"] if row["explained"] == "true" else row["reason"]
            lines.append(f"  voxel {row['voxel_id']}  R2 {decimal(row['r2'])}  {row['claim']}: {said}")
        if self.left_out:
            lines.append(f"  left out: {'; '.join(self.left_out)}")
        return "\n".join(lines)
