"""The whole stage: choose pairs, make images, score them, test."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jax.sharding import Mesh

from mine_jax import description
from mine_jax._progress import Progress, silent
from mine_jax.config import ValidationConfig
from mine_jax.description import TokenWords
from mine_jax.features import Backbone
from mine_jax.statistics import mean_r2
from mine_jax.types import ImageTokens
from mine_jax.validation import causal, comparisons, editing, evaluators, generation, regions
from mine_jax.validation.evaluators import Evaluator
from mine_jax.validation.inputs import Inputs, Validation
from mine_jax.validation.makers import make, models, pictures
from mine_jax.validation.makers.make import Bar, ImageSet
from mine_jax.validation.makers.models import Model
from mine_jax.validation.makers.protocols import Editor, Generator
from mine_jax.validation.pairs import Pair, choose_pairs, with_control_words, with_distractors, with_partners
from mine_jax.validation.simulated import TRUTH

_COMPARE = {"generation": generation.compare_generation, "edits": editing.compare_edits}


def validate(
    inputs: Inputs,
    settings: ValidationConfig,
    *,
    images: str | Path,
    seed: int = 0,
    generator: Generator | None = None,
    editor: Editor | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Validation:
    """Runs the generation and the edit test.

    Args:
        inputs: what earlier stages left.
        settings: section [validation]: what to test and with which models.
        images: folder where made images are kept, so that none is made twice; what editors read lies
            in `.work` beside it until all is done.
        seed: of all choices.
        generator: takes the place of the configured one.
        editor: takes the place of the configured one.
        mesh: devices of this process, for the encoders; None for one. Never the result.
        progress: called with (done, total); may raise to stop, images made so far are kept.

    Returns:
        Tables and numbers, or the reason why nothing was tested.

    Raises:
        ConfigError: for a model that does not suit the data.
        MissingInputError: if a pipeline directory is not there.
        GenerationError: if the process that makes images fails.
    """
    chosen = models.choose(settings, generator=generator, editor=editor)
    if chosen is None:
        return Validation(reason=models.NOT_CONFIGURED)
    makers = {role: models.with_exact(model, role, inputs.truth) for role, model in chosen.items()}
    pairs = _choose(inputs, settings, seed)
    if not pairs:
        return Validation(reason="no voxel is explained")
    images = Path(images)
    work, bar = images.with_name(".work"), Bar(progress)
    try:
        token_words = _token_words(inputs, pairs)
        pairs = _with_controls(inputs, pairs, token_words, seed)
        image_sets = make.make_all(settings, makers, inputs, pairs, token_words, images, work=work, seed=seed, bar=bar)
        judges = evaluators.judges(
            inputs,
            generation.voxel_ids(pairs),
            exclude=_originals(pairs),
            with_independent=settings.evaluator != "none",
            seed=seed,
            mesh=mesh,
            progress=lambda done, total: bar.tick(),
        )
        tokens = _read_all(inputs, inputs.backbone, pairs, image_sets, images, bar)
        judges = [
            replace(judge, pictures=_read_all(inputs, other, pairs, image_sets, images, bar)) if other else judge
            for judge in judges
            for other in (inputs.other_backbones.get(judge.name),)
        ]
        tables = _tables(inputs, pairs, image_sets, judges, tokens, images)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    summary = _summarize(tables, judges, settings, seed)
    numbers = _headline(tables, summary, len(pairs))
    # an encoder does not judge what was written with it
    if "edits" in tables and len(judges) > 1:
        tables["voxels"], n_exchanged = _causal(tables["edits"], judges, settings, seed)
        numbers |= {"causal": int(tables["voxels"]["causal"].sum()), "causal_exchanged": n_exchanged}
    return Validation({**tables, "summary": summary}, _meta(settings, makers, judges, pairs), numbers)


def _choose(inputs: Inputs, settings: ValidationConfig, seed: int) -> list[Pair]:
    return choose_pairs(
        inputs.descriptions,
        inputs.profiles,
        inputs.areas,
        image_words=inputs.image_words,
        image_ids=inputs.image_ids,
        n_pairs=settings.n_pairs,
        n_images=settings.n_images,
        n_words=settings.n_words,
        min_weight=settings.min_weight,
        seed=seed,
    )


def _originals(pairs: Sequence[Pair]) -> list[str]:
    return sorted({i for pair in pairs for i in (pair.image_id, pair.target_id) if i})


def _token_words(inputs: Inputs, pairs: Sequence[Pair]) -> TokenWords:
    """Reads the words of the image-tokens of the pairs' images."""
    rows = np.flatnonzero(np.isin(inputs.tokens.image_ids, _originals(pairs)))
    return description.top_words(inputs.lens, inputs.tokens, rows=rows, m=inputs.reading.m)


def _with_controls(inputs: Inputs, pairs: Sequence[Pair], token_words: TokenWords, seed: int) -> list[Pair]:
    heat = {(pair.voxel_id, pair.image_id): regions.heat_of(inputs, pair) for pair in pairs}
    controlled = with_control_words(pairs, token_words, heat, corpus=inputs.corpus, k=inputs.reading.k, seed=seed)
    return with_distractors(
        with_partners(controlled, inputs.profiles, seed=seed),
        inputs.profiles,
        inputs.areas,
        inputs.lens,
        token_words,
        image_words=inputs.image_words,
        seed=seed,
    )


def _read_all(
    inputs: Inputs,
    backbone: Backbone,
    pairs: Sequence[Pair],
    image_sets: Sequence[ImageSet],
    images: Path,
    bar: Bar,
) -> ImageTokens:
    """Reads the originals and every usable picture with a backbone."""
    names = [f"original:{image_id}" for image_id in _originals(pairs)]
    names += [file for image_set in image_sets for file in image_set.usable]

    def read(name: str) -> np.ndarray:
        kind, _, rest = name.partition(":")
        return inputs.stimuli.read([rest])[0] if kind == "original" else pictures.read_png(images / name)

    return evaluators.read_pictures(
        backbone,
        read,
        names,
        layer=inputs.reading.layer if backbone is inputs.backbone else -1,
        dtype=inputs.reading.dtype,
        batch_size=inputs.reading.batch_size,
        progress=bar.part(),
    )


def _tables(
    inputs: Inputs,
    pairs: Sequence[Pair],
    image_sets: Sequence[ImageSet],
    judges: Sequence[Evaluator],
    tokens: ImageTokens,
    images: Path,
) -> dict[str, pd.DataFrame]:
    """Builds the tables of both tests, the rows of the configured model before those of the exact one."""
    presence = _presence(inputs, tokens)
    parts: dict[str, list[pd.DataFrame]] = {}
    for image_set in image_sets:
        model, plan, records = image_set.model, image_set.plan, image_set.records
        if isinstance(plan, regions.LocatedEdits):
            audits = regions.audit(
                plan,
                image_set.items,
                records,
                shifts=regions.true_shifts(plan, pairs, inputs.truth),
                presence=presence,
                photo=lambda image_id: inputs.stimuli.read([image_id])[0],
                images=images,
                exact=model.exact,
            )
            table = editing.edits_table(
                pairs, plan.edits, image_set.items, records, judges, tokens, audits, maker=model.name
            )
            parts.setdefault("edits", []).append(table)
        else:
            exact = model.exact and inputs.truth is not None
            simulated = generation.simulate(plan, pairs, inputs.truth) if exact else None
            table = generation.generation_table(pairs, plan, records, judges, tokens, simulated, maker=model.name)
            parts.setdefault("generation", []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _presence(inputs: Inputs, tokens: ImageTokens) -> pd.DataFrame:
    """How clearly each word is read in each picture: a table of pictures by words."""
    token_words = description.top_words(inputs.lens, tokens, m=inputs.reading.m)
    return pd.DataFrame(
        evaluators.word_presence(token_words),
        index=token_words.image_ids.tolist(),
        columns=token_words.vocabulary.words.tolist(),
    )


def _summarize(
    tables: dict[str, pd.DataFrame], judges: Sequence[Evaluator], settings: ValidationConfig, seed: int
) -> pd.DataFrame:
    """Tests every comparison; what the exact edits do to simulated voxels counts once, not for every model."""
    options = {"n_permutations": settings.n_permutations, "n_bootstrap": settings.n_bootstrap, "seed": seed}
    compared = [
        ({**labels, "maker": str(maker)}, comparison)
        for name, table in tables.items()
        for maker, part in table.groupby("maker", sort=False)
        for labels, comparison in _COMPARE[name](part, **options)
        if labels["evaluator"] != TRUTH or maker == table["maker"].iloc[-1]
    ]
    return comparisons.tabulate(compared, {judge.name: mean_r2(judge.r2) for judge in judges})


def _causal(
    edits: pd.DataFrame, judges: Sequence[Evaluator], settings: ValidationConfig, seed: int
) -> tuple[pd.DataFrame, int]:
    """Tests each voxel by the most independent judge; also counts voxels that changed places and pass."""
    options: dict[str, Any] = {
        "evaluator": judges[-1].name,
        "maker": edits["maker"].iloc[0],
        "max_q": settings.max_q,
        "n_permutations": settings.n_permutations,
        "seed": seed,
    }
    exchanged = causal.causal_voxels(edits, column="exchanged_shift", **options)
    return causal.causal_voxels(edits, **options), int(exchanged["causal"].sum())


def _meta(
    settings: ValidationConfig,
    makers: dict[str, tuple[Model, ...]],
    judges: Sequence[Evaluator],
    pairs: Sequence[Pair],
) -> dict[str, Any]:
    return {
        **settings.model_dump(),
        "models": {
            role: [{"name": model.name, "templates": model.templates} for model in chosen]
            for role, chosen in makers.items()
        },
        "evaluators": [{"name": j.name, "mean_r2": mean_r2(j.r2), "scored_on": j.held_out} for j in judges],
        "voxels": [pair.voxel_id for pair in pairs],
    }


def _headline(tables: dict[str, pd.DataFrame], summary: pd.DataFrame, n_pairs: int) -> dict[str, Any]:
    """The numbers that a reader wants first."""
    numbers: dict[str, Any] = {"pairs": n_pairs}
    for name, table in tables.items():
        is_first = (table["evaluator"] == table["evaluator"].iloc[0]) & (table["maker"] == table["maker"].iloc[0])
        numbers[f"{name}_images"] = int((table["status"][is_first] == "ok").sum())
        numbers[f"{name}_unusable"] = int((table["status"][is_first] != "ok").sum())
    first = summary[(summary["voxels"] == "described") & summary["source"].isin(["", "description", "both"])]
    first = first[first["evaluator"] == first["evaluator"].iloc[0]] if len(first) else first
    # the configured models come before the exact ones
    first = first.drop_duplicates("comparison")
    for label in ("description minus random", "insert minus no-op", "no-op minus remove"):
        row = first[first["comparison"] == label]
        if len(row):
            key = label.replace(" ", "_").replace("-", "")
            numbers |= {key: float(row["effect"].iloc[0]), f"{key}_q": float(row["q"].iloc[0])}
    return numbers
