"""The explorer: every voxel with its place, claim, profile and images, as one compact JSON for the page.

Numbers are base64 of little-endian arrays. Above `MAX_VOXELS` voxels, one stands for each block of neighbours.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report import evidence, page, reading, slices
from mine_jax.report.sections import answer, areas
from mine_jax.roi import maps
from mine_jax.types import CLAIMS, SPHERE_RADIUS

MAX_VOXELS = 20_000
WORDS = 10
ENRICHMENTS = 5
# Between the hemispheres of a flat map, millimetres.
_BETWEEN = 12.0
_HEMISPHERES = {"lh": "left hemisphere", "rh": "right hemisphere"}


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
    flat = _flattened(run, table)
    voxels, rule, side = _thinned(run.unit, table, flat)
    claims = voxels["claim"] if "claim" in voxels else pd.Series("none", index=voxels.index)
    sets, area = np.unique(voxels["rois"].to_numpy(str), return_inverse=True)
    reasons, reason = np.unique(voxels["reason"].fillna("").to_numpy(str), return_inverse=True)
    data = {
        "unit": run.unit.one,
        "units": run.unit.many,
        "ids": _ids(voxels["voxel_id"].to_numpy()),
        "r2": evidence.array(voxels["r2"], "f4"),
        "ceiling": evidence.array(voxels["noise_ceiling"], "f4"),
        "claims": CLAIMS,
        "claim": evidence.array([max(0, CLAIMS.index(c)) if c in CLAIMS else 0 for c in claims], "u1"),
        "area_sets": [[page.clean(run.area_name(a)) for a in reading.areas_of(names)] for names in sets],
        "area": evidence.array(area, "u4"),
        "reasons": [page.clean(text) for text in reasons],
        "reason": evidence.array(reason, "u4"),
        "areas": _areas(run),
        **_category(run, voxels),
        **_places(run, voxels, side, flat),
        **_words(run, voxels),
        **evidence.images(run, voxels),
        **evidence.curves(run, voxels),
        **evidence.edits(run, voxels),
    }
    return data, rule


def _ids(ids: np.ndarray) -> dict[str, str]:
    return evidence.array(ids, "i4" if np.abs(ids).max() < 2**31 else "f8")


def _thinned(unit: page.Unit, voxels: pd.DataFrame, flat: pd.DataFrame | None = None) -> tuple[pd.DataFrame, str, int]:
    """Keeps the best predicted voxel of each block, in blocks as small as the limit allows; returns their side."""
    if len(voxels) <= MAX_VOXELS:
        return voxels, f"All {unit.count(len(voxels))} of voxels.tsv.", 1
    has_places = {"i", "j", "k"} <= set(voxels) and voxels[["i", "j", "k"]].notna().all(axis=None)
    ranked = voxels.sort_values("r2", ascending=False, kind="stable", na_position="last")
    if has_places:
        places = ranked[["i", "j", "k"]].to_numpy(int)
    elif flat is not None:
        places = np.floor(flat.loc[ranked.index, ["x", "y"]].to_numpy()).astype(int)
    else:
        places = np.argsort(np.argsort(ranked.index))[:, None]
    for side in range(2, len(voxels)):
        _, first = np.unique(places // side, axis=0, return_index=True)
        if len(first) <= MAX_VOXELS:
            break
    kept = ranked.iloc[np.sort(first)].sort_index()
    block = " x ".join([str(side)] * places.shape[1])
    rule = (
        f"{unit.count(len(kept))} of {page.count(len(voxels))}: the best predicted one of each block of "
        f"{block}, since the page holds no more than {page.count(MAX_VOXELS)}."
    )
    return kept, rule, side


def _areas(run: reading.Run) -> list[dict[str, Any]]:
    """What is found in each area: a text, the largest enrichments with q, and how its voxels differ."""
    words, preferred = answer.leading_words([run]), areas.preferred_categories(run)
    enriched, inside = areas.enrichments(run, limit=ENRICHMENTS), areas.structures(run)
    listed = []
    for name, part in answer.by_area(run).groupby("area"):
        area = str(name)
        n = int(part["explained"].sum())
        text = f"{run.unit.count(len(part))}, {page.count(n)} explained."
        if preferred is not None:
            text += f" Prefers {preferred[area]}." if area in preferred else " No preferred category."
        if words.get(area):
            text += f" Leading words: {', '.join(words[area])}."
        bars = [{**vars(bar), "label": page.clean(bar.label)} for bar in enriched.get(area, [])]
        named = {"name": page.clean(run.area_name(area)), "text": page.clean(text)}
        listed.append({**named, "bars": bars, "structure": inside.get(area, "")})
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
    present = [code for code in areas.by_frequency(volume) if code in set(codes.tolist())]
    if not present:
        return {"category": None}
    number = {0: 0, **{code: place for place, code in enumerate(present, start=1)}}
    names = ["none claimed", *(page.clean(legend.get(code, f"label {code}")) for code in present)]
    return {"category": evidence.array([number[code] for code in codes], "u2"), "categories": names}


def _flattened(run: reading.Run, voxels: pd.DataFrame) -> pd.DataFrame | None:
    """Places of vertices on a flat map, where their spheres are known: `hemi`, and `x`, `y` in mm of the sphere.

    Each hemisphere is seen from outside, upright, the right one beside the left one. Areas keep their size: Lambert's
    azimuthal projection, about the middle of the hemisphere's vertices.
    """
    path, ids = run.directory / "data" / "sphere.npy", run.directory / "data" / "voxel_ids.npy"
    if not {"hemi", "voxel_id"} <= set(voxels) or not path.is_file() or not ids.is_file():
        return None
    rows = pd.Index(np.load(ids)).get_indexer(voxels["voxel_id"])
    if (rows < 0).any():
        return None
    directions = np.load(path)[rows].astype(float)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    flat, edge = pd.DataFrame({"hemi": voxels["hemi"], "x": 0.0, "y": 0.0}), 0.0
    for _, part in flat.groupby("hemi", sort=True):
        seen = directions[voxels.index.get_indexer(part.index)]
        middle = seen.mean(0) / max(np.linalg.norm(seen.mean(0)), 1e-9)
        up = np.array([0.0, 0.0, 1.0]) - middle[2] * middle
        up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-6 else np.array([0.0, 1.0, 0.0])
        scale = SPHERE_RADIUS * np.sqrt(2 / np.maximum(1 + seen @ middle, 1e-3))
        x, y = scale * (seen @ np.cross(up, middle)), scale * (seen @ up)
        flat.loc[part.index, "x"], flat.loc[part.index, "y"] = x - x.min() + edge, y - y.min()
        edge += float(np.ptp(x)) + _BETWEEN
    return flat


def _on_flat_map(flat: pd.DataFrame) -> dict[str, Any]:
    """What the page draws of a flat map: places in mm, the distance of neighbours, and each hemisphere's left end."""
    from scipy.spatial import KDTree

    at = flat[["x", "y"]].to_numpy()
    nearest = KDTree(at).query(at, k=2)[0][:, 1] if len(at) > 1 else np.ones(1)
    starts = [(_HEMISPHERES.get(str(name), str(name)), float(x)) for name, x in flat.groupby("hemi")["x"].min().items()]
    return {
        "places": None,
        "flat": {"extent": at.max(0).tolist(), "spacing": float(np.median(nearest)), "parts": starts},
        "xy": evidence.array(at, "f4"),
    }


def _places(run: reading.Run, voxels: pd.DataFrame, side: int, flat: pd.DataFrame | None) -> dict[str, Any]:
    """Places in the volume, in blocks of `side`, or on a flat map; without geometry, in a scatter plot of accuracy."""
    if {"i", "j", "k"} <= set(voxels) and voxels[["i", "j", "k"]].notna().all(axis=None):
        paths = sorted((run.directory / "maps").glob("*.nii.gz"))
        affine = maps.read_map(paths[0])[1] if paths else np.eye(4)
        where = slices.space(affine)
        letters = where.letters if paths else (("", ""),) * 3
        places = evidence.array(voxels[["i", "j", "k"]].to_numpy(int) // side, "u2")
        # the middle of a block
        origin = [start + step * (side - 1) / 2 for start, step in zip(where.origin, where.step, strict=True)]
        step = [side * step for step in where.step]
        return {"places": places, "letters": letters, "names": where.names, "step": step, "origin": origin}
    if flat is not None:
        return _on_flat_map(flat.loc[voxels.index])
    y = np.nan_to_num(np.clip(voxels["r2"].to_numpy(float), -0.2, None))
    x, name = voxels["noise_ceiling"].to_numpy(float), "noise ceiling"
    if not np.isfinite(x).any():
        x = np.argsort(np.argsort(voxels["rois"].to_numpy(str), kind="stable")).astype(float)
        name = f"{run.unit.many}, in order of {'areas' if run.has_areas else 'their numbers'}"
    x = np.nan_to_num(x)
    spans = [(float(values.min()), float(max(values.max(), values.min() + 1e-6))) for values in (x, y)]
    scaled = [(values - low) / (high - low) for values, (low, high) in zip((x, y), spans, strict=True)]
    return {"places": None, "xy": evidence.array(np.stack(scaled, axis=1), "f4"), "axes": (name, "R²"), "ticks": spans}


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
        "first": evidence.array(evidence.starts(table["place"], len(ids)), "u4"),
        "word": evidence.array(code, "u4"),
        "rank": evidence.array(table["rank"], "u2"),
        **{name: evidence.array(table[name], "f4") for name in ("weight", "low", "high")},
    }
