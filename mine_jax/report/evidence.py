"""What the explorer shows of single voxels beside their words: images with heat maps, patching curves, edits.

Each is left out beyond a number of bytes, so that a page of 20,000 voxels stays below 20 MB; the best explained and
best predicted voxels come first.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report import canvas, page, reading
from mine_jax.report.figures import heat
from mine_jax.report.sections import examples, validation

MAX_IMAGES = 400
IMAGES_PER_VOXEL = 3
PIXELS = 112
MAX_EDITED = 60
# Of heat maps, one byte per token.
MAX_HEAT_BYTES = 2_000_000
# Curves are stored in steps of 1 / 120, from -0.5 on.
CURVE_STEPS, CURVE_START, NO_CURVE = 120, -0.5, 255
CURVES = (("necessity", "ig"), ("necessity", "random"), ("sufficiency", "ig"), ("sufficiency", "random"))
_DTYPES = {name: np.dtype(name) for name in ("i1", "u1", "u2", "u4", "i4", "f4", "f8")}


def array(values: Any, kind: str) -> dict[str, str]:
    """Encodes numbers for the script of a page.

    Args:
        values: numbers of any shape.
        kind: of each: i1, u1, u2, u4, i4, f4 or f8.

    Returns:
        The kind, and base64 of the little-endian bytes.
    """
    raw = np.asarray(values).astype(_DTYPES[kind].newbyteorder("<"))
    return {"type": kind, "base64": base64.b64encode(raw.tobytes()).decode("ascii")}


def starts(places: pd.Series, n: int) -> np.ndarray:
    """Returns where the rows of each of n voxels begin, and the end [n + 1]; places ascend."""
    return np.searchsorted(places.to_numpy(), np.arange(n + 1))


def images(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    """Collects the images of each voxel: test images first, those that it responds to most by prediction.

    Args:
        run: opened run.
        voxels: rows of voxels.tsv, those that the page holds.
    """
    ids, grid = voxels["voxel_id"].tolist(), run.grid
    empty = {"images": [], "example_first": array(np.zeros(len(ids) + 1), "u4"), "grid": grid or (1, 1)}
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
    n_tokens, critical = grid[0] * grid[1], np.asarray(tokens[chosen["row"].to_numpy(int)])
    is_critical = np.zeros((len(chosen), n_tokens), bool)
    row, rank = np.nonzero((critical >= 0) & (critical < n_tokens))
    is_critical[row, critical[row, rank]] = True
    return {
        "images": pictures,
        "example_first": array(starts(chosen["place"], len(ids)), "u4"),
        "example_image": array(pd.Index(pool).get_indexer(chosen["image_id"]), "u2"),
        "example_predicted": array(chosen["predicted"], "f4"),
        "example_measured": array(run.measured(chosen["voxel_id"], chosen["image_id"]), "f4"),
        "example_critical": array(np.packbits(is_critical, axis=1, bitorder="little"), "u1"),
        "grid": grid,
        **_heat(run, voxels, chosen, grid),
    }


def _heat(run: reading.Run, voxels: pd.DataFrame, chosen: pd.DataFrame, grid: tuple[int, int]) -> dict[str, Any]:
    """Scores of all tokens of the images, as shares of the score that gets the full color of their voxel."""
    full, n_tokens = run.array("attribution/heat.npy"), grid[0] * grid[1]
    if full is None or full.ndim != 2 or full.shape[1] != n_tokens or chosen["row"].max() >= len(full):
        return {"heat": None}
    order = voxels.reset_index(drop=True).sort_values(["explained", "r2"], ascending=False, kind="stable").index
    rank = np.empty(len(voxels), int)
    rank[order] = np.arange(len(voxels))
    # whole voxels, the first in this order
    first = np.sort(rank[chosen["place"]])[: MAX_HEAT_BYTES // n_tokens]
    is_kept = rank[chosen["place"]] <= first[-1] if len(first) else np.zeros(len(chosen), bool)
    kept = chosen[is_kept]
    scores = np.nan_to_num(np.asarray(full[kept["row"].to_numpy(int)], np.float32))
    limits, shares = np.full(len(voxels), np.nan), np.zeros(scores.shape)
    for place, rows in kept.assign(at=np.arange(len(kept))).groupby("place")["at"]:
        at = rows.to_numpy()
        limits[int(str(place))] = limit = examples.full_color(scores[at])
        shares[at] = np.clip(scores[at] / limit, -1, 1)
    number = np.zeros(len(chosen), int)
    number[is_kept] = np.arange(1, len(kept) + 1)
    return {
        "heat": array(np.rint(127 * shares), "i1"),
        "example_heat": array(number, "u4"),
        "heat_limit": array(limits, "f4"),
    }


def curves(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    """Collects the patching curves of each voxel: shares of the response to the whole image, means over its images.

    Args:
        run: opened run.
        voxels: rows of voxels.tsv, those that the page holds.
    """
    table = run.table("attribution/voxels.tsv", ("voxel_id",))
    folder = "attribution/faithfulness"
    ks = run.array(f"{folder}/k_values.npy")
    opened = [run.array(f"{folder}/{kind}.{order}.npy") for kind, order in CURVES]
    stored = [part for part in opened if part is not None and table is not None and len(part) == len(table)]
    if table is None or ks is None or len(stored) < len(CURVES):
        return {"curve_ks": []}
    row = pd.Index(table["voxel_id"]).get_indexer(voxels["voxel_id"])
    shares = np.full((len(voxels), len(CURVES), len(ks)), np.nan)
    for place, ((kind, _), part) in enumerate(zip(CURVES, stored, strict=True)):
        mean = np.asarray(part[row[row >= 0]], float).mean(axis=1)
        whole, none = (mean[:, :1], mean[:, -1:]) if kind == "necessity" else (mean[:, -1:], mean[:, :1])
        with np.errstate(divide="ignore", invalid="ignore"):
            shares[row >= 0, place] = (mean - none) / (whole - none)
    steps = np.clip(np.rint((shares - CURVE_START) * CURVE_STEPS), 0, NO_CURVE - 1)
    code = np.where(np.isfinite(shares), steps, NO_CURVE)
    return {"curve_ks": np.asarray(ks).tolist(), "curves": array(np.nan_to_num(code), "u1")}


def edits(run: reading.Run, voxels: pd.DataFrame) -> dict[str, Any]:
    """Collects an insertion and a removal of each voxel that was tested so, before and after.

    Args:
        run: opened run.
        voxels: rows of voxels.tsv, those that the page holds.
    """
    place = dict(zip(voxels["voxel_id"].tolist(), range(len(voxels)), strict=True))
    listed = []
    for edit in validation.edits_of_voxels(run, limit=MAX_EDITED):
        if edit["voxel_id"] in place:
            pictures = {name: str(canvas.pixels(edit[name], alt="", size=PIXELS).uri) for name in ("old", "new")}
            text = page.clean(f"{edit['words']} {edit['what']}")
            numbers = {name: float(edit[name]) for name in ("before", "after")}
            judge = page.clean(edit["evaluator"])
            listed.append({"voxel": place[edit["voxel_id"]], "text": text, "judge": judge, **numbers, **pictures})
    return {"edits": listed}
