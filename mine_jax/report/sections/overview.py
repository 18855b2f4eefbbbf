"""What was run, and which voxels the result speaks about."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from mine_jax.report import page, reading
from mine_jax.types import CLAIMS, reaches

# With more distinct reasons than this, numbers inside them are left out to group them.
MAX_REASONS = 12


def build(run: reading.Run) -> page.Section:
    """Builds the section "what was run": key numbers, configuration, versions, times."""
    stages = [stage for stage in run.stages() if stage.name != "report"]
    times = [
        page.Bar(one.name, one.seconds, note=page.duration(one.seconds, 1)) for one in stages if one.seconds is not None
    ]
    return page.Section(
        "overview",
        "What was run",
        {
            "facts": _facts(run),
            "images": _images(run),
            "settings": [_settings(name, values) for name, values in run.configuration.items()],
            "versions": _pairs("Versions and devices", _versions(run)),
            "times": page.Bars("Seconds of each stage", times) if times else None,
            "total": page.duration(sum(bar.value for bar in times), 1),
            "states": [(one.name, one.state) for one in stages if one.seconds is None],
        },
    )


def abstentions(run: reading.Run) -> page.Section:
    """Builds the section that counts how far voxels and decoys climb the ladder of claims, and why not further."""
    anchor, title = "explained", f"What may be claimed of the {run.unit.many}"
    voxels = run.voxels
    if voxels is None or voxels.empty:
        return page.Section(anchor, title, missing=run.why_missing("encoder", "voxels.tsv"))
    rest = voxels[~voxels["explained"]]
    reasons = _grouped(rest["reason"].where(rest["reason"] != "", rest["status"].map(_status_reason)))
    rows = [("explained", page.count(len(voxels) - len(rest)), page.share(1 - len(rest) / len(voxels)))]
    rows += [(f"not explained: {r}", page.count(n), page.share(n / len(voxels))) for r, n in reasons.items()]
    rows.append(("all", page.count(len(voxels)), page.share(1.0)))
    caption = (
        f"All {run.unit.count(len(voxels))} of voxels.tsv, each counted once, by its columns explained and reason. "
        f"{_criteria(run)}"
    )
    content = {
        "ladder": _ladder(run, voxels),
        "table": page.Table(caption, ("Outcome", page.capital(run.unit.many), "Share"), rows),
        "areas": _by_area(run.unit, voxels),
    }
    return page.Section(anchor, title, content)


def _ladder(run: reading.Run, voxels: pd.DataFrame) -> page.Table | None:
    if "claim" not in voxels or voxels["claim"].isna().all():
        return None
    decoys = run.table("profile/decoys.tsv", ("claim",))
    usable = voxels[voxels["status"] == "ok"]
    rows = []
    for claim in CLAIMS[1:]:
        reached = reaches(usable["claim"].to_numpy(str), claim)
        cells = [claim, page.count(int(reached.sum())), page.share(reached.mean() if len(reached) else 0.0)]
        if decoys is not None:
            cells.append(page.share(reaches(decoys["claim"].to_numpy(str), claim).mean()))
        rows.append(cells)
    beside = "" if decoys is None else f" {page.count(len(decoys), 'decoy')} of decoys.tsv stand beside them."
    caption = f"{run.unit.count(len(usable))} with status ok that reach each claim or a higher one.{beside}"
    columns = ("Claim", page.capital(run.unit.many), "Share") + (() if decoys is None else ("Share of decoys",))
    return page.Table(caption, columns, rows)


def _facts(run: reading.Run) -> list[tuple[str, str]]:
    facts = []
    voxels = run.voxels
    if voxels is not None:
        usable = voxels.loc[(voxels["status"] == "ok"), "r2"].dropna()
        facts.append((page.count(len(voxels)), f"{run.unit.many} in the data"))
        facts.append((page.count(len(usable)), f"{run.unit.many} fitted and scored"))
        if len(usable):
            facts.append((page.decimal(usable.mean()), "mean R² of these, on held-out images"))
        meant = f"{run.unit.many} explained, in words that predict responses to new images"
        facts.append((page.count(int(voxels["explained"].sum())), meant))
    images = run.table("images.tsv", ("image_id",))
    if images is not None:
        facts.append((page.count(len(images)), "images"))
    return facts


def _images(run: reading.Run) -> page.Table | None:
    images = run.table("images.tsv", ("image_id", "split"))
    if images is None:
        return None
    rows = []
    for split in [s for s in ("train", "val", "test") if (images["split"] == s).any()]:
        part = images[images["split"] == split]
        repeats = page.count(part["n_repeats"].sum()) if "n_repeats" in part else "not known"
        rows.append((split, page.count(len(part)), repeats))
    caption = "Images of images.tsv by split, and the trials averaged in them. Encoders never see the test images."
    return page.Table(caption, ("Split", "Images", "Trials"), rows)


def _settings(name: str, values: dict[str, Any]) -> page.Table:
    shown = {key: "[redacted]" if page.SECRET_KEY.search(key) else value for key, value in values.items()}
    return _pairs(f"[{name}]", {k: v for k, v in shown.items() if v not in (None, [], {})})


def _versions(run: reading.Run) -> dict[str, Any]:
    recorded: dict[str, Any] = {}
    for key in ("package", "command", "seed", "precision", "devices", "started", "schema"):
        if run.info.get(key) is not None:
            recorded[key] = " ".join(map(str, run.info[key])) if key == "command" else run.info[key]
    versions = run.info.get("versions", {})
    known = {k: v for k, v in versions.items() if v is not None} if isinstance(versions, dict) else {}
    return {**recorded, **known}


def _pairs(caption: str, values: dict[str, Any]) -> page.Table:
    return page.Table(caption, ("Name", "Value"), [(str(k), _written(v)) for k, v in values.items()])


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_written(v)}" for k, v in value.items())
    return str(value)


def _status_reason(status: str) -> str:
    return "no reason recorded" if status in ("ok", "") else f"status {status}"


def _grouped(reasons: pd.Series) -> pd.Series:
    """Counts reasons; numbers in them are left out where they would make each one unique."""
    if reasons.nunique() > MAX_REASONS:
        reasons = reasons.map(lambda reason: re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", reason))
    return reasons.value_counts()


def _criteria(run: reading.Run) -> str:
    limits = {
        "max_q": "q of every rung at most",
        "min_share": "r of the words as a share of the encoder's at least",
        "max_rank": f"share of other {run.unit.many}' words that do as well at most",
        "min_images": "images at least",
    }
    rival = run.table("profile/voxels.tsv")
    warning = " Words were tested without a low-level rival: contrast or colour alone may explain some of them."
    warned = warning if rival is not None and "r_low_level" in rival and rival["r_low_level"].isna().all() else ""
    parts = [f"{text} {run.setting('profile', key)}" for key, text in limits.items() if run.setting("profile", key)]
    return (f"Rule: {'; '.join(parts)}." if parts else "") + warned


def _by_area(unit: page.Unit, voxels: pd.DataFrame) -> page.Table | None:
    spread = voxels.assign(area=voxels["rois"].map(reading.areas_of)).explode("area")
    if set(spread["area"]) == {reading.NO_AREA}:
        return None
    has_claims = "claim" in spread and spread["claim"].notna().any()
    rows = []
    for area, part in spread.groupby("area"):
        n = int(part["explained"].sum())
        reached = [page.count(int(reaches(part["claim"].to_numpy(str), c).sum())) for c in CLAIMS[1:] if has_claims]
        reasons = part.loc[~part["explained"] & (part["reason"] != ""), "reason"].value_counts()
        why = f"{reasons.index[0]} ({page.count(reasons.iloc[0])})" if len(reasons) else ""
        rows.append((area, page.count(len(part)), page.share(n / len(part)), *reached, why))
    caption = (
        f"The same {unit.many} by area: share explained, how many reach each claim or a higher one, and the most "
        "frequent reason of those not explained. One in several areas counts in each."
    )
    heads = ("Area", page.capital(unit.many), "Explained", *(CLAIMS[1:] if has_claims else ()), "Most frequent reason")
    return page.Table(caption, heads, rows)
