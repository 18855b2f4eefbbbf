"""What each stage reads and writes in a run directory.

One function per stage: it loads what earlier stages left, calls the stage's public
functions, saves the result and returns numbers for the summary. No science lives here.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mine_jax import artifacts, attribution, data, description, encoder, features, profile, roi, sharding, validation
from mine_jax._progress import Progress, silent
from mine_jax.config import Config, EncoderConfig, FolderConfig, PhantomConfig, QueryConfig, RidgeConfig
from mine_jax.errors import CheckpointError
from mine_jax.run import files, tables
from mine_jax.types import Encoders, ImageTokens, Scores, Split

logger = logging.getLogger("mine_jax")
_REFERENCE = RidgeConfig()
# Settings of the attribution that say how the path is integrated.
_PATH_OPTIONS = ("baseline", "n_steps", "max_steps", "tolerance", "method", "quadrature", "reduce")


def data_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Reads responses, splits the images, writes data/, images.tsv and voxels.tsv."""
    _write_phantom(config, directory, progress)
    source = files.data_source(config, directory)
    responses, stimuli = data.load(source, directory=directory / "data", progress=progress)
    if source.permute:
        order = np.random.default_rng(config.run.seed).permutation(len(responses.image_ids))
        responses = replace(responses, responses=responses.responses[order])
    splits = data.assign_splits(responses, stimuli, test=source.test, val=source.val, seed=config.run.seed)
    artifacts.save(responses, directory / "data")
    artifacts.write_table(directory / "images.tsv", tables.images(responses, splits))
    artifacts.write_table(directory / "voxels.tsv", tables.voxels(responses, None, None))
    counts = {name: int((splits == name).sum()) for name in ("train", "val", "test")}
    usable = int((responses.status == "ok").sum())
    return {"voxels": len(responses.voxel_ids), "usable": usable, "images": len(responses.image_ids), **counts}


def features_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Extracts image-tokens into features/, or refers to the precomputed ones."""
    shown = files.shown_stimuli(config, directory)
    out = directory / "features"
    settings = {"precision": config.run.precision, "mesh": config.run.mesh}
    try:
        tokens, lens = features.load_features(config.features, shown, directory=out, progress=progress, **settings)
    except CheckpointError as error:
        # the stage is stale, or it would not run: shards of another extraction are of no use
        logger.warning("features/ is extracted anew: %s", error)
        shutil.rmtree(out, ignore_errors=True)
        tokens, lens = features.load_features(config.features, shown, directory=out, progress=progress, **settings)
    n_images, n_tokens, width = tokens.tokens.shape
    words = 0 if lens is None else len(lens.words)
    return {"images": n_images, "tokens": n_tokens, "width": width, "words": words, "model": tokens.model}


def encoder_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Fits and scores the encoders; writes encoder/, scores/ and voxels.tsv."""
    splits = files.load_splits(config, directory)
    n_train = len(splits["train"].responses.image_ids) + len(splits["val"].responses.image_ids)

    def fitted(settings: EncoderConfig, report: Progress) -> tuple[Encoders, Scores]:
        encoders = _fitted(config, splits, settings, report)
        mesh = sharding.local(sharding.mesh(config.run.mesh))  # the other processes are at the next fit
        chunk = config.run.voxel_chunk
        return encoders, encoder.score(encoders, splits["test"], n_train=n_train, voxel_chunk=chunk, mesh=mesh)

    encoders, scores = fitted(config.encoder, progress)
    artifacts.save(encoders, directory / "encoder")
    artifacts.save(scores, directory / "scores")
    artifacts.write_table(directory / "voxels.tsv", tables.voxels(files.load_responses(directory), scores, None))
    usable = scores.status == "ok"
    summary = {
        "fitted": int(usable.sum()),
        "mean_r2": _mean(scores.r2[usable]),
        "mean_r": _mean(scores.r[usable]),
        "mean_r2_normalized": _mean(scores.r2_normalized[usable]),
    }
    if _has_reference(config):
        _, linear = fitted(_REFERENCE, silent)
        artifacts.save(linear, directory / "scores" / "ridge")
        summary["mean_r2_ridge"] = _mean(linear.r2[usable])
    return summary


def share_encoder(config: Config, directory: Path, progress: Progress) -> None:
    """Takes this process's share of the fits of `encoder_step`; writes nothing."""
    splits = files.load_splits(config, directory)
    _fitted(config, splits, config.encoder, progress)
    if _has_reference(config):
        _fitted(config, splits, _REFERENCE, progress)


def attribution_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Attributes, patches and writes attribution/."""
    settings, out = config.attribution, directory / "attribution"
    scores, pairs = files.load_scores(directory), _attributed_pairs(config, directory)
    if pairs is None:
        artifacts.write_json(out / "meta.json", {"schema": artifacts.SCHEMA, "n_voxels": 0})
        return {"voxels": 0, "reason": f"no voxel has r2 >= {settings.min_r2:g}"}
    encoders, tokens, image_ids = pairs
    n_voxels = len(encoders.voxel_ids)
    with contextlib.ExitStack() as stack:
        keep = None
        if settings.keep_scores:
            temporary = stack.enter_context(artifacts.atomic(out / "heat.npy"))
            shape = (n_voxels, image_ids.shape[1], tokens.tokens.shape[1])
            keep = _heat_writer(temporary, shape)
        else:
            (out / "heat.npy").unlink(missing_ok=True)
        attributions, critical, faithfulness = _attributed(config, *pairs, progress, keep)
    k = critical.indices.shape[2]
    artifacts.write_table(out / "pairs.tsv", tables.pairs(attributions, faithfulness, tolerance=settings.tolerance))
    artifacts.write_array(out / "tokens.npy", critical.indices.reshape(-1, k))
    artifacts.write_array(out / "scores.npy", critical.scores.reshape(-1, k))
    artifacts.write_table(out / "curves.tsv", tables.curves(attributions, faithfulness, seed=config.run.seed))
    per_voxel = tables.attributed_voxels(attributions, faithfulness, critical, scores)
    artifacts.write_table(out / "voxels.tsv", per_voxel)
    artifacts.save(faithfulness, out / "faithfulness")
    n_images = attributions.image_ids.shape[1]
    meta = {"schema": artifacts.SCHEMA, "n_voxels": n_voxels, "n_images": n_images, "k": k, **settings.model_dump()}
    artifacts.write_json(out / "meta.json", meta)
    good = per_voxel[per_voxel["r2"] > 0.2]
    return {
        "voxels": n_voxels,
        "pairs": n_voxels * n_images,
        "k": k,
        "max_completeness_gap": float(np.abs(attributions.completeness_gap).max()),
        "median_faithfulness": _mean([np.nanmedian(faithfulness.faithfulness)]),
        "voxels_r2_above_0.2": len(good),
        "share_hurt_more_than_random": _mean(good["left_without_ig"] < good["left_without_random"]),
    }


def share_attribution(config: Config, directory: Path, progress: Progress) -> None:
    """Takes this process's share of `attribution_step`; writes nothing."""
    pairs = _attributed_pairs(config, directory)
    if pairs is not None:
        _attributed(config, *pairs, progress, None)


def description_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Reads words from tokens and describes every pair; writes description/."""
    lens, critical, tokens = (
        files.load_lens(directory),
        files.load_critical(directory),
        files.load_tokens(directory),
    )
    out = directory / "description"
    if lens is None or critical is None:
        reason = "no lens: features have no words" if lens is None else "no voxel was attributed"
        artifacts.write_json(out / "none.json", {"reason": reason})
        return {"pairs": 0, "reason": reason}
    words = description.top_words(
        lens,
        tokens,
        m=config.description.m,
        image_chunk=config.run.image_chunk,
        progress=lambda done, total: progress(done, 2 * total),
    )
    images = artifacts.read_table(directory / "images.tsv")
    split_of = dict(zip(images["image_id"], images["split"], strict=True))
    split = np.array([split_of.get(image_id, "") for image_id in words.image_ids])
    per_image = words.per_image()
    corpus = per_image[(split == "train") | (split == "val")].mean(0)
    descriptions = description.describe(
        critical,
        words,
        corpus=corpus,
        n_words=config.description.n_words,
        progress=lambda done, total: progress(total + done, 2 * total),
    )
    artifacts.save(descriptions, out)
    artifacts.write_array(out / "corpus.npy", corpus)
    artifacts.write_array(out / "test_words.npy", per_image[split == "test"])
    artifacts.write_json(out / "test_images.json", words.image_ids[split == "test"].tolist())
    artifacts.write_table(out / "words.tsv", tables.description_words(descriptions))
    artifacts.write_table(out / "sentences.tsv", tables.description_sentences(descriptions))
    vocabulary = words.vocabulary
    counts = {"words": len(vocabulary.words), "dropped": vocabulary.n_dropped, "merged": vocabulary.n_merged}
    return {"pairs": descriptions.image_ids.size, **counts}


def profile_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Builds and tests the profiles; writes profile/ and voxels.tsv."""
    settings, out = config.profile, directory / "profile"
    responses, scores = files.load_responses(directory), files.load_scores(directory)
    if not (directory / "description" / "corpus.npy").exists():
        reason = artifacts.read_json(directory / "description" / "none.json")["reason"]
        artifacts.write_json(out / "none.json", {"reason": reason})
        artifacts.write_table(directory / "voxels.tsv", tables.voxels(responses, scores, None))
        return {"explained": 0, "reason": reason}
    descriptions = artifacts.load(directory / "description")
    faithfulness = artifacts.load(directory / "attribution" / "faithfulness")
    corpus = artifacts.read_array(directory / "description" / "corpus.npy")
    test_ids = np.array(artifacts.read_json(directory / "description" / "test_images.json"), dtype=str)
    rows = np.searchsorted(scores.voxel_ids, descriptions.voxel_ids)
    chosen = _take_scores(scores, rows)
    profiles = profile.build(
        descriptions,
        faithfulness,
        corpus=corpus,
        usable=~np.isin(descriptions.image_ids, test_ids),
        faithfulness_quantile=settings.faithfulness_quantile,
        min_images=settings.min_images,
        n_words=settings.n_words,
        n_bootstrap=settings.n_bootstrap,
        seed=config.run.seed,
        progress=lambda done, total: progress(done, 2 * total),
    )
    order = {image_id: i for i, image_id in enumerate(responses.image_ids)}
    held_out = np.asarray(responses.take_images(np.array([order[i] for i in test_ids])).take(rows).responses)
    test = profile.measured_correlation(
        profiles.distribution,
        corpus,
        artifacts.read_array(directory / "description" / "test_words.npy"),
        held_out,
        n_permutations=settings.n_permutations,
        seed=config.run.seed,
        progress=lambda done, total: progress(total + done, 2 * total),
    )
    rules = ("min_r2", "min_stability", "min_faithfulness", "min_images", "max_q")
    profiles = profile.judge(profiles, chosen, test, **{rule: getattr(settings, rule) for rule in rules})
    artifacts.save(profiles, out)
    artifacts.write_table(out / "words.tsv", tables.profile_words(profiles))
    artifacts.write_table(out / "sentences.tsv", tables.profile_sentences(profiles))
    artifacts.write_table(out / "voxels.tsv", tables.profile_voxels(profiles))
    artifacts.write_table(directory / "voxels.tsv", tables.voxels(responses, scores, profiles))
    return {
        "profiled": len(profiles.voxel_ids),
        "explained": int(profiles.explained.sum()),
        "median_stability": _mean([np.nanmedian(profiles.stability)]),
        "mean_r_measured": _mean(profiles.r_measured[profiles.explained]),
    }


def validation_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Makes and scores generated and edited images; writes validation/."""
    source = files.data_source(config, directory)
    return validation.validate(config, directory, source=source, progress=progress)


def roi_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Tests areas for preferred categories and structure; writes roi/ and maps/."""
    responses, scores = files.load_responses(directory), files.load_scores(directory)
    values: dict[str, np.ndarray] = {"r2": scores.r2, "r2_normalized": scores.r2_normalized}
    summary: dict[str, Any] = {}
    if (directory / "profile" / "words.tsv").exists() or (directory / "profile" / "words.parquet").exists():
        profiles = artifacts.load(directory / "profile")
        corpus = artifacts.read_array(directory / "description" / "corpus.npy")
        categories = config.roi.categories or roi.CATEGORIES
        rows = np.searchsorted(responses.voxel_ids, profiles.voxel_ids)
        selectivity = roi.selectivity(
            profiles,
            responses.rois[rows],
            corpus=corpus,
            categories=categories,
            min_voxels=config.roi.min_voxels,
            n_permutations=config.roi.n_permutations,
            n_bootstrap=config.roi.n_bootstrap,
            seed=config.run.seed,
            progress=progress,
        )
        structure = roi.structure(profiles, responses.rois[rows], corpus=corpus, min_voxels=config.roi.min_voxels)
        artifacts.write_table(directory / "roi" / "selectivity.tsv", tables.rows(selectivity, tables.SELECTIVITY))
        artifacts.write_table(directory / "roi" / "structure.tsv", tables.rows(structure, tables.STRUCTURE))
        values |= _profile_maps(profiles, corpus, categories, rows, len(responses.voxel_ids))
        summary["preferred"] = {row["roi"]: row["category"] for row in selectivity if row["preferred"]}
    written = roi.write_maps(directory / "maps", responses, values) if responses.volume is not None else []
    return {**summary, "maps": len(written)}


def report_step(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes report.html."""
    from mine_jax import report

    source = files.data_source(config, directory)
    has_photos = not isinstance(source, FolderConfig) or source.images is not None
    read_images = data.open_stimuli(source).read if has_photos else None
    path = report.write_report(directory, read_images=read_images, progress=progress)
    return {"report": path.name}


def _write_phantom(config: Config, directory: Path, progress: Progress) -> None:
    if not isinstance(config.data, PhantomConfig):
        return
    from mine_jax.phantom.write_nsd import write_phantom

    d, root = config.data, Path(config.data.root or directory / "phantom")
    if (root / "nsddata" / "ppdata" / d.subject).is_dir() and (root / "phantom.json").is_file():
        return
    write_phantom(
        root,
        subjects=(d.subject,),
        n_images=d.n_images,
        n_shared=d.n_shared,
        n_repeats=d.n_repeats,
        ceiling=d.ceiling,
        shape=d.shape,
        seed=config.run.seed,
        progress=progress,
    )


def _heat_writer(path: Path, shape: tuple[int, int, int]) -> Callable[[slice, np.ndarray], None]:
    """Opens a float16 array [pairs, P] on disk; the function returned writes the scores [v, I, P] of some voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_voxels, n_images, n_tokens = shape
    heat = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n_voxels * n_images, n_tokens))

    def write(voxels: slice, scores: np.ndarray) -> None:
        heat[voxels.start * n_images : voxels.stop * n_images] = scores.reshape(-1, n_tokens)
        heat.flush()

    return write


def _fitted(config: Config, splits: dict[str, Split], settings: EncoderConfig, progress: Progress) -> Encoders:
    return encoder.fit(
        splits["train"],
        key=jax.random.key(config.run.seed),
        validation=splits["val"],
        config=settings,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
        progress=progress,
    )


def _has_reference(config: Config) -> bool:
    return isinstance(config.encoder, QueryConfig) and config.encoder.reference


def _attributed_pairs(config: Config, directory: Path) -> tuple[Encoders, ImageTokens, np.ndarray] | None:
    """Opens encoders of voxels that are predicted well enough, tokens, and the images [V, I]; None without voxels."""
    scores, tokens = files.load_scores(directory), files.load_tokens(directory)
    good = np.nan_to_num(scores.r2, nan=-1) >= config.attribution.min_r2
    chosen = np.flatnonzero((scores.status == "ok") & good)
    if not len(chosen):
        return None
    encoders = files.load_encoders(directory).take(chosen)
    return encoders, tokens, _attributed_images(config, directory, encoders, tokens)


def _attributed(config: Config, encoders, tokens, image_ids, progress, keep):
    settings = config.attribution
    return attribution.attribute_and_patch(
        encoders,
        tokens,
        image_ids=image_ids,
        k=settings.k,
        sufficiency=settings.sufficiency,
        n_random=settings.n_random,
        seed=config.run.seed,
        keep=keep,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
        progress=progress,
        **{name: getattr(settings, name) for name in _PATH_OPTIONS},
    )


def _attributed_images(config: Config, directory: Path, encoders: Encoders, tokens: ImageTokens) -> np.ndarray:
    """Chooses the images [V, I] of each voxel: those with the highest predictions, or random ones."""
    settings = config.attribution
    images = artifacts.read_table(directory / "images.tsv")
    wanted = {"all": ("train", "val", "test"), "train": ("train", "val"), "test": ("test",)}[settings.split]
    allowed = np.isin(tokens.image_ids, images["image_id"][images["split"].isin(wanted)].to_numpy(dtype=str))
    n_images = min(settings.n_images, int(allowed.sum()))
    if settings.images == "random":
        rng = np.random.default_rng(config.run.seed)
        shuffled = rng.permutation(np.flatnonzero(allowed))[:n_images]
        return np.broadcast_to(tokens.image_ids[shuffled], (len(encoders.voxel_ids), n_images))
    chosen = encoder.top_images(
        encoders,
        tokens,
        n=n_images,
        allowed=allowed,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
    )
    return tokens.image_ids[chosen]


def _profile_maps(profiles, corpus, categories, rows, n_voxels) -> dict[str, np.ndarray]:
    """Top category and top word of explained voxels, "" elsewhere."""
    names, shares = roi.category_shares(profiles, corpus=corpus, categories=categories)
    category = np.array(names)[shares.argmax(1)] if names else np.full(len(rows), "")
    first = np.where(profiles.word_ids[:, 0] >= 0, profiles.words[profiles.word_ids[:, 0]], "")
    maps = {}
    for name, labels in (("top_category", category), ("top_word", first)):
        maps[name] = np.full(n_voxels, "", dtype=object)
        maps[name][rows] = np.where(profiles.explained, labels, "")
        maps[name] = maps[name].astype(str)
    return maps


def _take_scores(scores: Scores, rows: np.ndarray) -> Scores:
    fields = {n: getattr(scores, n)[rows] for n in ("voxel_ids", "r2", "r", "r2_normalized", "noise_ceiling", "status")}
    return Scores(n_train=scores.n_train, n_test=scores.n_test, **fields)


def _mean(values: Any) -> float | None:
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
