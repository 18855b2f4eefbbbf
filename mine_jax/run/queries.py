"""Asks finished runs: which voxels prefer some words, and what areas prefer across subjects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax import roi
from mine_jax._numbers import count, decimal, interval, p_value
from mine_jax.errors import ConfigError, GeometryError, MissingInputError
from mine_jax.run import files
from mine_jax.types import Responses

_MAX_Q = 0.05
_NULL = "compared with what decoys hold of {n}: the more words, the larger the share that they need"
_NONE = 'no {unit} of this run reaches the claim "words", and only those can have a small q: none can be found'
_SHOWN = 10


def query(directory: Path, text: str, *, out: Path | None = None) -> str:
    """Finds the voxels of a run that prefer what a text names.

    Args:
        directory: of a run with profiles.
        text: a word, words separated by commas, or a sentence.
        out: file of the answer for every voxel: a map (.nii.gz, with another of q beside it) or a table (.tsv).

    Returns:
        The words that were asked for, the best voxels, and a line per area.

    Raises:
        ConfigError: if `out` is neither kind of file.
        GeometryError: if a map is asked for, and the data have no geometry.
        DataError: if no word of the text is known, with the nearest words.
        MissingInputError: if the run has no profiles.
    """
    files.verify(directory, "description/corpus.*")
    profiles, config = files.load_profiles(directory), files.load_configuration(directory)
    if profiles is None:
        raise MissingInputError(f"{directory} has no profiles: {files.why_no_profiles(directory)}.")
    categories = config.roi.categories or roi.CATEGORIES
    answer = roi.query(
        profiles,
        text,
        corpus=files.corpus(directory),
        decoys=files.load_profiles(directory, decoys=True),
        categories=categories,
        seed=config.run.seed,
    )
    responses = files.load_responses(directory)
    rows = np.searchsorted(responses.voxel_ids, profiles.voxel_ids)
    value, q = np.full((2, len(responses.voxel_ids)), np.nan)
    value[rows], q[rows] = answer.values, answer.q
    table = pd.DataFrame({"voxel_id": responses.voxel_ids, "rois": responses.rois, "value": value, "q": q})
    unknown = roi.passed_over(text, vocabulary=profiles.words, categories=categories)
    lines = [
        f"words: {', '.join(answer.words)}",
        *([f"not in the vocabulary, passed over: {', '.join(unknown)}"] if unknown else []),
        *([] if profiles.explained.any() else [_NONE.format(unit=config.data.unit_name)]),
        _NULL.format(n=count(len(answer.words), "random word")),
        *_best(table),
    ]
    lines += _areas(table, config.roi.min_worded)
    if out is not None:
        lines += [f"wrote {path}" for path in _write(table, responses, out)]
    return "\n".join(lines)


def subjects(directory: Path) -> str:
    """Tests what areas prefer over the runs in a folder, one per subject, and writes roi_subjects.tsv there.

    Args:
        directory: holds one run directory per subject.

    Returns:
        A line per area: the category with the largest mean enrichment.

    Raises:
        MissingInputError: if there is no run.
    """
    runs = files.run_directories(directory)
    for run in runs:
        files.verify(run, "roi/selectivity.tsv")
    rows = roi.across_subjects({run.name: files.selectivity_table(run) for run in runs})
    table = files.save_subjects(directory, rows)
    if table.empty:
        return f"no area of {', '.join(run.name for run in runs)} has a tested preference"
    lines = [f"{'area':>16}  {'category':>12}  {'enrichment':>22}  {'prefer it':>9}  {'p':>7}  {'q':>7}"]
    for row in table.sort_values("enrichment", ascending=False).drop_duplicates("roi").to_dict("records"):
        enrichment = f"{decimal(row['enrichment'])} ({interval(row['low'], row['high'])})"
        preferring = f"{row['n_preferred']} of {row['n_subjects']}"
        p, q = p_value(row["p"]), p_value(row["q"])
        lines.append(f"{row['roi']:>16}  {row['category']:>12}  {enrichment:>22}  {preferring:>9}  {p:>7}  {q:>7}")
    return "\n".join(lines)


def _best(table: pd.DataFrame) -> list[str]:
    found = table[table["q"] <= _MAX_Q].sort_values("value", ascending=False)
    lines = [f"{len(found)} of {len(table)} voxels at q <= {_MAX_Q}"]
    if len(found):
        lines.append(f"{'voxel':>10}  {'share':>6}  {'q':>8}  area")
    for voxel, rois, value, q in found.head(_SHOWN).itertuples(index=False):
        lines.append(f"{voxel:>10}  {decimal(value):>6}  {p_value(q):>8}  {rois}")
    return lines


def _areas(table: pd.DataFrame, min_share: float) -> list[str]:
    """A line per area; "found" where enough of its voxels are."""
    lines = [f"{'area':>16}  {'mean share':>10}  voxels at q <= {_MAX_Q}"]
    members = {area: table[inside] for area, inside in roi.memberships(table["rois"].to_numpy()).items()}
    for area, part in sorted(members.items(), key=lambda item: -item[1]["value"].fillna(0).mean()):
        n = int((part["q"] <= _MAX_Q).sum())
        found = "  found" if n >= max(min_share * len(part), 1) else ""
        lines.append(f"{area:>16}  {decimal(part['value'].fillna(0).mean()):>10}  {n} of {len(part)}{found}")
    return lines


def _write(table: pd.DataFrame, responses: Responses, out: Path) -> list[Path]:
    if out.name.endswith((".nii.gz", ".func.gii")):
        if responses.volume is None and responses.surface is None:
            raise GeometryError(f"the data of this run have no geometry, so {out.name} must be a .tsv file instead.")
        name = out.name.removesuffix(".nii.gz").removesuffix(".func.gii")
        values = {name: table["value"].to_numpy(), f"{name}_q": table["q"].to_numpy()}
        return roi.write_maps(out.parent, responses, values)
    if out.suffix == ".tsv":
        return [files.save_answer(out, table)]
    raise ConfigError(f"--out must end with .nii.gz, .func.gii or .tsv, but is {out.name!r}.")
