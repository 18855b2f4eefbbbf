"""Examples: for some explained voxels, the images that drive them, where, and in which words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax.report import canvas, figures, page, reading
from mine_jax.report.figures import heat

PAIRS = "attribution/pairs.tsv"
IMAGES_PER_VOXEL = 3
WORDS_PER_IMAGE = 6
# Quantile of a voxel's absolute scores that gets the full color.
FULL_COLOR = 0.995
# Examples beyond these are closed until a reader opens them.
OPEN = 2
SCALE = "Color bar from violet, tokens that lower the prediction, over white, 0, to orange, those that raise it."


@dataclass(frozen=True)
class Card:
    """One voxel and one image."""

    image_id: str
    split: str
    predicted: float
    measured: float
    faithfulness: float
    photo: page.Picture | None
    overlay: page.Picture | None
    words: page.Bars | None
    sentence: str


class _TokenScores(NamedTuple):
    """By row of pairs.tsv: scores of all tokens and the critical tokens; and whether all scores were stored."""

    fields: dict[int, np.ndarray]
    criticals: dict[int, np.ndarray]
    are_complete: bool


class _Chosen(NamedTuple):
    """Rows of voxels.tsv, those of pairs.tsv with the first images of each, and by what rule they are shown."""

    voxels: pd.DataFrame
    pairs: pd.DataFrame
    rule: str


def build(run: reading.Run, *, max_examples: int = 12) -> page.Section:
    """Builds the section with example voxels and their heat maps."""
    anchor, title = "examples", f"Examples: what drives single {run.unit.many}"
    found = _choose(run, max_examples)
    if isinstance(found, str):
        return page.Section(anchor, title, missing=found)
    picked, chosen, rule = found
    cards, limits, note = _cards(run, chosen, picked)
    if not cards:
        return page.Section(anchor, title, missing=f"No {run.unit} has an attributed image with the status ok.")
    profiles = run.rows("profile/sentences.tsv", picked["voxel_id"].tolist(), ("voxel_id", "sentence"))
    sentences = {} if profiles is None else dict(zip(profiles["voxel_id"], profiles["sentence"], strict=True))
    examples = [
        {
            "voxel": row,
            "sentence": sentences.get(row.voxel_id, ""),
            "cards": cards[row.voxel_id],
            "limit": limits.get(row.voxel_id),
        }
        for row in reading.records(picked)
        if row.voxel_id in cards
    ]
    scale = canvas.picture(figures.heat_scale(), alt=SCALE) if limits else None
    shown = {"examples": examples, "scale": scale, "open": OPEN, "has_areas": run.has_areas}
    return page.Section(anchor, title, {**shown, "rule": rule, "note": note, "unit_of_scores": run.scale})


def heat_maps(run: reading.Run, *, limit: int) -> list[figures.HeatMap] | str:
    """Chooses heat maps: the best predicted voxels, areas taking turns, each with the image it responds to most.

    Args:
        run: opened run.
        limit: largest number of voxels.

    Returns:
        One heat map per voxel; a sentence that says why where there are none.
    """
    found = _choose(run, limit)
    if isinstance(found, str):
        return found
    picked, chosen, _ = found
    areas, grid = dict(zip(picked["voxel_id"], picked["area"], strict=True)), run.grid
    is_explained = (
        dict(zip(picked["voxel_id"], picked["explained"].astype(bool), strict=True)) if "explained" in picked else {}
    )
    scores = _token_scores(run, chosen, grid)
    if grid is None or not scores.fields:
        return _why_no_heat(grid)
    limits, (words, _) = _limits(chosen, scores.fields), _words(run, chosen, picked)
    first = chosen.groupby("voxel_id").head(1).sort_values("voxel_id", key=lambda ids: ids.map(list(areas).index))
    photos = _photos(run, first)
    shown = []
    for pair in reading.records(first):
        read = ", ".join(bar.label for bar in words.get((pair.voxel_id, pair.image_id), [])[:2])
        read = read if is_explained.get(pair.voxel_id, True) else "nothing is claimed"
        area = f", {areas[pair.voxel_id]}" if run.has_areas else ""
        title = f"{run.unit} {pair.voxel_id}{area}\n{read}"
        fields = scores.fields[pair.row], scores.criticals[pair.row]
        shown.append(figures.HeatMap(title, photos.get(pair.image_id), *fields, grid, limits[pair.voxel_id]))
    return shown


def _choose(run: reading.Run, limit: int) -> _Chosen | str:
    """Chooses voxels and their first images; a sentence that says why where there are none."""
    pairs, voxels = run.table(PAIRS, ("voxel_id", "image_id", "predicted")), run.voxels
    if voxels is None:
        return run.why_missing("encoder", "voxels.tsv")
    if pairs is None or pairs.empty:
        return run.why_missing("attribution", PAIRS)
    pairs = ranked(run, pairs.assign(row=np.arange(len(pairs))))
    picked, rule = _pick(run.unit, voxels, pairs, limit)
    first = pairs[pairs["voxel_id"].isin(picked["voxel_id"])].groupby("voxel_id").head(IMAGES_PER_VOXEL)
    return _Chosen(picked, first, rule)


def _photos(run: reading.Run, chosen: pd.DataFrame) -> dict[str, np.ndarray]:
    """The photos of some pairs, cut to what the tokens cover."""
    photos, grid, crop = run.photos(chosen["image_id"]), run.grid, crop_of(run)
    return photos if grid is None else {i: heat.fit_to_grid(p, grid, crop=crop) for i, p in photos.items()}


def ranked(run: reading.Run, pairs: pd.DataFrame) -> pd.DataFrame:
    """Orders pairs of voxel and image as examples: test images first, highest predicted response first.

    Args:
        run: opened run, whose images.tsv has the splits.
        pairs: rows of pairs.tsv: voxel_id, image_id, predicted.

    Returns:
        The rows with the status ok.
    """
    if "status" in pairs:
        pairs = pairs[pairs["status"].isin(("ok", ""))]
    seen = pairs["image_id"].map(lambda name: run.split_of(name) != "test")
    order = pairs.assign(seen=seen).sort_values(["seen", "predicted", "image_id"], ascending=[True, False, True])
    return order.drop(columns="seen")


def _pick(unit: page.Unit, voxels: pd.DataFrame, pairs: pd.DataFrame, limit: int) -> tuple[pd.DataFrame, str]:
    attributed = voxels[voxels["voxel_id"].isin(pairs["voxel_id"])]
    explained = attributed[attributed["explained"]]
    pool, kind = (explained, "explained") if len(explained) else (attributed, "attributed, but not explained")
    picked = reading.spread_over_areas(pool, limit=limit)
    rule = (
        f"{unit.count(len(picked))} of {page.count(len(pool))} {kind} ones: the best predicted (R²) {unit} of "
        f"each area in alphabetical order, then the second best, and so on. Images: of those attributed, test images "
        f"before those that the encoder was fitted on, the {IMAGES_PER_VOXEL} with the highest predicted response."
    )
    return picked, rule


def _cards(
    run: reading.Run, chosen: pd.DataFrame, picked: pd.DataFrame
) -> tuple[dict[int, list[Card]], dict[int, float], str]:
    """Makes the cards of each voxel, the score that gets the full color in them, and a note on what is absent."""
    grid, photos = run.grid, _photos(run, chosen)
    fields, criticals, are_complete = _token_scores(run, chosen, grid)
    limits = _limits(chosen, fields)
    words, sentences = _words(run, chosen, picked)
    chosen = chosen.assign(measured=run.measured(chosen["voxel_id"], chosen["image_id"]))
    highest = max((bar.value for bars in words.values() for bar in bars), default=None)
    cards: dict[int, list[Card]] = {}
    for pair in reading.records(chosen):
        key = (pair.voxel_id, pair.image_id)
        photo = photos.get(pair.image_id)
        drawn = None
        if grid is not None and pair.row in fields:
            alt = _in_words(run.unit, fields[pair.row], pair, grid, bool(photos))
            shown = figures.HeatMap("", photo, fields[pair.row], criticals[pair.row], grid, limits[pair.voxel_id])
            drawn = canvas.picture(figures.heat_map(shown), alt=alt)
        shown = None if photo is None else canvas.pixels(photo, alt=f"Image {pair.image_id}.")
        bars = page.Bars("Weight of each word", words[key], 0.0, highest) if key in words else None
        share = getattr(pair, "faithfulness", np.nan)
        split, said = run.split_of(pair.image_id), sentences.get(key, "")
        card = Card(pair.image_id, split, pair.predicted, pair.measured, share, shown, drawn, bars, said)
        cards.setdefault(pair.voxel_id, []).append(card)
    return cards, limits, _note(grid, fields, are_complete, photos)


def _limits(chosen: pd.DataFrame, fields: dict[int, np.ndarray]) -> dict[int, float]:
    """Finds for each voxel the score that gets the full color; empty without scores."""
    limits = {}
    for voxel, rows in chosen.groupby("voxel_id")["row"] if fields else ():
        limits[int(str(voxel))] = full_color(np.concatenate([fields[row] for row in rows]))
    return limits


def full_color(scores: np.ndarray) -> float:
    """Returns the absolute score that gets the full color in the heat maps of a voxel.

    Args:
        scores: of the tokens of its images, any shape.
    """
    values = np.abs(scores)
    high = float(np.quantile(values, FULL_COLOR))
    return high if high > 0 else float(values.max(initial=0)) or 1.0


def _token_scores(run: reading.Run, chosen: pd.DataFrame, grid: tuple[int, int] | None) -> _TokenScores:
    tokens, scores = run.array("attribution/tokens.npy"), run.array("attribution/scores.npy")
    full = run.array("attribution/heat.npy")
    if grid is None or tokens is None or scores is None:
        return _TokenScores({}, {}, False)
    n_tokens = grid[0] * grid[1]
    fields, criticals, are_complete = {}, {}, True
    for row in chosen["row"]:
        if row >= len(tokens) or (full is not None and (row >= len(full) or full.shape[1] != n_tokens)):
            return _TokenScores({}, {}, False)
        indices = np.asarray(tokens[row])
        stored = None if full is None else np.asarray(full[row], np.float32)
        fields[row], is_complete = heat.token_scores(stored, indices, np.asarray(scores[row]), n_tokens=n_tokens)
        criticals[row], are_complete = indices, are_complete and is_complete
    return _TokenScores(fields, criticals, are_complete)


def _words(
    run: reading.Run, chosen: pd.DataFrame, picked: pd.DataFrame
) -> tuple[dict[Any, list[page.Bar]], dict[Any, str]]:
    """Reads the words of each pair, and writes what they have to do with the profile of the voxel."""
    ids = chosen["voxel_id"].unique().tolist()
    table = run.rows("description/words.tsv", ids, ("voxel_id", "image_id", "rank", "word", "weight"))
    words: dict[Any, list[page.Bar]] = {}
    for row in reading.records(None if table is None else table.sort_values("weight", ascending=False, kind="stable")):
        bars = words.setdefault((row.voxel_id, row.image_id), [])
        if len(bars) < WORDS_PER_IMAGE:
            bars.append(page.Bar(row.word, row.weight, note=page.decimal(row.weight)))
    profiles = run.rows("profile/words.tsv", ids, ("voxel_id", "rank", "word"))
    places = {(row.voxel_id, row.word): int(row.rank) for row in reading.records(profiles)}
    explained = dict(zip(picked["voxel_id"], picked["explained"], strict=True))
    said = {key: _said(run.unit, key, bars, places, bool(explained.get(key[0]))) for key, bars in words.items()}
    return words, said


def _said(
    unit: page.Unit, key: tuple[int, str], bars: list[page.Bar], places: dict[Any, int], is_explained: bool
) -> str:
    read = f"Critical tokens read as {' and '.join(bar.label for bar in bars[:2])}."
    if not is_explained:
        return f"{read} No words are claimed for this {unit}."
    found = [(places[key[0], bar.label], bar.label) for bar in bars if (key[0], bar.label) in places]
    if not found:
        return f"{read} None of them is in the profile."
    rank, word = min(found)
    return f"{read} The first of its profile among them: {word} (#{rank})."


def crop_of(run: reading.Run) -> float | None:
    """Returns the share of the photo's centered window that the model sees; None for all, stretched.

    Args:
        run: opened run, whose features/meta.json names the preprocessing.
    """
    for place in (run.features, *(v for v in run.features.values() if isinstance(v, dict))):
        if "crop" in place and "resize" in place:
            resize, crop = place["resize"], place["crop"]
            if crop is None:
                return None if isinstance(resize, list) else 1.0
            return min(1.0, min(crop) / resize) if isinstance(resize, int) and isinstance(crop, list) else 1.0
    return 1.0 if run.setting("features", "kind", "clip") == "clip" else None


def _in_words(unit: page.Unit, field: np.ndarray, pair: Any, grid: tuple[int, int], has_photo: bool) -> str:
    y, x = divmod(int(np.argmax(field)), grid[1])
    vertical = ("top", "middle", "bottom")[min(2, 3 * y // grid[0])]
    horizontal = ("left", "center", "right")[min(2, 3 * x // grid[1])]
    ground = "" if has_photo else " The photo itself was not available."
    return (
        f"Heat map of image {pair.image_id} for {unit} {pair.voxel_id}: the strongest token lies at "
        f"{vertical} {horizontal}, with {page.size(field.max())}.{ground}"
    )


def _note(grid: Any, fields: Any, are_complete: bool, photos: Any) -> str:
    notes = []
    if grid is None or not fields:
        notes.append(_why_no_heat(grid))
    elif not are_complete:
        notes.append("Only the scores of the critical tokens were stored; all other tokens are shown as 0.")
    if not photos:
        notes.append("No image reader was given, so the photos are not shown.")
    return " ".join(notes)


def _why_no_heat(grid: Any) -> str:
    if grid is None:
        return "The token grid is not recorded in features/meta.json, so no heat maps can be drawn."
    return "Token scores are absent, or are not one per cell of the token grid, so no heat maps can be drawn."
