"""The encoder stage: fits one encoder per voxel, scores them, and plans what that holds in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder, features, memory, sharding, statistics
from mine_jax._numbers import count, decimal, prefixed
from mine_jax._progress import Progress, at_the_end, part_of
from mine_jax.config import Config, EncoderConfig, QueryConfig, RidgeConfig
from mine_jax.encoder import needs
from mine_jax.pipeline import fits
from mine_jax.run import files
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean
from mine_jax.types import Scores, Split


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Fits and scores the encoders, the ridge they are compared with, and the low-level rival of voxels and decoys."""
    splits = files.load_splits(config, directory)
    batches = fits.batches(config, splits)
    batch, reference, more = batches.whole, _reference(config.encoder), _more_layers(config, directory)
    n_fits = 1 + len(batches.halves) + (reference is not None) + len(more)
    own = (part_of(progress, i, n_fits) for i in range(n_fits))
    encoders = fits.fitted(config, config.encoder, batch, next(own), batches.moments)
    all_scores = fits.scored(config, encoders, batch)
    files.save_encoders(directory, encoders, all_scores)
    for i, half in enumerate(batches.halves):
        fitted = fits.fitted(config, config.encoder, half, next(own), batches.half_moments[i])
        seen = [half[name].responses.image_ids for name in ("train", "val")]
        files.save_half(directory, i, fitted, np.concatenate(seen))
    scores = all_scores.take(~encoder.is_decoy(all_scores.voxel_ids))
    files.save_voxels(directory, files.load_responses(directory), scores, None)
    usable = scores.status == "ok"
    summary = {
        "fitted": int(usable.sum()),
        "decoys": len(all_scores.voxel_ids) - len(usable),
        "mean_r2": _mean_r2(scores.r2[usable]),
        "mean_r": finite_mean(scores.r[usable]),
        "mean_r2_normalized": _mean_r2(scores.r2_normalized[usable]),
    }
    if "linear" in encoders.per_voxel:
        terms = np.asarray(encoders.per_voxel["linear"])[: len(usable)]
        summary["voxels_with_linear_term"] = int((terms[usable] != 0).any(1).sum())
    if reference is not None:
        linear = fits.scored(config, fits.fitted(config, reference, splits, next(own), batches.moments), splits)
        files.save_reference(directory, linear)
        summary["mean_r2_ridge"] = _mean_r2(linear.r2[usable])
    by_layer = {splits["train"].tokens.layer: scores}
    for layer, split in more:
        by_layer[layer] = fits.scored(config, fits.fitted(config, config.encoder, split, next(own)), split)
    files.save_layers(directory, files.load_responses(directory), by_layer)
    files.remove_rival(directory)
    rival = _rival(config, directory, batch)
    if rival is not None:
        low_level = _scored_rival(all_scores, rival, batch["test"])
        files.save_rival(directory, rival.predicted, low_level)
        summary["mean_r2_low_level"] = _mean_r2(low_level.r2[: len(usable)][usable])
    lags = encoder.compare_lags(*splits.values(), progress=at_the_end(progress))
    if lags is not None:
        summary |= {"r_by_lag": {f"{lag:+d}": r for lag, r in lags.rows.items()}, "r_of_lags": lags.said}
    warnings = [
        _worse_than_ridge(summary["mean_r2"], summary.get("mean_r2_ridge")),
        "" if lags is None else lags.warning,
    ]
    return {**summary, **({"warning": "; ".join(filter(None, warnings))} if any(warnings) else {})}


def _mean_r2(values: np.ndarray) -> float | None:
    return finite_mean([statistics.mean_r2(values)])


def _worse_than_ridge(r2: float | None, r2_ridge: float | None) -> str:
    """Warns of encoders that predict worse than the reference ridge: what they attribute explains less."""
    if r2 is None or r2_ridge is None or round(r2, 3) >= round(r2_ridge, 3):
        return ""
    return (
        "the encoders predict worse than ridge on the mean token (mean test R2 "
        f'{decimal(r2, 3)} against {decimal(r2_ridge, 3)}): try encoder.linear = true, or kind = "ridge"'
    )


def share(config: Config, directory: Path, progress: Progress) -> None:
    """Takes this process's share of the fits of `compute`; writes nothing."""
    splits = files.load_splits(config, directory)
    batches = fits.batches(config, splits)
    moments = (batches.moments, *batches.half_moments)
    for one, own in zip((batches.whole, *batches.halves), moments, strict=True):
        fits.fitted(config, config.encoder, one, progress, own)
    reference = _reference(config.encoder)
    if reference is not None:
        fits.fitted(config, reference, splits, progress, batches.moments)
    for _, split in _more_layers(config, directory):
        fits.fitted(config, config.encoder, split, progress)
    _rival(config, directory, batches.whole)


def plan(config: Config, directory: Path) -> list[str]:
    """Says how many voxels are fitted at once, what that holds in memory, and how much is computed."""
    planned = files.planned_sizes(config, directory)
    e, mesh, free = config.encoder, sharding.mesh(config.run.mesh), sharding.free_bytes()
    if planned is None or planned.said:
        # one cell, no image, and tokens no narrower than the encoder: what does not fit then never will
        least = {"n_images": 0, "token_shape": (e.pool**2, e.width)}
        never = _what_would_fit(e, 1, free, **least) if isinstance(e, QueryConfig) else []
        if planned is None or never:
            return [files.UNKNOWN if planned is None else planned.said, *never]
    sizes, lines = planned.sizes, [planned.said] if planned.said else []
    n_images, n_voxels, n_tokens, token_width = sizes
    fit = _planned_fit(config, sizes, mesh)
    lines += _devices(mesh, free)
    if isinstance(e, RidgeConfig):
        lines += [f"{count(n_voxels)} voxels, {count(n_images)} images, {e.folds} folds x {e.penalties} penalties"]
        return lines + _chunks(fit) + _growth(config, planned, mesh, fit)
    n_cells, width = n_tokens // e.pool**2, min(e.width, token_width)
    # three products per training step, two products and one Gram matrix per closed-form readout
    work = 2 * n_images * n_voxels * e.heads * width * (5 * n_cells + e.heads * width) * (e.epochs + 1) * e.members
    lines += [f"{count(n_voxels)} voxels, {count(n_images)} images x {n_cells} cells x width {width}"]
    lines += [*_chunks(fit), f"work at most {prefixed(work, 'FLOP')}", *_growth(config, planned, mesh, fit)]
    return lines + _what_would_fit(e, fit.chunk, free, n_images=n_images, token_shape=(n_tokens, token_width))


def _planned_fit(config: Config, sizes: files.Sizes, mesh: Mesh | None, wanted: int | None = None) -> memory.Plan:
    """Plans the fit of the encoders of the configuration."""
    e, token_shape = config.encoder, (sizes.n_tokens, sizes.token_width)
    wanted = wanted or config.run.voxel_chunk
    if isinstance(e, RidgeConfig):
        n_voxels = -(-sizes.n_voxels // sharding.n_shards(mesh, *sharding.DEVICES))
        return encoder.plan_ridge(e, n_images=sizes.n_images, n_voxels=n_voxels, token_shape=token_shape, wanted=wanted)
    n_voxels = -(-sizes.n_voxels // sharding.n_shards(mesh, sharding.VOXEL))
    return encoder.plan_query(e, n_images=sizes.n_images, n_voxels=n_voxels, token_shape=token_shape, wanted=wanted)


def _growth(config: Config, planned: files.Planned, mesh: Mesh | None, fit: memory.Plan) -> list[str]:
    """Says how memory and work grow with the numbers that are only examples."""
    names = [name for name in ("images", "voxels") if getattr(planned, name).is_example]
    if not names:
        return []
    lines = [f"work grows in proportion to {' and '.join(names)}"]
    if planned.images.is_example:
        twice = planned.sizes._replace(n_images=2 * planned.images.n)
        more = _planned_fit(config, twice, mesh, fit.chunk).bytes - fit.bytes
        lines += [f"every further {planned.images.n:,} images hold about {memory.readable(more)} more"]
    return lines


def _more_layers(config: Config, directory: Path) -> list[tuple[int, dict[str, Split]]]:
    """Opens the splits of the further layers that the features stage stored; decoys and halves are of the main one."""
    stored = files.load_more_layers(config, directory)
    return [(layer, files.load_splits(config, directory, tokens=tokens)) for layer, tokens in stored.items()]


def _rival(config: Config, directory: Path, batch: dict[str, Split]) -> encoder.Rival | None:
    """Fits the low-level rival, penalties chosen from the same range; None without statistics of the images."""
    low_level = files.load_low_level(directory)
    if low_level is None:
        return None
    return encoder.fit_rival(
        batch,
        low_level,
        groups=features.LOW_LEVEL_GROUPS,
        key=jax.random.key(config.run.seed),
        config=config.encoder if isinstance(config.encoder, RidgeConfig) else _ridge(config.encoder),
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
    )


def _scored_rival(scores: Scores, rival: encoder.Rival, test: Split) -> Scores:
    """Scores the rival like the encoders of the same voxels and decoys."""
    measured, usable = test.responses.responses, scores.status == "ok"
    r2, r = (
        np.where(usable, statistic(measured, rival.predicted), np.nan)
        for statistic in (statistics.r2, statistics.pearson)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        normalized = np.where(np.isfinite(scores.r2_normalized), r2 / scores.noise_ceiling, np.nan)
    selection = np.asarray(rival.r2_selection, np.float64)
    return replace(scores, r2=r2, r=r, r2_normalized=normalized, r2_selection=selection)


def _reference(e: EncoderConfig) -> RidgeConfig | None:
    """Returns the settings of the ridge to compare with, penalties chosen as the user says; None for no ridge."""
    return _ridge(e) if isinstance(e, QueryConfig) and e.reference else None


def _ridge(e: QueryConfig) -> RidgeConfig:
    return RidgeConfig(
        selection=e.selection,
        folds=e.folds,
        penalties=e.penalties,
        penalty_low=e.penalty_low,
        penalty_high=e.penalty_high,
    )


def _devices(mesh: Mesh | None, free: int) -> list[str]:
    if mesh is None:
        return [f"1 device, {memory.readable(free)} free"]
    axes = " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items())
    return [f"{mesh.size} devices ({axes}), {memory.readable(free)} free on each"]


def _what_would_fit(
    e: QueryConfig, n_voxels: int, free: int, *, n_images: int, token_shape: tuple[int, int]
) -> list[str]:
    """Says that so many voxels at once exceed the free bytes of a device, and which settings would not."""

    def need(**settings: Any) -> memory.Need:
        changed = e.model_copy(update=settings)
        return needs.query_need(changed, n_images=n_images, token_shape=token_shape)

    text, width, one = memory.readable, min(e.width, token_shape[1]), need()
    held = one.fixed + n_voxels * one.each
    if held <= free:
        return []
    voxels = count(n_voxels, "voxel")
    least = "about" if n_images else f"where image-tokens have {width} columns, at least"
    lines = [f"DOES NOT FIT: {voxels} at once on a device: {least} {text(held)}; {text(free)} are free"]
    size, together = e.heads * width, memory.fitting(one, free)
    if e.trunk == "shared":
        way = f"voxels that share a trunk are fitted together: about {together} fit (see data.roi), or add devices"
        return [*lines, way]
    if together:
        return [*lines, f"set run.voxel_chunk = {together}, or leave it out"]
    lines += [
        f"with a fixed trunk each of {e.heads} heads reads all {width} columns: "
        f"matrices of {size} x {size}, {text(4 * size**2)} each, for every voxel"
    ]
    if e.heads > 1 and width % e.heads == 0:
        lines += [
            f'set encoder.trunk = "shared": each head has {width // e.heads} columns of its own, '
            f"matrices of {width} x {width}, about {text(need(trunk='shared').each)} for every voxel"
        ]
    if n_images == 0:
        return lines
    heads = next((h for h in (e.heads >> n for n in range(1, 16)) if h and memory.fitting(need(heads=h), free)), None)
    return lines + ([] if heads is None else [f"or keep the fixed trunk with encoder.heads = {heads}"])


def _chunks(planned: memory.Plan) -> list[str]:
    held = memory.readable(planned.bytes)
    return [f"run.voxel_chunk = {planned.chunk} on each device, image-tokens included: about {held}"]


STEP = Step(
    compute=compute,
    needs=("data", "features"),
    sections=("encoder", "run.seed", "run.precision"),
    outputs=files.OUTPUTS["encoder"],
    plan=plan,
    share=share,
    found=(
        "{fitted} {units}",
        "mean test R2 {mean_r2}",
        "ridge on the mean token {mean_r2_ridge}",
        "R2 / noise ceiling {mean_r2_normalized}",
        "r by lag {r_of_lags}",
    ),
)
