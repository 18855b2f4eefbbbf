"""How well voxels are predicted: distributions, the ceiling, and areas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mine_jax.report import canvas, figures, page, reading
from mine_jax.statistics import pearson

MAX_AREAS = 30
MIN_AREA_VOXELS = 3


def build(run: reading.Run) -> page.Section:
    """Builds the section on prediction accuracy."""
    anchor, title = "accuracy", f"How well {run.unit.many} are predicted"
    if run.voxels is None or run.voxels.empty:
        return page.Section(anchor, title, missing=run.why_missing("encoder", "voxels.tsv"))
    voxels = scored(run.voxels)
    if voxels.empty:
        return page.Section(anchor, title, missing=why_no_score(run))
    covers = f"{run.unit.count(len(voxels))} of {page.count(len(run.voxels))}: status ok, finite R²"
    pictures = [_r2(run.unit, voxels["r2"], covers)]
    normalized = voxels["r2_normalized"].dropna()
    if len(normalized):
        pictures.append(_normalized(run.unit, normalized, len(run.voxels)))
    if voxels["noise_ceiling"].notna().any():
        pictures.append(_against_ceiling(run.unit, voxels, len(run.voxels)))
    areas = _areas(run.unit, voxels)
    if areas is not None:
        pictures.append(areas)
    unknown = "" if len(normalized) else f"The noise ceiling of no {run.unit} is known, so R² is not set against it."
    return page.Section(
        anchor, title, {"table": _summary(run.unit, voxels, covers), "pictures": pictures, "unknown": unknown}
    )


def why_no_score(run: reading.Run) -> str:
    """Says in one sentence why no accuracy can be shown of a run with voxels.tsv.

    Args:
        run: opened run.
    """
    return f"No {run.unit} has the status ok and a finite R², so there is no score."


def scored(voxels: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of voxels.tsv with the status ok and a finite R2.

    Args:
        voxels: rows of voxels.tsv.
    """
    return voxels[(voxels["status"] == "ok") & np.isfinite(voxels["r2"])]


def by_area(voxels: pd.DataFrame) -> dict[str, np.ndarray]:
    """Collects R2 by area.

    Args:
        voxels: of `scored`.

    Returns:
        Area -> R2 [n] of its voxels, the largest median first; areas with a few voxels are left out, and all
        where no voxel has an area.
    """
    spread = voxels.assign(area=voxels["rois"].map(reading.areas_of)).explode("area")
    groups = {str(name): part["r2"].to_numpy(float) for name, part in spread.groupby("area")}
    large = {name: values for name, values in groups.items() if len(values) >= MIN_AREA_VOXELS}
    if set(large) <= {reading.NO_AREA}:
        return {}
    return {name: large[name] for name in sorted(large, key=lambda name: -np.median(large[name]))}


def _summary(unit: page.Unit, voxels: pd.DataFrame, covers: str) -> page.Table:
    rows = []
    for name, text in (("r2", "R²"), ("r", "Pearson r"), ("r2_normalized", "R² / ceiling")):
        values = voxels[name].dropna().to_numpy(float)
        if len(values):
            low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
            cells = (values.mean(), middle, low, high, values.min(), values.max())
            rows.append((text, page.count(len(values)), *(page.decimal(v) for v in cells)))
    n_test = voxels["n_test"].dropna().unique() if "n_test" in voxels else []
    images = f" Scored on {page.count(int(n_test[0]), 'test image')}." if len(n_test) == 1 else ""
    caption = f"{covers}.{images} R² is the coefficient of determination around the test mean and may be negative."
    columns = ("Score", page.capital(unit.many), "Mean", "Median", "5% quantile", "95% quantile", "Smallest", "Largest")
    return page.Table(caption, columns, rows)


def _r2(unit: page.Unit, r2: pd.Series, covers: str) -> page.Picture:
    values = r2.to_numpy(float)
    low, high = max(-0.5, values.min()), max(values.max(), 0.05)
    low = min(low, -0.02)
    n_below = int((values < low).sum())
    fig = figures.accuracy_distribution(values, units=page.capital(unit.many), limits=(low, high))
    alt = (
        f"Histogram of R². Mean {page.decimal(values.mean())}, median {page.decimal(np.median(values))}, "
        f"from {page.decimal(values.min())} to {page.decimal(values.max())}."
    )
    outside = f" {unit.count(n_below)} below {low:g} stand in the first bar." if n_below else ""
    return canvas.picture(fig, alt=alt, caption=f"R² of {covers}.{outside}")


def _normalized(unit: page.Unit, normalized: pd.Series, n_all: int) -> page.Picture:
    values = normalized.to_numpy(float)
    low, high = min(max(-0.5, values.min()), -0.02), min(max(1.0, values.max()), 1.5)
    n_outside = int(((values < low) | (values > high)).sum())
    fig = figures.accuracy_distribution(
        values, label="R² / noise ceiling", units=page.capital(unit.many), limits=(low, high)
    )
    outside = f" {unit.count(n_outside)} outside the axis stand in its end bars." if n_outside else ""
    caption = (
        f"R² as a share of the noise ceiling, {unit.count(len(values))} of {page.count(n_all)}: "
        f"status ok and a noise ceiling high enough to divide by.{outside}"
    )
    mean, median = page.decimal(values.mean()), page.decimal(np.median(values))
    alt = f"Histogram of R² divided by the noise ceiling. Mean {mean}, median {median}."
    return canvas.picture(fig, alt=alt, caption=caption)


def _against_ceiling(unit: page.Unit, voxels: pd.DataFrame, n_all: int) -> page.Picture:
    known = voxels[voxels["noise_ceiling"].notna()]
    x, y = known["noise_ceiling"].to_numpy(float), known["r2"].to_numpy(float)
    fig = figures.accuracy_against_ceiling(known)
    above = int((y > x).sum())
    caption = (
        f"R² against the noise ceiling, {unit.count(len(known))} of {page.count(n_all)}: status ok, ceiling "
        f"known. {unit.count(above)} above the dashed line: both axes are estimates with an error."
    )
    correlation = pearson(x, y) if len(x) > 2 else np.nan
    alt = f"Scatter plot of R² against the noise ceiling; correlation {page.decimal(correlation)}."
    return canvas.picture(fig, alt=alt, caption=caption)


def _areas(unit: page.Unit, voxels: pd.DataFrame) -> page.Picture | None:
    large = by_area(voxels)
    if not large:
        return None
    names = list(large)[:MAX_AREAS]
    fig = figures.accuracy_by_area({name: large[name] for name in names})
    n_areas = voxels["rois"].map(reading.areas_of).explode().nunique()
    left_out = n_areas - len(names)
    rest = (
        f" {page.count(left_out, 'area')} left out (fewer {unit.many}, or below the first {MAX_AREAS})."
        if left_out
        else ""
    )
    caption = (
        f"R² by area, status ok and finite R²; areas with at least {MIN_AREA_VOXELS} such {unit.many} (number in "
        f"brackets), by median. Box: quartiles; orange line: median; whiskers: 1.5 quartile ranges; dots: {unit.many}. "
        f"One in several areas counts in each.{rest}"
    )
    best, worst = names[0], names[-1]
    alt = (
        f"Box plots of R² for {len(names)} areas, from median {page.decimal(np.median(large[best]))} in {best} "
        f"to {page.decimal(np.median(large[worst]))} in {worst}."
    )
    return canvas.picture(fig, alt=alt, caption=caption)
