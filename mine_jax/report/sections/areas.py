"""Areas: which category each prefers, what is inside it, and maps of the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import _optional
from mine_jax.report import canvas, figures, page, reading, slices
from mine_jax.report.figures import style
from mine_jax.report.figures.areas import MAX_AREAS, MAX_Q, is_preferred, label_column
from mine_jax.roi import maps

MAX_PAIRS = 40
SELECTIVITY = "roi/selectivity.tsv"
BARS_PER_AREA = 6
NO_COLOR = "#b3b3b3"
# Maps of plain values shown, in this order; label maps are shown all.
VALUE_MAPS = ("r2", "r2_normalized")
_COUNTS = ("n_voxels", "n_clusters")
HEADINGS = {
    "roi": "Area",
    "n_voxels": "Number",
    "between_distance": "Distance inside",
    "noise_distance": "Distance expected from noise",
    "n_clusters": "Clusters",
    "cluster_stability": "Cluster stability",
    "reproducible_q": "q that they differ",
    "patches": "Likeness of neighbours",
    "structure_q": "q of patches",
    "halves_p": "p of patches in halves",
    "is_structured": "Structured",
}


def build(run: reading.Run) -> page.Section:
    """Builds the section on areas."""
    anchor, title, table = "areas", "Areas", selectivity(run)
    structure = run.table("roi/structure.tsv", ("roi",))
    has_structure = structure is not None and len(structure)
    if table is None and not has_structure:
        return page.Section(anchor, title, missing=run.why_missing("roi", SELECTIVITY))
    content = {
        "heat": None if table is None else _heat(run.unit, table),
        "preferred": None if table is None else _preferred(run.unit, table),
        "structure": _structure(run.unit, structure) if has_structure else None,
        "contrasts": _contrasts(run.table("roi/contrasts.tsv", ("roi", "other", "word", "log_odds", "q"))),
    }
    return page.Section(anchor, title, content)


def selectivity(run: reading.Run) -> pd.DataFrame | None:
    """Reads what areas prefer; None where it was not tested.

    Args:
        run: opened run.
    """
    table = run.table(SELECTIVITY, ("roi", "enrichment"))
    if table is None or table.empty:
        return None
    return reading.checked(table, run.directory / SELECTIVITY, (label_column(table),))


def volume_maps(run: reading.Run) -> page.Section:
    """Builds the section with slices of the NIfTI maps."""
    anchor, title = "maps", "Maps"
    folder = run.directory / "maps"
    paths = {path.name.removesuffix(".nii.gz"): path for path in sorted(folder.glob("*.nii.gz"))}
    if not paths:
        return page.Section(anchor, title, missing=_why_no_maps(run))
    labels = [name for name, path in paths.items() if name != "top_category" and maps.read_legend(path)]
    shown = [*labels, *(name for name in VALUE_MAPS if name in paths)]
    figures = list(filter(None, (one_map(run, name) for name in shown)))
    return page.Section(anchor, title, {"figures": figures, "files": [f"maps/{p.name}" for p in paths.values()]})


def one_map(run: reading.Run, name: str) -> dict[str, Any] | None:
    """Draws a map of the run.

    Args:
        run: opened run.
        name: of the map, without its ending.

    Returns:
        `picture`, and `chips` with color, text and count of each label; None without such a map, or where it labels
        no voxel.
    """
    path = run.directory / "maps" / f"{name}.nii.gz"
    if not path.is_file():
        return None
    legend = maps.read_legend(path)
    if not legend:
        return _value_map(run, name, path)
    codes, _ = maps.read_map(path)
    return _label_map(run, name, path, legend) if (np.isfinite(codes) & (codes != 0)).any() else None


def by_frequency(volume: np.ndarray) -> list[int]:
    """Returns the labels of a map, those of most voxels first, as all maps of a page color them.

    Args:
        volume: labels [x, y, z], 0 for none, NaN outside.
    """
    codes, counts = np.unique(volume[np.isfinite(volume)].astype(int), return_counts=True)
    return [int(code) for code in codes[np.argsort(-counts, kind="stable")] if code > 0]


def enrichments(run: reading.Run, *, limit: int) -> dict[str, list[page.Bar]]:
    """Reads the largest enrichments of each area, with interval and q; empty where they were not tested.

    Args:
        run: opened run.
        limit: how many of each area.
    """
    table = selectivity(run)
    if table is None:
        return {}
    column = label_column(table)
    ordered = table.dropna(subset=["enrichment"]).sort_values("enrichment", ascending=False, kind="stable")
    return {
        str(area): [_bar(row, column) for row in part.head(limit).to_dict("records")]
        for area, part in ordered.groupby("roi")
    }


def structures(run: reading.Run) -> dict[str, str]:
    """Writes what roi/structure.tsv says of each area, in one line; empty without it.

    Args:
        run: opened run.
    """
    table = run.table("roi/structure.tsv", ("roi",))
    columns = [name for name in HEADINGS if table is not None and name in table.columns and name != "roi"]
    return {
        str(row["roi"]): "; ".join(f"{HEADINGS[name]}: {_cell(name, row[name])}" for name in columns) + "."
        for row in ([] if table is None else table.to_dict("records"))
    }


def _preferred(unit: page.Unit, table: pd.DataFrame) -> dict[str, Any]:
    column = label_column(table)
    cards, rows = [], []
    for area, part in list(table.groupby("roi", sort=True))[:MAX_AREAS]:
        ordered = part.sort_values("enrichment", ascending=False)
        passing = ordered[is_preferred(ordered)]
        best = passing.iloc[0] if len(passing) else None
        items = [_bar(row, column) for row in ordered.head(BARS_PER_AREA).to_dict("records")]
        cards.append(
            {"area": area, "best": "" if best is None else best[column], "bars": page.Bars("Enrichment", items)}
        )
        rows.append((area, *_cells(best, column)))
    low = min(card["bars"].span()[0] for card in cards)
    high = max(card["bars"].span()[1] for card in cards)
    for card in cards:
        card["bars"] = page.Bars("Enrichment", card["bars"].items, low, high)
    n_areas = table["roi"].nunique()
    caption = (
        f"{page.count(len(rows), 'area')} of {page.count(n_areas)} in roi/selectivity.tsv. Preferred: the {column} "
        f"with the largest enrichment among those that pass: q at most {MAX_Q} against maps as smooth as these, an "
        f"enrichment of a stated size, a map that changes at the borders of areas, and enough {unit.many} with words."
    )
    headings = ("Area", "Preferred", "Enrichment", "Interval", "q")
    return {"table": page.Table(caption, headings, rows), "cards": cards, "column": column, "count": BARS_PER_AREA}


def preferred_categories(run: reading.Run) -> dict[str, str] | None:
    """Reads the category that each area prefers; None where it was not tested, and no entry without a preference."""
    table = selectivity(run)
    if table is None:
        return None
    column, ordered = label_column(table), table[is_preferred(table)].sort_values("enrichment", kind="stable")
    return dict(zip(ordered["roi"].astype(str), ordered[column].astype(str), strict=True))


def _heat(unit: page.Unit, table: pd.DataFrame) -> page.Picture:
    """Draws the enrichment of every category in every area, with marks."""
    column = label_column(table)
    n_areas, n_labels = min(table["roi"].nunique(), MAX_AREAS), min(table[column].nunique(), MAX_AREAS)
    n_marked = int(is_preferred(table).sum())
    caption = (
        f"Enrichment (difference of shares) of each {column} in {page.count(n_areas, 'area')}. Star: preferred. "
        f"Dot: q at most {MAX_Q} but not preferred, since another is larger or a threshold is missed. An area with "
        f"few {unit.many} with words has no q."
    )
    alt = f"Heat map of enrichment, {n_areas} areas by {n_labels}; {n_marked} preferences."
    return canvas.picture(figures.area_categories(table), alt=alt, caption=caption)


def _contrasts(table: pd.DataFrame | None) -> page.Table | None:
    """The words that tell areas apart most, of the pairs that have any."""
    if table is None or table.empty:
        return None
    found = table[table["q"] <= MAX_Q]
    rows = []
    for (area, other), part in found.groupby(["roi", "other"], sort=True):
        ordered = part.sort_values("log_odds", ascending=False)
        more, less = ordered[ordered["log_odds"] > 0], ordered[ordered["log_odds"] < 0].iloc[::-1]
        rows.append((area, other, *(", ".join(side["word"].astype(str).head(4)) for side in (more, less))))
    n_pairs = len(table.groupby(["roi", "other"]))
    caption = (
        f"{page.count(min(len(rows), MAX_PAIRS))} of {page.count(n_pairs, 'pair')} of areas in roi/contrasts.tsv have "
        f"words that tell them apart at q at most {MAX_Q}; those with the largest log-odds, up to four on each side."
    )
    return page.Table(caption, ("Area", "Other area", "More in the first", "More in the other"), rows[:MAX_PAIRS])


def _cells(best: Any, column: str) -> tuple[str, ...]:
    if best is None:
        return ("none passes", "", "", "")
    interval = page.interval(best.get("low"), best.get("high"))
    return (best[column], page.decimal(best["enrichment"]), interval, page.p_value(best.get("q")))


def _bar(row: dict[str, Any], column: str) -> page.Bar:
    known = pd.notna(row.get("low", np.nan)) and pd.notna(row.get("high", np.nan))
    q = f", q {page.p_value(row['q'])}" if "q" in row else ""
    note = f"{page.decimal(row['enrichment'])}{q}"
    return page.Bar(
        str(row[column]), row["enrichment"], row["low"] if known else None, row["high"] if known else None, note
    )


def _structure(unit: page.Unit, structure: pd.DataFrame) -> page.Table:
    columns = [name for name in HEADINGS if name in structure.columns]
    rows = [[_cell(name, row[name]) for name in columns] for row in structure.to_dict("records")]
    caption = (
        f"All {page.count(len(rows), 'area')} of roi/structure.tsv. An area is structured where its {unit.many} differ "
        f"from each other in both halves of the images alike, and where neighbours are more alike than other "
        f"{unit.many} of the area (on a surface, also between halves of the images). One cluster: no number of "
        f"clusters found in one half predicts the other half."
    )
    return page.Table(caption, [HEADINGS[name] for name in columns], rows)


def _cell(name: str, value: Any) -> str:
    if name == "is_structured":
        return "yes" if str(value).lower() == "true" else "no"
    if name.endswith(("_p", "_q")):
        return page.p_value(value)
    if name in _COUNTS:
        return page.count(value)
    return page.decimal(value) if isinstance(value, int | float) else str(value)


def _why_no_maps(run: reading.Run) -> str:
    if any(stage.name == "roi" and stage.state == "done" for stage in run.stages()):
        return "This run has no maps of a volume: its data say nothing of where voxels lie there."
    return run.why_missing("roi", "maps")


def _value_map(run: reading.Run, name: str, path: Path) -> dict[str, Any]:
    volume, affine = maps.read_map(path)
    known = volume[np.isfinite(volume)]
    high = float(np.quantile(known, 0.99)) if len(known) else 1.0
    high = high if high > 0 else 1.0
    areas = _area_codes(run, volume.shape)
    title = {"r2": "R²", "r2_normalized": "R² / noise ceiling"}.get(name, name)
    fig = slices.draw(volume, affine, areas, colors=style.color_map("cividis"), low=0.0, high=high, label=title)
    caption = (
        f"{title} of {run.unit.count(len(known))}; white: none. Colors end at 0 and at the 99% quantile, "
        f"{page.decimal(high)}. {_where(areas, affine)}"
    )
    middle = f"median {page.decimal(np.median(known))}" if len(known) else "no values"
    alt = f"Slices of the volume map of {title}; {middle}."
    return {"picture": canvas.picture(fig, alt=alt, caption=caption), "chips": []}


def _label_map(run: reading.Run, name: str, path: Path, legend: dict[int, str]) -> dict[str, Any]:
    volume, affine = maps.read_map(path)
    codes, counts = np.unique(volume[np.isfinite(volume)].astype(int), return_counts=True)
    shown = by_frequency(volume)[: len(style.CATEGORIES)]
    colors = {code: style.CATEGORIES[place] for place, code in enumerate(shown)}
    drawn = np.full(volume.shape, np.nan, np.float32)
    for place, code in enumerate(shown):
        drawn[volume == code] = place
    drawn[np.isfinite(volume) & np.isnan(drawn)] = len(style.CATEGORIES)
    listed = _optional.require("matplotlib.colors", extra="report", why=style.WHY)
    palette = listed.ListedColormap([*style.CATEGORIES, NO_COLOR]).with_extremes(bad="white")
    areas = _area_codes(run, volume.shape)
    fig = slices.draw(drawn, affine, areas, colors=palette, low=-0.5, high=len(style.CATEGORIES) + 0.5)
    number = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    chips = [(colors[code], legend.get(code, f"label {code}"), run.unit.count(number[code])) for code in shown]
    rest = sum(n for code, n in number.items() if code not in shown)
    if rest:
        chips.append((NO_COLOR, "none or other", run.unit.count(rest)))
    title = name.replace("_", " ").replace("top ", "leading ").capitalize()
    caption = (
        f"{title} of the profile, {run.unit.count(int(counts.sum()))}; the {len(shown)} most frequent have a "
        f"color. {_where(areas, affine)}"
    )
    top = ", ".join(f"{text} {n}" for _, text, n in chips[:3])
    alt = f"Slices of the map of the {title.lower()}: {top}."
    return {"picture": canvas.picture(fig, alt=alt, caption=caption), "chips": chips}


def _where(areas: np.ndarray | None, affine: np.ndarray) -> str:
    lines = "Lines: borders of areas. " if areas is not None else ""
    return lines + slices.describe(affine)


def _area_codes(run: reading.Run, shape: tuple[int, ...]) -> np.ndarray | None:
    """Numbers the first area of each voxel in the volume, 0 outside; None without areas or places."""
    voxels = run.voxels
    if voxels is None or not {"i", "j", "k"} <= set(voxels) or not (voxels["rois"] != "").any():
        return None
    named = voxels[voxels["rois"] != ""].dropna(subset=["i", "j", "k"])
    places = named[["i", "j", "k"]].to_numpy(int)
    is_inside = ((places >= 0) & (places < np.array(shape))).all(axis=1)
    codes = pd.factorize(named["rois"].map(lambda rois: reading.areas_of(rois)[0]), sort=True)[0] + 1
    filled = np.zeros(shape, int)
    filled[tuple(places[is_inside].T)] = codes[is_inside]
    return filled
