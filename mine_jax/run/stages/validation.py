"""The validation stage in a run directory: reads what it tests, keeps images, writes `validation/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import attribution, data, features, sharding, validation
from mine_jax._progress import Progress
from mine_jax.config import (
    Config,
    DataConfig,
    FolderConfig,
    PhantomConfig,
    PrecomputedConfig,
    judging_features,
    judging_model,
)
from mine_jax.features import Backbone
from mine_jax.run import files
from mine_jax.run.execute import Step
from mine_jax.types import CLAIMS, Profiles, Split
from mine_jax.validation import simulated
from mine_jax.validation.inputs import Inputs, Reading
from mine_jax.validation.makers import models
from mine_jax.validation.simulated import Truth

PRECOMPUTED = (
    "precomputed features: no model here can read new images, so none are generated or edited; the profile stage "
    "tests words on measured responses (profile/voxels.tsv)"
)
# The independent evaluator is scored on at most this many images.
MAX_SCORED = 1000
# Of a phantom: planted truth, and the shape of its volume.
_TRUTH = ("phantom.json", "phantom_scenes.jsonl", "phantom_truth.tsv")


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Makes and scores generated and edited images; writes validation/."""
    # models that do not fit are named before anything is read
    if models.choose(config.validation) is None:
        return _nothing(directory, models.NOT_CONFIGURED)
    inputs = read_inputs(config, directory)
    if isinstance(inputs, str):
        return _nothing(directory, inputs)
    result = validation.validate(
        inputs,
        config.validation,
        images=files.validation_images(directory),
        seed=config.run.seed,
        mesh=sharding.local(sharding.mesh(config.run.mesh)),  # the other processes have no part in this stage
        progress=progress,
    )
    if result.reason:
        return _nothing(directory, result.reason)
    files.save_validation(directory, result.tables, result.meta)
    voxels = result.tables.get("voxels")
    if voxels is None or voxels.empty:
        _save_claims(directory, inputs.profiles)
        return result.numbers
    raised = validation.with_causal(inputs.profiles, voxels, max_q=config.validation.max_q)
    _save_claims(directory, raised)
    return {**result.numbers, "raised_to_causal": int((raised.claims == CLAIMS[-1]).sum())}


def read_inputs(config: Config, directory: Path) -> Inputs | str:
    """Reads a run directory up to the profile stage.

    Args:
        config: of the run.
        directory: of the run.

    Returns:
        The inputs, or why there is nothing to validate.
    """
    source = files.data_source(config, directory)
    if isinstance(config.features, PrecomputedConfig):
        return PRECOMPUTED
    reason = files.why_no_profiles(directory)
    if reason is not None:
        return reason
    descriptions, profiles = files.load_descriptions(directory), files.load_profiles(directory)
    heat, lens = files.load_heat(directory, descriptions.image_ids.shape), files.load_lens(directory)
    if heat is None:
        return "the scores of all tokens were not kept; set attribution.keep_scores = true"
    if lens is None or profiles is None:
        return "no profiles"
    responses, splits = files.load_responses(directory), files.load_splits(config, directory)
    rows = np.searchsorted(responses.voxel_ids, profiles.voxel_ids)
    return Inputs(
        encoders=files.load_encoders(directory).take(rows),
        scores=files.load_scores(directory).take(rows),
        descriptions=descriptions,
        profiles=profiles,
        areas=responses.rois[rows],
        heat=heat,
        tokens=files.load_tokens(directory),
        lens=lens,
        backbone=features.load_backbone_like(
            config.features, directory / "features", precision=config.run.precision, mesh=config.run.mesh
        ),
        reading=Reading(
            layer=config.features.layer,
            dtype=config.features.dtype,
            batch_size=config.features.batch_size,
            m=config.description.m,
            k=attribution.n_critical(config.attribution.k, heat.shape[2]),
        ),
        stimuli=data.open_stimuli(source),
        unseen=Split(splits["test"].tokens, splits["test"].responses.take(rows), "test"),
        seen=_spaced(splits["train"], rows),
        corpus=files.corpus(directory),
        image_words=files.test_words(directory),
        image_ids=files.test_images(directory),
        truth=_truth(source),
        other_backbones=_other_backbones(config),
    )


def check(config: Config, directory: Path) -> None:
    """Raises for models that are not there, that do not fit their role, or that need a phantom."""
    del directory
    chosen = models.choose(config.validation) or {}
    if isinstance(config.features, PrecomputedConfig):
        return
    if not isinstance(config.data, PhantomConfig) and not _truth_files(config.data):
        for role, model in chosen.items():
            models.with_exact(model, role, None)
    judging = judging_features(config.validation.evaluator)
    if judging is not None:
        features.check_folder(judging)


def inputs(config: Config) -> list[Path]:
    """Returns the model directories, and files of a phantom's truth, whose change makes the stage stale."""
    v = config.validation
    models = [Path(name) for name in (v.generator, v.editor, judging_model(v.evaluator)) if name]
    return [*(path for path in models if path.is_dir()), *_truth_files(config.data)]


STEP = Step(
    compute=compute,
    needs=("features", "encoder", "attribution", "description", "profile"),
    sections=("validation", "run.seed", "run.precision"),
    outputs=files.OUTPUTS["validation"],
    inputs=inputs,
    check=check,
    partial=files.KEPT["validation"],
    found=("{pairs} pairs", "{causal} {units} moved by their own words"),
)


def _nothing(directory: Path, reason: str) -> dict[str, Any]:
    files.save_no_validation(directory, reason)
    profiles = files.load_profiles(directory)
    if profiles is not None:
        # an earlier validation may have raised claims
        _save_claims(directory, profiles)
    return {"pairs": 0, "reason": reason}


def _save_claims(directory: Path, profiles: Profiles) -> None:
    """Writes the tables of voxels, where their claims are not what the tables say."""
    claims = files.voxels_table(directory).set_index("voxel_id")["claim"]
    if (claims.reindex(profiles.voxel_ids).to_numpy() != profiles.claims).any():
        files.save_profile_voxels(directory, profiles)
        files.save_voxels(directory, files.load_responses(directory), files.load_scores(directory), profiles)


def _other_backbones(config: Config) -> dict[str, Backbone]:
    """Loads the backbone of an evaluator that sees images through another one, by the evaluator's name."""
    judging = judging_features(config.validation.evaluator)
    if judging is None:
        return {}
    backbone = features.load_backbone(judging, precision=config.run.precision, mesh=config.run.mesh)
    return {f"ridge on {backbone.name} (independent)": backbone}


def _spaced(split: Split, voxels: np.ndarray) -> Split:
    """Takes some voxels, and at most `MAX_SCORED` images, evenly spaced."""
    n_images = len(split.responses.image_ids)
    images = np.linspace(0, n_images - 1, min(n_images, MAX_SCORED)).round().astype(int)
    return Split(split.tokens.take_images(images), split.responses.take_images(images).take(voxels), split.name)


def _truth_files(source: DataConfig) -> list[Path]:
    """Files of a phantom's truth that lie beside the data; none for other data."""
    root = getattr(source, "root", None)
    named = [Path(root) / name for name in _TRUTH] if root else []
    return [path for path in named if path.is_file()]


def _truth(source: DataConfig) -> Truth | None:
    """Reads the planted truth, where the data set has one beside it."""
    if (
        isinstance(source, FolderConfig)
        or source.root is None
        or not (Path(source.root) / "phantom_scenes.jsonl").is_file()
    ):
        return None
    return simulated.read_truth(source.root, subject=source.subject)
