"""Whether the critical tokens really drive the prediction: curves of activation patching."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mine_jax.report import canvas, figures, page, reading
from mine_jax.report.figures.faithfulness import ORDERS

KINDS = {
    "necessity": ("Necessity: the first k tokens replaced by the baseline", "falls fastest"),
    "sufficiency": ("Sufficiency: only the first k tokens kept", "rises fastest"),
}


def build(run: reading.Run) -> page.Section:
    """Builds the section on necessity, sufficiency and completeness."""
    anchor, title = "faithfulness", "Do the highlighted parts drive the prediction?"
    curves = run.table("attribution/curves.tsv", ("kind", "order", "k", "relative_performance"))
    if curves is None or curves.empty:
        return page.Section(anchor, title, missing=run.why_missing("attribution", "attribution/curves.tsv"))
    pictures = [
        _curves(run.unit, curves[curves["kind"] == kind], kind) for kind in KINDS if (curves["kind"] == kind).any()
    ]
    return page.Section(anchor, title, {"pictures": pictures, "table": _pairs(run)})


def _curves(unit: page.Unit, curves: pd.DataFrame, kind: str) -> page.Picture:
    ends = []
    for order, (text, *_) in ORDERS.items():
        part = curves[curves["order"] == order].sort_values("k")
        if len(part):
            half = part.iloc[len(part) // 2]
            ends.append(f"{text}: {page.decimal(half['relative_performance'])} at k = {half['k']:g}")
    title, expected = KINDS[kind]
    n = curves["n_voxels"].dropna().unique() if "n_voxels" in curves else np.array([])
    covers = f"{unit.count(int(n.max())) if len(n) else f'All {unit.many}'} with attributed images"
    caption = (
        f"{title}. {covers}; mean with its interval (band). 1 is the performance of the whole image, 0 that of the "
        f"baseline. If attribution is right, the solid line {expected}."
    )
    fig = figures.faithfulness_curves(curves, kinds=(kind,))
    return canvas.picture(fig, alt=f"{title}. {'; '.join(ends)}.", caption=caption)


def _pairs(run: reading.Run) -> page.Table | None:
    pairs = run.table("attribution/pairs.tsv", ("voxel_id", "image_id"))
    if pairs is None or pairs.empty:
        return None
    rows = []
    # of each measure: text, and how its values are written
    names = {
        "faithfulness": (
            "Faithfulness: area between the curves of highest first and random (0 none better, 1 best)",
            page.decimal,
        ),
        "k_adaptive": (
            "Tokens needed to reach the set level of sufficiency (few: localised, many: distributed)",
            page.count,
        ),
        "completeness_gap": ("Completeness gap of integrated gradients (absolute; 0 is exact)", page.size),
    }
    for name, (text, written) in names.items():
        if name not in pairs:
            continue
        values = pd.to_numeric(pairs[name], errors="coerce").dropna().to_numpy(float)
        values = np.abs(values) if name == "completeness_gap" else values
        values = values[values >= 0] if name == "k_adaptive" else values
        if len(values):
            cells = np.quantile(values, (0.05, 0.5, 0.95))
            rows.append((text, page.count(len(values)), *(written(v) for v in cells)))
    caption = (
        f"All {page.count(len(pairs), 'pair')} of {run.unit} and image in attribution/pairs.tsv where the value is "
        f"known ({run.unit.count(pairs['voxel_id'].nunique())})."
    )
    return page.Table(caption, ("Measure", "Pairs", "5% quantile", "Median", "95% quantile"), rows) if rows else None
