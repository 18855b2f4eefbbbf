"""The nine stages as a graph: what each reads, which settings change it, what it owns."""

from __future__ import annotations

from pathlib import Path

from mine_jax.config import Config, FolderConfig, NsdConfig, PrecomputedConfig
from mine_jax.run import plans, steps
from mine_jax.run.execute import Step


def _inputs_data(config: Config) -> list[Path]:
    d = config.data
    if isinstance(d, FolderConfig):
        named = (d.images, d.responses, d.image_ids, d.trials, d.mask, d.rois)
        return [Path(p) for p in named if p is not None] + (
            [Path(d.test)] if isinstance(d.test, str) and d.test != "shared" else []
        )
    if isinstance(d, NsdConfig) and d.root is not None:
        return [Path(d.root) / "nsddata_betas" / "ppdata" / d.subject / d.space / d.beta_version]
    return []


def _inputs_features(config: Config) -> list[Path]:
    f = config.features
    if isinstance(f, PrecomputedConfig):
        named = (f.tokens, f.token_image_ids, f.mask, f.unembedding, f.unembedding_bias, f.words)
    else:
        named = (f.words, None if f.model == "phantom" else f.model)
    return [Path(p) for p in named if p is not None]


def _inputs_validation(config: Config) -> list[Path]:
    return [Path(v) for v in (config.validation.generator, config.validation.editor) if Path(v).is_dir()]


_RUN = ("run.seed", "run.precision")
STEPS = {
    "data": Step(
        steps.data_step,
        (),
        ("data", "run.seed"),
        ("data/*", "images.tsv", "voxels.tsv"),
        _inputs_data,
        plan=plans.data_plan,
    ),
    "features": Step(
        steps.features_step,
        ("data",),
        ("features", "run.precision"),
        ("features/*",),
        _inputs_features,
        ("features/*",),
        plans.features_plan,
    ),
    "encoder": Step(
        steps.encoder_step,
        ("data", "features"),
        ("encoder", *_RUN),
        ("encoder/*", "scores/*", "voxels.tsv"),
        plan=plans.encoder_plan,
        together=steps.share_encoder,
    ),
    "attribution": Step(
        steps.attribution_step,
        ("features", "encoder"),
        ("attribution", *_RUN),
        ("attribution/*",),
        plan=plans.attribution_plan,
        together=steps.share_attribution,
    ),
    "description": Step(
        steps.description_step, ("features", "attribution"), ("description", "run.precision"), ("description/*",)
    ),
    "profile": Step(
        steps.profile_step, ("encoder", "description"), ("profile", "run.seed"), ("profile/*", "voxels.tsv")
    ),
    "validation": Step(
        steps.validation_step,
        ("features", "encoder", "attribution", "description", "profile"),
        ("validation", *_RUN),
        ("validation/*",),
        _inputs_validation,
        ("validation/images/*", "validation/.work/*"),
    ),
    "roi": Step(steps.roi_step, ("profile",), ("roi", "run.seed"), ("roi/*", "maps/*")),
    "report": Step(steps.report_step, ("profile", "validation", "roi"), (), ("report.html",)),
}
