"""Areas: which category each prefers, what is inside it, and maps of the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import _optional
from mine_jax.report import canvas, page, reading
from mine_jax.roi import maps

MAX_Q = 0.05
MAX_AREAS = 30
MAX_PAIRS = 40
BARS_PER_AREA = 6
SLICES = 6
# Maps of plain values shown, in this order; label maps are shown all.
VALUE_MAPS = ("r2", "r2_normalized")
HEADINGS = {
    "roi": "Area",
    "n_voxels": "Voxels",
    "between_distance": "Distance between voxels",
    "noise_distance": "Distance expected from noise",
    "n_clusters": "Clusters",
    "cluster_stability": "Cluster stability",
    "reproducible_q": "q that voxels differ",
    "patches": "Likeness of neighbours",
    "structure_q": "q of patches",
    "halves_p": "p of patches in halves",
    "is_structured": "Structured",
}


def build(run: reading.Run) -> page.Section:
    """Builds the section on areas."""
    anchor, title, name = "areas", "Areas", "roi/selectivity.tsv"
    table = run.table(name, ("roi", "enrichment"))
    structure = run.table("roi/structure.tsv", ("roi",))
    has_structure = structure is not None and len(structure)
    if (table is None or table.empty) and not has_structure:
        return page.Section(anchor, title, missing=run.why_missing("roi", name))
    has_preferences = table is not None and not table.empty
    content = {
        "heat": _heat(run, table) if has_preferences else None,
        "preferred": _preferred(run, table) if has_preferences else None,
        "structure": _structure(structure) if has_structure else None,
        "contrasts": _contrasts(run.table("roi/contrasts.tsv", ("roi", "other", "word", "log_odds", "q"))),
    }
    return page.Section(anchor, title, content)


def volume_maps(run: reading.Run) -> page.Section:
    """Builds the section with slices of the NIfTI maps."""
    anchor, title = "maps", "Maps"
    folder = run.directory / "maps"
    paths = {path.name.removesuffix(".nii.gz"): path for path in sorted(folder.glob("*.nii.gz"))}
    if not paths:
        return page.Section(anchor, title, missing=f"{run.why_missing('roi', 'maps')} Data without geometry have none.")
    figures = []
    for name in [n for n in VALUE_MAPS if n in paths]:
        figures.append(_value_map(name, paths[name]))
    for name, path in paths.items():
        legend = maps.read_legend(path)
        if legend:
            figures.append(_label_map(name, path, legend))
    return page.Section(anchor, title, {"figures": figures, "files": [f"maps/{p.name}" for p in paths.values()]})


def _preferred(run: reading.Run, table: pd.DataFrame) -> dict[str, Any]:
    column = next((c for c in ("category", "word", "label") if c in table.columns), "category")
    reading.checked(table, run.directory / "roi/selectivity.tsv", (column,))
    cards, rows = [], []
    for area, part in list(table.groupby("roi", sort=True))[:MAX_AREAS]:
        ordered = part.sort_values("enrichment", ascending=False)
        passing = ordered[_is_preferred(ordered)]
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
        "enrichment of a stated size, a map that changes at the borders of areas, and enough voxels with words."
    )
    headings = ("Area", "Preferred", "Enrichment", "Interval", "q")
    return {"table": page.Table(caption, headings, rows), "cards": cards, "column": column, "count": BARS_PER_AREA}


def _is_preferred(table: pd.DataFrame) -> pd.Series:
    """Which rows are the preference of their area; by q alone in tables that do not say so."""
    if "preferred" in table:
        return table["preferred"].astype(str).str.lower() == "true"
    passing = (table["enrichment"] > 0) & (table["q"] < MAX_Q if "q" in table else True)
    return passing & (table["enrichment"] == table["enrichment"].where(passing).groupby(table["roi"]).transform("max"))


def _heat(run: reading.Run, table: pd.DataFrame) -> page.Picture:
    """Draws the enrichment of every category in every area, with marks."""
    column = next((c for c in ("category", "word", "label") if c in table.columns), "category")
    reading.checked(table, run.directory / "roi/selectivity.tsv", (column,))
    areas = sorted(table["roi"].astype(str).unique())[:MAX_AREAS]
    categories = list(dict.fromkeys(table[column].astype(str)))[:MAX_AREAS]
    values = np.full((len(areas), len(categories)), np.nan)
    fig, ax = canvas.figure(height=float(np.clip(0.9 + 0.28 * len(areas), 2.2, 9)))
    preferred, n_marked = _is_preferred(table), 0
    for row, marked in zip(table.to_dict("records"), preferred, strict=True):
        if row["roi"] not in areas or str(row[column]) not in categories:
            continue
        place = areas.index(row["roi"]), categories.index(str(row[column]))
        values[place] = row["enrichment"]
        passes = pd.notna(row.get("q", np.nan)) and row["q"] <= MAX_Q and row["enrichment"] > 0
        if marked or passes:
            n_marked += marked
            dark = abs(values[place]) > 0.6 * table["enrichment"].abs().max()
            text = {"ha": "center", "va": "center", "fontsize": 11, "color": "white" if dark else canvas.INK}
            ax.text(place[1], place[0], "★" if marked else "·", **text)
    limit = float(np.nanmax(np.abs(values))) or 1.0
    image = ax.imshow(values, cmap=canvas.color_map("PuOr_r"), vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(
        range(len(categories)), [canvas.plain(name, limit=14) for name in categories], rotation=40, ha="right"
    )
    ax.set_yticks(range(len(areas)), [canvas.plain(name, limit=18) for name in areas])
    ax.grid(visible=False)
    fig.colorbar(image, ax=ax, fraction=0.05, pad=0.02).ax.tick_params(labelsize=10)
    caption = (
        f"Enrichment of each {column} in {page.count(len(areas), 'area')}. Star: preferred. Dot: q at most {MAX_Q} "
        "but not preferred, since another is larger or a threshold is missed. An area with few voxels with words has "
        "no q."
    )
    alt = f"Heat map of enrichment, {len(areas)} areas by {len(categories)}; {n_marked} preferences."
    return canvas.picture(fig, alt=alt, caption=caption)


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
    interval = f"{best['low']:.2f} to {best['high']:.2f}" if {"low", "high"} <= set(best.index) else "not known"
    return (best[column], page.number(best["enrichment"]), interval, page.p_value(best.get("q")))


def _bar(row: dict[str, Any], column: str) -> page.Bar:
    known = pd.notna(row.get("low", np.nan)) and pd.notna(row.get("high", np.nan))
    q = f", q {page.p_value(row['q'])}" if "q" in row else ""
    note = f"{row['enrichment']:.2f}{q}"
    return page.Bar(
        str(row[column]), row["enrichment"], row["low"] if known else None, row["high"] if known else None, note
    )


def _structure(structure: pd.DataFrame) -> page.Table:
    columns = [name for name in HEADINGS if name in structure.columns]
    rows = [[_cell(name, row[name]) for name in columns] for row in structure.to_dict("records")]
    caption = (
        f"All {page.count(len(rows), 'area')} of roi/structure.tsv. An area is structured where its voxels differ from "
        "each other in both halves of the images alike, and where neighbours are more alike than other voxels of the "
        "area. One cluster: no number of clusters found in one half predicts the other half."
    )
    return page.Table(caption, [HEADINGS[name] for name in columns], rows)


def _cell(name: str, value: Any) -> str:
    if name == "is_structured":
        return "yes" if str(value).lower() == "true" else "no"
    if name.endswith(("_p", "_q")):
        return page.p_value(value)
    return page.number(value) if isinstance(value, int | float) else str(value)


def _value_map(name: str, path: Path) -> dict[str, Any]:
    volume, _ = maps.read_map(path)
    known = volume[np.isfinite(volume)]
    high = float(np.quantile(known, 0.99)) if len(known) else 1.0
    high = high if high > 0 else 1.0
    fig, places, image = _slices(volume, canvas.color_map("cividis"), 0.0, high)
    bar = fig.colorbar(image, ax=fig.axes, orientation="horizontal", fraction=0.06, pad=0.03, aspect=40)
    bar.ax.tick_params(labelsize=10)
    caption = (
        f"{name} in slices {_listed(places)} along the third axis; the first axis runs to the right, the second "
        "upward. "
        f"{page.count(len(known), 'voxel')} with a value; white: none. Colors end at 0 and at the 99% quantile, "
        f"{high:.2g}."
    )
    middle = f"median {np.median(known):.2g}" if len(known) else "no values"
    return {
        "picture": canvas.picture(fig, alt=f"Slices of the volume map of {name}; {middle}.", caption=caption),
        "chips": [],
    }


def _label_map(name: str, path: Path, legend: dict[int, str]) -> dict[str, Any]:
    volume, _ = maps.read_map(path)
    codes, counts = np.unique(volume[np.isfinite(volume)].astype(int), return_counts=True)
    ranked = [int(code) for code in codes[np.argsort(-counts, kind="stable")] if code > 0]
    shown = ranked[: len(canvas.CATEGORIES)]
    colors = {code: canvas.CATEGORIES[place] for place, code in enumerate(shown)}
    drawn = np.full(volume.shape, np.nan, np.float32)
    for place, code in enumerate(shown):
        drawn[volume == code] = place
    drawn[np.isfinite(volume) & np.isnan(drawn)] = len(canvas.CATEGORIES)
    listed = _optional.require("matplotlib.colors", extra="report", why=canvas.WHY)
    palette = listed.ListedColormap([*canvas.CATEGORIES, "#b3b3b3"]).with_extremes(bad="white")
    fig, places, _ = _slices(drawn, palette, -0.5, len(canvas.CATEGORIES) + 0.5)
    number = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    chips = [(colors[code], legend.get(code, f"label {code}"), page.count(number[code], "voxel")) for code in shown]
    rest = sum(n for code, n in number.items() if code not in shown)
    if rest:
        chips.append(("#b3b3b3", "none or other", page.count(rest, "voxel")))
    title = name.replace("_", " ")
    caption = (
        f"{title[:1].upper()}{title[1:]} in slices {_listed(places)} along the third axis. "
        f"{page.count(int(counts.sum()), 'voxel')} in the map; the {len(shown)} most frequent labels have a color."
    )
    top = ", ".join(f"{text} {n}" for _, text, n in chips[:3])
    return {
        "picture": canvas.picture(fig, alt=f"Slices of the map of {title}: {top}.", caption=caption),
        "chips": chips,
    }


def _slices(volume: np.ndarray, colors: Any, low: float, high: float) -> tuple[Any, list[int], Any]:
    """Draws slices evenly spaced over those that hold voxels, cut to the voxels' bounding box."""
    inside = np.isfinite(volume)
    held = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not len(held[2]):
        held = [np.arange(n) for n in volume.shape]
    places = sorted(
        {int(p) for p in held[2][np.linspace(0, len(held[2]) - 1, min(SLICES, len(held[2]))).round().astype(int)]}
    )
    box = volume[held[0][0] : held[0][-1] + 1, held[1][0] : held[1][-1] + 1]
    columns = min(3, len(places))
    rows = -(-len(places) // columns)
    figures = _optional.require("matplotlib.figure", extra="report", why=canvas.WHY)
    height = 5.4 / columns * box.shape[1] / box.shape[0] * rows + 0.25 * rows + 0.4
    fig = figures.Figure(figsize=(5.4, float(np.clip(height, 2, 9))), dpi=180, layout="constrained", facecolor="white")
    image = None
    for number, place in enumerate(places, start=1):
        ax = fig.add_subplot(rows, columns, number)
        image = ax.imshow(box[:, :, place].T, origin="lower", cmap=colors, vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(f"k = {place}", fontsize=10, color=canvas.INK)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_color("#cccccc")
    return fig, places, image


def _listed(places: list[int]) -> str:
    return ", ".join(map(str, places))
