"""The whole stage: plan, make images, score them, test, and write the tables of `validation/`."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import artifacts, description, sharding
from mine_jax._progress import Progress, silent
from mine_jax.config import Config, DataConfig, ValidationConfig
from mine_jax.description import TokenWords
from mine_jax.statistics import false_discovery_rate
from mine_jax.types import Encoders, ImageTokens
from mine_jax.validation import editing, evaluators, generation, regions
from mine_jax.validation import pairs as controls
from mine_jax.validation.editing import Audit
from mine_jax.validation.evaluators import Evaluator
from mine_jax.validation.inputs import Inputs, read_inputs
from mine_jax.validation.makers import make, models, pictures
from mine_jax.validation.makers.make import Made
from mine_jax.validation.makers.models import Model
from mine_jax.validation.makers.protocols import Editor, Generator
from mine_jax.validation.pairs import Pair
from mine_jax.validation.simulated import words_hold

SUMMARY = (
    *("test", "comparison", "source", "voxels", "evaluator", "effect", "low", "high", "p", "q", "n_pairs"),
    *("effect_size", "share", "evaluator_r2", "maker"),
)
# The lens reads a word somewhere in the image if its share reaches this.
_SEEN = 0.2
# A word is gone if its presence falls below this share of what it was.
_GONE = 0.5
logger = logging.getLogger("mine_jax")


def validate(
    config: Config,
    directory: str | Path,
    *,
    source: DataConfig | None = None,
    generator: Generator | None = None,
    editor: Editor | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Runs the generation and the edit test on a run directory.

    Args:
        config: of the run; section [validation] says what to test and with which models.
        directory: of the run, up to the profile stage; `validation/` is written there.
        source: the data configuration with the phantom's folder filled in; None for `config.data`.
        generator: takes the place of the configured one.
        editor: takes the place of the configured one.
        progress: called with (done, total); may raise to stop, images made so far are kept.

    Returns:
        Numbers for the summary, or the reason why nothing was tested.

    Raises:
        ConfigError: for a model that does not suit the data.
        MissingInputError: if a pipeline directory is not there.
        GenerationError: if the process that makes images fails.
    """
    settings, out = config.validation, Path(directory) / "validation"
    chosen = models.choose(settings, generator=generator, editor=editor)
    inputs = None if chosen is None else read_inputs(config, Path(directory), source=source)
    if chosen is None or inputs is None or isinstance(inputs, str):
        return _nothing(out, inputs if isinstance(inputs, str) else "neither a generator nor an editor is configured")
    makers = {role: models.with_exact(model, role, inputs.truth) for role, model in chosen.items()}
    pairs, words = _pairs(config, inputs)
    if not pairs:
        return _nothing(out, "no voxel is explained")
    bar = _Bar(progress)
    try:
        made = make.make_all(settings, makers, inputs, pairs, words, out, seed=config.run.seed, bar=bar)
        judges = _judges(config, inputs, pairs, bar)
        tokens = _read_all(config, inputs, pairs, made, out, bar)
        tables = _tables(config, inputs, pairs, made, judges, tokens, out)
    finally:
        shutil.rmtree(out / ".work", ignore_errors=True)
    summary = _summarize(tables, judges, settings, config.run.seed)
    for name, table in {**tables, "summary": summary}.items():
        artifacts.write_table(out / f"{name}.tsv", table)
    artifacts.write_json(out / "meta.json", _meta(settings, makers, judges, pairs))
    (out / "none.json").unlink(missing_ok=True)
    return _headline(tables, summary, pairs)


def _nothing(out: Path, reason: str) -> dict[str, Any]:
    artifacts.write_json(out / "none.json", {"reason": reason})
    return {"pairs": 0, "reason": reason}


def _pairs(config: Config, inputs: Inputs) -> tuple[list[Pair], TokenWords | None]:
    """Chooses pairs and reads the words of their images' tokens."""
    settings = config.validation
    pairs = controls.choose_pairs(
        inputs.descriptions,
        inputs.profiles,
        inputs.areas,
        image_words=inputs.image_words,
        image_ids=inputs.image_ids,
        n_pairs=settings.n_pairs,
        n_words=settings.n_words,
        min_weight=settings.min_weight,
        seed=config.run.seed,
    )
    if not pairs:
        return [], None
    wanted = sorted({i for pair in pairs for i in (pair.image_id, pair.target_id) if i})
    rows = np.flatnonzero(np.isin(inputs.tokens.image_ids, wanted))
    words = description.top_words(inputs.lens, inputs.tokens, rows=rows, m=config.description.m)
    heat = {(pair.voxel_id, pair.image_id): regions.heat_of(inputs, pair) for pair in pairs}
    pairs = controls.with_control_words(
        pairs, words, heat, corpus=inputs.corpus, k=config.attribution.k, seed=config.run.seed
    )
    return controls.with_partners(pairs, inputs.profiles, seed=config.run.seed), words


def _tables(
    config: Config,
    inputs: Inputs,
    pairs: Sequence[Pair],
    made: Sequence[Made],
    judges: Sequence[Evaluator],
    tokens: ImageTokens,
    out: Path,
) -> dict[str, pd.DataFrame]:
    """Builds the tables of both tests, the rows of the configured model before those of the exact one."""
    presence = _presence(config, inputs, tokens)
    parts: dict[str, list[pd.DataFrame]] = {}
    for one in made:
        if one.located is None:
            exact = inputs.truth if one.model.exact else None
            truths = None if exact is None else generation.true_responses(one.generated, pairs, exact)
            table = generation.generation_table(
                pairs, one.generated, one.records, judges, tokens, truths, maker=one.model.name
            )
        else:
            audits = _audits(inputs, pairs, one, one.located, presence, out)
            table = editing.edits_table(
                pairs, one.located.edits, one.items, one.records, judges, tokens, audits, maker=one.model.name
            )
        parts.setdefault(make.TABLES[one.role], []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _judges(config: Config, inputs: Inputs, pairs: Sequence[Pair], bar: _Bar) -> list[Evaluator]:
    """The describing encoders and, if wanted, independent ones, of the pairs' voxels."""
    ids = generation.voxel_ids(pairs)
    rows = np.searchsorted(inputs.profiles.voxel_ids, ids)
    encoders: Encoders = inputs.encoders.take(rows)
    kind = encoders.architecture.kind
    mesh = sharding.local(sharding.mesh(config.run.mesh))  # the other processes have no part in this stage
    judges = [Evaluator(f"{kind} (describing)", encoders, inputs.scores.r2[rows], "test images", mesh)]
    if config.validation.evaluator == "none":
        return judges
    used = {i for pair in pairs for i in (pair.image_id, pair.target_id)}
    unseen, seen = (
        type(split)(split.tokens, split.responses.take(rows), split.name) for split in (inputs.unseen, inputs.seen)
    )
    options = {"exclude": sorted(used), "seed": config.run.seed, "mesh": mesh}
    other = evaluators.independent_evaluator(unseen, seen, **options, progress=lambda done, total: bar.tick())
    if other is None:
        logger.warning("validation: too few held-out images for an independent evaluator")
        return judges
    return [*judges, other]


def _read_all(
    config: Config, inputs: Inputs, pairs: Sequence[Pair], made: Sequence[Made], out: Path, bar: _Bar
) -> ImageTokens:
    """Reads the originals and every usable picture with the backbone."""
    originals = sorted({i for pair in pairs for i in (pair.image_id, pair.target_id) if i})
    names = [*(f"original:{image_id}" for image_id in originals), *(name for one in made for name in one.usable)]

    def read(name: str) -> np.ndarray:
        kind, _, rest = name.partition(":")
        return inputs.stimuli.read([rest])[0] if kind == "original" else pictures.read_png(out / "images" / name)

    return evaluators.read_pictures(
        inputs.backbone,
        read,
        names,
        layer=config.features.layer,
        dtype=config.features.dtype,
        batch_size=config.features.batch_size,
        progress=bar.part(len(names)),
    )


def _presence(config: Config, inputs: Inputs, tokens: ImageTokens) -> pd.DataFrame:
    """How clearly each word is read in each picture: a table of pictures by words."""
    words = description.top_words(inputs.lens, tokens, m=config.description.m)
    return pd.DataFrame(
        evaluators.word_presence(words), index=words.image_ids.tolist(), columns=words.vocabulary.words.tolist()
    )


def _audits(
    inputs: Inputs, pairs: Sequence[Pair], made: Made, plan: regions.Located, presence: pd.DataFrame, out: Path
) -> list[Audit]:
    """Looks at what each edit did besides moving the response."""
    records, exact = made.records, made.model.exact
    shifts = regions.true_shifts(plan, pairs, inputs.truth)
    read = functools.cache(lambda image_id: inputs.stimuli.read([image_id])[0])
    audits = []
    for number, (edit, item) in enumerate(zip(plan.edits, made.items, strict=True)):
        if item is None or records[item.file]["status"] not in ("ok", "unchanged"):
            audits.append(Audit())
            continue
        ok = records[item.file]["status"] == "ok"
        before = _mean_presence(presence, f"original:{edit.image_id}", item.words)
        after = _mean_presence(presence, item.file, item.words) if ok else before
        scene = plan.scenes[number]
        if item.action == "noop":
            named = ""
        elif exact and scene is not None:
            named = str(words_hold(scene, item.words, action=item.action)).lower()
        else:
            appeared = after >= _SEEN and after > before
            named = str(appeared if item.action == "insert" else after < _GONE * before).lower()
        inside, outside = regions.change(
            read(edit.image_id), pictures.read_png(out / "images" / item.file), plan.regions[number]
        )
        audits.append(Audit(shifts[number], before, after, named, inside, outside))
    return audits


def _mean_presence(presence: pd.DataFrame, picture: str, words: Sequence[str]) -> float:
    known = [word for word in words if word in presence.columns]
    return float(presence.loc[picture, known].mean()) if known else float("nan")


def _summarize(
    tables: dict[str, pd.DataFrame], judges: Sequence[Evaluator], settings: ValidationConfig, seed: int
) -> pd.DataFrame:
    """Tests every comparison; q over all of them."""
    options = {"n_permutations": settings.n_permutations, "n_bootstrap": settings.n_bootstrap, "seed": seed}
    compare = {"generation": generation.compare_generation, "edits": editing.compare_edits}
    found = [
        ({**labels, "maker": str(maker)}, comparison)
        for name, table in tables.items()
        for maker, part in table.groupby("maker", sort=False)
        for labels, comparison in compare[name](part, **options)
    ]
    r2 = {judge.name: float(np.nanmean(judge.r2)) for judge in judges}
    rows = [
        {"source": "", **labels, **comparison._asdict(), "evaluator_r2": r2.get(labels["evaluator"], np.nan)}
        for labels, comparison in found
    ]
    summary = pd.DataFrame(rows, columns=list(SUMMARY))
    summary["q"] = false_discovery_rate(summary["p"].to_numpy(float)) if len(summary) else []
    return summary


def _meta(
    settings: ValidationConfig,
    makers: dict[str, tuple[Model, ...]],
    judges: Sequence[Evaluator],
    pairs: Sequence[Pair],
) -> dict[str, Any]:
    return {
        "schema": artifacts.SCHEMA,
        **settings.model_dump(),
        "models": {
            role: [{"name": model.name, "templates": model.templates} for model in chosen]
            for role, chosen in makers.items()
        },
        "evaluators": [{"name": j.name, "mean_r2": float(np.nanmean(j.r2)), "scored_on": j.held_out} for j in judges],
        "voxels": [pair.voxel_id for pair in pairs],
    }


def _headline(tables: dict[str, pd.DataFrame], summary: pd.DataFrame, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The numbers that a reader wants first."""
    numbers: dict[str, Any] = {"pairs": len(pairs)}
    for name, table in tables.items():
        one = table[(table["evaluator"] == table["evaluator"].iloc[0]) & (table["maker"] == table["maker"].iloc[0])]
        numbers[f"{name}_images"] = int((one["status"] == "ok").sum())
        numbers[f"{name}_unusable"] = int((one["status"] != "ok").sum())
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


class _Bar:
    """One progress bar over all parts of the stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done, self.total = progress, 0, 1

    def tick(self) -> None:
        """Says that work goes on."""
        self.progress(min(self.done, self.total), self.total)

    def part(self, size: int) -> Progress:
        """Returns the progress callback of the next part."""
        start = self.done
        self.done += size

        def report(done: int, total: int) -> None:
            del total
            self.progress(min(start + done, self.total), self.total)

        return report
