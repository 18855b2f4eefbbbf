"""The roi stage: relates profiles to areas, and draws maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import roi
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Tests areas for preferred categories and structure, and maps accuracy and words."""
    settings, profiles = config.roi, files.load_profiles(directory)
    responses, scores = files.load_responses(directory), files.load_scores(directory)
    values: dict[str, np.ndarray] = {"r2": scores.r2, "r2_normalized": scores.r2_normalized}
    summary: dict[str, Any] = {}
    if profiles is not None:
        corpus, categories = files.corpus(directory), settings.categories or roi.CATEGORIES
        rows = np.searchsorted(responses.voxel_ids, profiles.voxel_ids)
        places = None if responses.places is None else responses.places.take(rows)
        selectivity = roi.selectivity(
            profiles,
            responses.rois[rows],
            corpus=corpus,
            categories=categories,
            places=places,
            fitted=responses.rois[scores.status == "ok"],
            settings=settings,
            seed=config.run.seed,
            progress=progress,
        )
        areas = responses.rois[rows]
        structure = roi.structure(
            profiles,
            areas,
            corpus=corpus,
            places=places,
            settings=settings,
            seed=config.run.seed,
            progress=progress,
        )
        contrasts = roi.contrasts(profiles, areas, places=places, settings=settings, progress=progress)
        files.save_roi(directory, selectivity, structure, contrasts)
        labels = roi.map_labels(profiles, responses.voxel_ids, corpus=corpus, categories=categories)
        values |= labels
        summary["preferred"] = {row["roi"]: row["category"] for row in selectivity if row["preferred"]}
        summary["structured"] = [row["roi"] for row in structure if row["is_structured"]]
    has_geometry = responses.volume is not None or responses.surface is not None
    maps = roi.write_maps(files.maps_folder(directory), responses, values) if has_geometry else []
    return {**summary, "maps": len(maps)}


STEP = Step(
    compute=compute,
    needs=("profile",),
    sections=("roi", "run.seed"),
    outputs=files.OUTPUTS["roi"],
    found=("preferred: {preferred}", "{maps} maps"),
)
