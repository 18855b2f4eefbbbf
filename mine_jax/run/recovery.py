"""Compares runs on a phantom with what was planted: the numbers that real data cannot give.

Every measure states its target where there is one. Two controls keep it honest: the same
profiles made from random tokens of the same images (choosing a voxel's images already
selects what is in them), and words of pairs rather than profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import description, profile
from mine_jax.config import Config, FolderConfig
from mine_jax.errors import DataError, MissingInputError
from mine_jax.phantom import scenes
from mine_jax.phantom.write_nsd import read_scenes, read_truth
from mine_jax.run import files
from mine_jax.types import CriticalTokens, Descriptions, Profiles

# Voxels count whose planted ceiling at three repeats is at least this (fraction of variance).
MIN_CEILING = 0.3
_DESCRIBED = ("concept", "pair", "category", "attribute")
_SILENT = ("constant", "invalid")
# Measure, comparison of the validation stage, its column, target; n counts runs and sources of words.
_TESTED = (
    ("generated: share of pairs above random-token words", "description minus random", "share", None),
    ("inserted words raise the response: share of pairs", "insert minus no-op", "share", 0.8),
    ("removed words lower it: share of pairs", "no-op minus remove", "share", 0.8),
    ("predicted and true shift of edits: r", "correlation of predicted and true shift", "effect", 0.7),
)


@dataclass(frozen=True)
class _Run:
    directory: Path
    config: Config
    root: Path


def truth(directory: str | Path) -> str:
    """Scores one run, or all runs of a folder, against the planted truth.

    Args:
        directory: a run directory on a phantom, or a folder of such; receives `truth.tsv`,
            each run also `truth_voxels.tsv`.

    Returns:
        The summary, ready to print.

    Raises:
        MissingInputError: if there is no run, or its phantom is gone.
        DataError: if the run is not on a phantom.
    """
    directory = Path(directory)
    runs = [_open(path) for path in files.run_directories(directory)]
    parts = []
    for run in runs:
        profiles = _profiles(run)
        critical, control = _control(run)
        voxels = _voxels(run, profiles, control)
        part = {
            "voxels": voxels,
            "areas": _areas(run),
            "pairs": _pairs(run, voxels, critical, control),
            "tests": _tests(run),
        }
        files.save_recovery(run.directory, _measures([part]), voxels)
        parts.append(part)
    table = _measures(parts)
    files.save_recovery(directory, table)
    return _text(table, [run.directory.name for run in runs])


def _open(directory: Path) -> _Run:
    config = files.load_configuration(directory)
    root = files.phantom_folder(config, directory)
    if root is not None:
        return _Run(directory, config, root)
    source = files.data_source(config, directory)
    if isinstance(source, FolderConfig) or not source.root:
        raise DataError(f"{directory} is a run on {config.data.kind} data; only phantoms have a known truth.")
    expected = Path(source.root)
    raise MissingInputError(f"no phantom_truth.tsv at {expected}. Was it moved?")


def _profiles(run: _Run) -> Profiles:
    profiles = files.load_profiles(run.directory)
    if profiles is None:
        raise MissingInputError(f"{run.directory} has no profiles yet. Finish the run first: mine-jax run ... --resume")
    return profiles


def _voxels(run: _Run, profiles: Profiles, control: Descriptions) -> pd.DataFrame:
    """One row per voxel of the run: what was planted, what was found, and with random tokens."""
    planted = read_truth(run.root)
    planted = planted[planted["subject"] == run.config.data.subject].drop(columns=["subject", "i", "j", "k"])
    found = files.voxels_table(run.directory)
    planted = planted.rename(columns={"noise_ceiling": "true_ceiling"})
    table = found[["voxel_id", "r2", "status", "explained", "reason"]].merge(planted, on="voxel_id", how="inner")
    table["explained"] = table["explained"].astype(str).str.lower() == "true"
    table["counted"] = table["kind"].isin(_DESCRIBED) & (table["true_ceiling"] >= MIN_CEILING)
    linear = files.load_reference(run.directory)
    table["r2_ridge"] = np.nan if linear is None else linear.r2[np.searchsorted(linear.voxel_ids, table["voxel_id"])]
    for name, source in {"": profiles, "control_": _control_profiles(run, control)}.items():
        words = {int(v): source.words[row[row >= 0]] for v, row in zip(source.voxel_ids, source.word_ids, strict=True)}
        listed = [[str(word) for word in words.get(v, [])] for v in table["voxel_id"]]
        targets = [_targets(row) for row in table.itertuples()]
        table[f"{name}first_word"] = [row[0] if row else "" for row in listed]
        for n in (1, 5):
            table[f"{name}hit{n}"] = [bool(t & set(row[:n])) for t, row in zip(targets, listed, strict=True)]
    return table


def _targets(voxel: Any) -> set[str]:
    """Words that count as found: the planted ones; for category-only voxels the category or a member."""
    if voxel.kind != "category":
        return set(str(voxel.concepts).split(";")) - {""}
    categories = [c for c in str(voxel.category).split(";") if c]
    return set(categories) | {concept for c in categories for concept in scenes.CATEGORIES[c]}


def _control(run: _Run) -> tuple[CriticalTokens, Descriptions]:
    """Describes the same pairs from random tokens, all weighted alike; also returns the real critical tokens."""
    critical, lens = files.load_critical(run.directory), files.load_lens(run.directory)
    if critical is None or lens is None:
        raise MissingInputError(f"{run.directory} has no attributed voxel or no lens.")
    tokens = files.load_tokens(run.directory)
    rng = np.random.default_rng(run.config.run.seed + 1)
    shuffled = rng.random((*critical.image_ids.shape, tokens.tokens.shape[1])).argsort(-1).astype(np.int32)
    chance = replace(critical, indices=shuffled[..., : critical.indices.shape[2]], scores=np.ones_like(critical.scores))
    words = description.top_words(lens, tokens, m=run.config.description.m)
    n_words = run.config.description.n_words
    return critical, description.describe(chance, words, corpus=files.corpus(run.directory), n_words=n_words)


def _control_profiles(run: _Run, control: Descriptions) -> Profiles:
    settings = run.config.profile
    return profile.build(
        control,
        files.load_faithfulness(run.directory).faithfulness,
        corpus=files.corpus(run.directory),
        faithfulness_quantile=settings.faithfulness_quantile,
        min_images=settings.min_images,
        n_bootstrap=1,
    )


def _areas(run: _Run) -> pd.DataFrame:
    """One row per area with a planted category: the category found, and whether it is right."""
    planted = read_truth(run.root)
    planted = planted[(planted["subject"] == run.config.data.subject) & planted["kind"].isin(_DESCRIBED)]
    found = files.selectivity_table(run.directory)
    preferred = found[found["preferred"].astype(str).str.lower() == "true"].set_index("roi")["category"].to_dict()
    rows = [
        {"area": area, "planted": group["category"].iloc[0], "found": preferred.get(area, "")}
        for area, group in planted.groupby("area")
    ]
    table = pd.DataFrame(rows, columns=["area", "planted", "found"])
    table["right"] = [
        found in planted.split(";") for found, planted in zip(table["found"], table["planted"], strict=True)
    ]
    return table


def _pairs(run: _Run, voxels: pd.DataFrame, critical: CriticalTokens, control: Descriptions) -> pd.DataFrame:
    """Pairs of counted voxels with one planted concept whose image shows it: words and places."""
    shown = read_scenes(run.root)
    described = files.load_descriptions(run.directory)
    grid = files.load_tokens(run.directory).grid or (1, 1)
    concept = voxels[voxels["counted"] & (voxels["kind"] == "concept")].set_index("voxel_id")["concepts"].to_dict()
    inside: dict[tuple[int, str], np.ndarray] = {}
    rows = []
    for v, voxel_id in enumerate(critical.voxel_ids):
        word = concept.get(int(voxel_id))
        if word is None or word in scenes.PLACES:
            continue
        for i, image_id in enumerate(critical.image_ids[v]):
            scene = shown[int(image_id)]
            if word not in {thing.concept for thing in scene.things}:
                continue
            key = (int(image_id), word)
            if key not in inside:
                inside[key] = _token_cover(scene, word, grid)
            rows.append(
                {
                    "first": _first(described, v, i) == word,
                    "first_control": _first(control, v, i) == word,
                    "inside": inside[key][critical.indices[v, i]].mean(),
                    "area": inside[key].mean(),
                }
            )
    return pd.DataFrame(rows, columns=["first", "first_control", "inside", "area"])


def _tests(run: _Run) -> pd.DataFrame:
    """The comparisons of the validation stage with the describing encoder; empty where it tested nothing."""
    table = files.comparisons_table(run.directory)
    if table is None:
        return pd.DataFrame(columns=["comparison", "source", "voxels", "effect", "share"])
    return table[table["evaluator"].str.startswith("query") & (table["voxels"] == "described")]


def _token_cover(scene: scenes.Scene, concept: str, grid: tuple[int, int]) -> np.ndarray:
    """Which tokens [P] overlap a thing of that concept."""
    masks = scenes.thing_masks(scene)
    mask = np.any([m for m, thing in zip(masks, scene.things, strict=True) if thing.concept == concept], axis=0)
    rows, columns = grid
    return mask.reshape(rows, scene.size // rows, columns, scene.size // columns).any((1, 3)).ravel()


def _first(described: Descriptions, v: int, i: int) -> str:
    position = described.word_ids[v, i, 0]
    return str(described.words[position]) if position >= 0 else ""


def _measures(parts: Sequence[dict[str, pd.DataFrame]]) -> pd.DataFrame:
    joined = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
    voxels, areas, pairs, tests = (joined[name] for name in ("voxels", "areas", "pairs", "tests"))
    of = tests.set_index("comparison")
    counted = voxels[voxels["counted"]]
    share = counted["r2"] / counted["true_ceiling"]
    noise = voxels[voxels["kind"] == "noise"]
    silent = voxels[voxels["kind"].isin(_SILENT)]
    rows: list[tuple[str, Any, float | None, int]] = [
        ("mean test R2 / true ceiling", share, 0.7, 1),
        ("mean R2 above that of ridge on the mean token", counted["r2"] - counted["r2_ridge"], 0.0, 1),
        ("planted word is the profile's first", counted["hit1"], 0.7, 1),
        ("planted word is among the first five", counted["hit5"], 0.9, 1),
        ("control: first word from random tokens of the same images", counted["control_hit1"], None, 1),
        ("area prefers the planted category", areas["right"], 1.0, 1),
        ("noise-only voxels explained", noise["explained"], 0.05, -1),
        ("constant or invalid voxels explained", silent["explained"], 0.0, -1),
        ("selective voxels explained", counted["explained"], None, 1),
        ("image shows the concept: first word is right", pairs["first"], None, 1),
        ("control: the same from random tokens", pairs["first_control"], None, 1),
        ("critical tokens on the planted thing", pairs["inside"], None, 1),
        ("control: share of all tokens on it", pairs["area"], None, 1),
    ]
    rows += [
        (metric, of.loc[of.index == comparison, column], target, 1)
        for metric, comparison, column, target in _TESTED
        if comparison in of.index
    ]
    table = []
    for metric, values, target, sign in rows:
        value = float(np.mean(values)) if len(values) else np.nan
        met = "" if target is None else str(bool(sign * value >= sign * target)).lower()
        table.append({"metric": metric, "value": value, "n": len(values), "target": target, "met": met})
    return pd.DataFrame(table)


def _text(table: pd.DataFrame, names: list[str]) -> str:
    lines = [
        f"Recovery of the planted truth ({', '.join(names)}); "
        f"selective voxels with a true ceiling of at least {MIN_CEILING}:"
    ]
    for row in table.to_dict("records"):
        goal = ""
        if row["met"]:
            sign = "<=" if row["metric"].endswith("voxels explained") else ">="
            goal = f"  target {sign} {row['target']:g}  {'met' if row['met'] == 'true' else 'NOT MET'}"
        lines.append(f"  {row['metric']:<58} {row['value']:6.3f}  n={row['n']:<6}{goal}")
    return "\n".join(lines)
