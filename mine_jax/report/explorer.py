"""The explorer: every voxel with its place, claim, profile and images, as one compact JSON for the page.

Numbers are base64 of little-endian arrays. Above `MAX_VOXELS` voxels, one stands for each block of neighbours.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report import canvas, page, reading, slices
from mine_jax.report.figures import heat
from mine_jax.report.sections import answer, areas, examples
from mine_jax.roi import maps
from mine_jax.types import CLAIMS

MAX_VOXELS = 20_000
MAX_IMAGES = 400
WORDS = 10
IMAGES_PER_VOXEL = 3
TOKENS = 16
PIXELS = 112
NO_TOKEN = 65535
_DTYPES = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "i4": np.int32, "f4": np.float32, "f8": np.float64}


def build(run: reading.Run) -> page.Section:
    """Builds the section with the explorer."""
    anchor, title = "explorer", f"Explore the {run.unit.many}"
    if run.voxels is None or run.voxels.empty:
        return page.Section(anchor, title, missing=run.why_missing("encoder", "voxels.tsv"))
    data, rule = collect(run)
    return page.Section(anchor, title, {"data": page.Json(json.dumps(data, separators=(",", ":"))), "rule": rule})


def collect(run: reading.Run) -> tuple[dict[str, Any], str]:
    """Collects what the page knows of every voxel.

    Args:
        run: opened run, with voxels.

    Returns:
        Plain values with encoded arrays, and a sentence that says which voxels they cover.
    """
    table = run.voxels if run.voxels is not None else pd.DataFrame()
    voxels, rule = _thinned(run.unit, table)
    claims = voxels["claim"] if "claim" in voxels else pd.Series("none", index=voxels.index)
    sets, area = np.unique(voxels["rois"].to_numpy(str), return_inverse=True)
    reasons, reason = np.unique(voxels["reason"].fillna("").to_numpy(str), return_inverse=True)
    data = {
        "unit": run.unit.one,
        "units": run.unit.many,
        "ids": _ids(voxels["voxel_id"].to_numpy()),
        "r2": _array(voxels["r2"], "f4"),
        "ceiling": _array(voxels["noise_ceiling"], "f4"),
        "claims": CLAIMS,
        "claim": _array([max(0, CLAIMS.index(c)) if c in CLAIMS else 0 for c in claims], "u1"),
        "area_sets": [[page.clean(run.area_name(a)) for a in reading.areas_of(names)] for names in sets],
        "area": _array(area, "u4"),
        "reasons": [page.clean(text) for text in reasons],
        "reason": _array(reason, "u4"),
        "areas": _areas(run),
        **_category(run, voxels),
        **_places(run, voxels),
        **_words(run, voxels),
        **_images(run, voxels),
    }
    return data, rule


def _array(values: Any, kind: str) -> dict[str, str]:
    raw = np.asarray(values).astype(np.dtype(_DTYPES[kind]).newbyteorder("<"))
    return {"type": kind, "base64": base64.b64encode(raw.tobytes()).decode("ascii")}


def _ids(ids: np.ndarray) -> dict[str, str]:
    return _array(ids, "i4" if np.abs(ids).max() < 2**31 else "f8")


def _thinned(unit: page.Unit, voxels: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Keeps the best predicted voxel of each block, in blocks as small as the limit allows."""
    if len(voxels) <= MAX_VOXELS:
        return voxels, f"All {unit.count(len(voxels))} of voxels.tsv."
    has_places = {"i", "j", "k"} <= set(voxels) and voxels[["i", "j", "k"]].notna().all(axis=None)
    ranked = voxels.sort_values("r2", ascending=False, kind="stable", na_position="last")
    places = ranked[["i", "j", "k"]].to_numpy(int) if has_places else np.argsort(np.argsort(ranked.index))[:, None]
    for side in range(2, len(voxels)):
        _, first = np.unique(places // side, axis=0, return_index=True)
        if len(first) <= MAX_VOXELS:
            break
    kept = ranked.iloc[np.sort(first)].sort_index()
    block = " x ".join([str(side)] * places.shape[1])
    return kept, (
        f"{unit.count(len(kept))} of {page.count(len(voxels))}: the best predicted one of each block of "
        f"{block}, since the page holds no more than {page.count(MAX_VOXELS)}."
    )


def _areas(run: reading.Run) -> list[dict[str, str]]:
    words, preferred = answer.leading_words([run]), areas.preferred_categories(run)
    listed = []
    for name, part in answer.by_area(run).groupby("area"):
        area = str(name)
        n = int(part["explained"].sum())
        text = f"{run.unit.count(len(part))}, {page.count(n)} explained."
        if preferred is not None:
            text += f" Prefers {preferred[area]}." if area in preferred else " No preferred category."
        if words.get(area):
            text += f" Leading words: {', '.join(words[area])}."
        listed.append({"name": page.clean(run.area_name(area)), "text": page.clean(text)})
    return listed


def _category(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    path = run.directory / "maps" / "top_category.nii.gz"
    if not path.is_file() or not {"i", "j", "k"} <= set(voxels):
        return {"category": None}
    legend = maps.read_legend(path)
    volume, _ = maps.read_map(path)
    places = voxels[["i", "j", "k"]].to_numpy(int)
    is_inside = ((places >= 0) & (places < np.array(volume.shape))).all(axis=1)
    codes = np.zeros(len(voxels), int)
    codes[is_inside] = np.nan_to_num(volume[tuple(places[is_inside].T)]).astype(int)
    present = [code for code in pd.Series(codes).value_counts().index if code != 0]
    if not present:
        return {"category": None}
    number = {0: 0, **{code: place for place, code in enumerate(present, start=1)}}
    names = ["none claimed", *(page.clean(legend.get(code, f"label {code}")) for code in present)]
    return {"category": _array([number[code] for code in codes], "u2"), "categories": names}


def _places(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    """Places in the volume; without geometry, places in a scatter plot of accuracy."""
    if {"i", "j", "k"} <= set(voxels) and voxels[["i", "j", "k"]].notna().all(axis=None):
        paths = sorted((run.directory / "maps").glob("*.nii.gz"))
        affine = maps.read_map(paths[0])[1] if paths else np.eye(4)
        where = slices.space(affine)
        letters = where.letters if paths else (("", ""),) * 3
        places = _array(voxels[["i", "j", "k"]].to_numpy(), "u2")
        return {"places": places, "letters": letters, "names": where.names, "step": where.step, "origin": where.origin}
    y = np.nan_to_num(np.clip(voxels["r2"].to_numpy(float), -0.2, None))
    x, name = voxels["noise_ceiling"].to_numpy(float), "noise ceiling"
    if not np.isfinite(x).any():
        x = np.argsort(np.argsort(voxels["rois"].to_numpy(str), kind="stable")).astype(float)
        name = f"{run.unit.many}, in order of {'areas' if run.has_areas else 'their numbers'}"
    x = np.nan_to_num(x)
    spans = [(float(values.min()), float(max(values.max(), values.min() + 1e-6))) for values in (x, y)]
    scaled = [(values - low) / (high - low) for values, (low, high) in zip((x, y), spans, strict=True)]
    return {"places": None, "xy": _array(np.stack(scaled, axis=1), "f4"), "axes": (name, "R²"), "ticks": spans}


def _words(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    ids = voxels["voxel_id"].tolist()
    table = run.rows("profile/words.tsv", ids, ("voxel_id", "rank", "word", "weight"))
    if table is None:
        table = pd.DataFrame({"voxel_id": [], "rank": [], "word": [], "weight": []})
    table = table[table["word"] != ""].assign(
        place=lambda t: pd.Index(ids).get_indexer(t["voxel_id"]),
        low=table["low"] if "low" in table else np.nan,
        high=table["high"] if "high" in table else np.nan,
    )
    table = table.sort_values(["place", "weight"], ascending=[True, False], kind="stable").groupby("place").head(WORDS)
    names, code = np.unique(table["word"].to_numpy(str), return_inverse=True)
    return {
        "words": [page.clean(name) for name in names],
        "first": _array(_starts(table["place"], len(ids)), "u4"),
        "word": _array(code, "u4"),
        "rank": _array(table["rank"], "u2"),
        **{name: _array(table[name], "f4") for name in ("weight", "low", "high")},
    }


def _images(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    """For each voxel, the test images first, those that it responds to most by prediction."""
    ids, grid = voxels["voxel_id"].tolist(), run.grid
    empty = {"images": [], "example_first": _array(np.zeros(len(ids) + 1), "u4"), "grid": grid or (1, 1), "n_tokens": 0}
    pairs = run.table("attribution/pairs.tsv", ("voxel_id", "image_id", "predicted"))
    tokens = run.array("attribution/tokens.npy")
    if pairs is None or tokens is None or grid is None or run.read_images is None or len(tokens) != len(pairs):
        return empty
    ranked = examples.ranked(run, pairs.assign(row=np.arange(len(pairs))))
    ranked = ranked.assign(place=pd.Index(ids).get_indexer(ranked["voxel_id"]))
    ranked = ranked[ranked["place"] >= 0]
    wanted = ranked.groupby("voxel_id").head(IMAGES_PER_VOXEL)["image_id"].value_counts(sort=True)
    pool = sorted(wanted.sort_index().sort_values(ascending=False, kind="stable").index[:MAX_IMAGES])
    chosen = ranked[ranked["image_id"].isin(pool)].groupby("voxel_id").head(IMAGES_PER_VOXEL)
    chosen = chosen.sort_values("place", kind="stable")
    crop = examples.crop_of(run)
    pictures = []
    for name, photo in run.photos(pool).items():
        small = canvas.pixels(heat.fit_to_grid(photo, grid, crop=crop), alt="", size=PIXELS)
        pictures.append({"id": page.clean(str(name)), "split": run.split_of(name), "uri": str(small.uri)})
    kept = np.full((len(chosen), TOKENS), NO_TOKEN)
    first = np.asarray(tokens)[chosen["row"].to_numpy(int), :TOKENS]
    kept[:, : first.shape[1]] = np.where(first < 0, NO_TOKEN, first)
    return {
        "images": pictures,
        "example_first": _array(_starts(chosen["place"], len(ids)), "u4"),
        "example_image": _array(pd.Index(pool).get_indexer(chosen["image_id"]), "u2"),
        "example_predicted": _array(chosen["predicted"], "f4"),
        "example_measured": _array(run.measured(chosen["voxel_id"], chosen["image_id"]), "f4"),
        "example_tokens": _array(kept, "u2"),
        "grid": grid,
        "n_tokens": TOKENS,
    }


def _starts(places: pd.Series, n: int) -> np.ndarray:
    """Returns where the rows of each of n voxels begin, and the end [n + 1]; places ascend."""
    return np.searchsorted(places.to_numpy(), np.arange(n + 1))
