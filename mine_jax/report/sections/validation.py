"""Validation: do generated and edited images move the response as the words say?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mine_jax.report import canvas, figures, page, reading
from mine_jax.report.figures.edits import ACTIONS, shift_correlations

MAX_EDITS = 12
MAX_GENERATED = 6
# Cards beyond these are closed until a reader opens them.
OPEN = 3
STATISTICS = ("effect", "low", "high", "p", "q", "n_pairs")
JUDGES = {"evaluator": "Judged by", "maker": "Pictures by"}
SOURCES = {"description": "the image's words", "profile": "the profile's words"}
ACTS = {"insert": "inserting", "remove": "removing"}
SIDES = {
    "insert": "inserting {words}",
    "remove": "removing {words}",
    "no-op": "an edit that changes nothing",
    "noop": "an edit that changes nothing",
    "other things removed": "removing other things",
    "co-occurring words": "inserting what comes along with them",
    "other voxel's words": "inserting the words of another {unit}",
    "words of nearly the same meaning": "inserting words of nearly the same meaning",
    "words of the same area": "inserting words of the same area",
    "description": "an image made from the description",
    "random": "an image made from random words",
    "lowest": "an image made from the words of the least attributed tokens",
    "original image": "the original image",
}
# What comparisons answer, in the order of the page.
QUESTIONS = (
    "Do images made from the words bring the response back?",
    "Do inserted and removed words move it?",
    "More than other words do?",
    "Where nothing should be left",
    "Beside these",
)
EDITS = "validation/edits.tsv"
EDIT_COLUMNS = ("voxel_id", "image_id", "action", "before", "after")
VERBS = {"insert": "inserted", "remove": "removed"}
# What makes two edits the same one, whoever made them.
EDIT = ["voxel_id", "image_id", "action", "words"]
CONDITIONS = ("description", "random", "lowest")
# Larger pictures on disk are refused before they are unpacked.
MAX_PIXELS = 50_000_000


def build(run: reading.Run) -> page.Section:
    """Builds the section on generated and edited images."""
    anchor, title = "validation", "Validation: generated and edited images"
    summary = run.table("validation/summary.tsv", ("effect",))
    edits = run.table(EDITS, EDIT_COLUMNS)
    generation = run.table("validation/generation.tsv", ("voxel_id", "image_id", "condition", "predicted"))
    present = [table for table in (summary, edits, generation) if table is not None and len(table)]
    if not present:
        return page.Section(anchor, title, missing=why_missing(run))
    files = _files(run.directory / "validation" / "images")
    content = {
        "voxels": _voxels(run),
        "summary": None if summary is None or summary.empty else _summary(run, summary),
        "statuses": list(filter(None, (_statuses("edit", edits), _statuses("generated image", generation)))),
        "open": OPEN,
        "edits": _edits(run, edits, files),
        "shifts": [p for p in (_shifts(run, edits), _true_shifts(run, edits)) if p is not None],
        "same": _same_prompts(generation),
        "generated": _generated(run, generation, files),
        "evaluators": _evaluators(edits, generation, summary),
    }
    return page.Section(anchor, title, content)


def why_missing(run: reading.Run) -> str:
    """Says in one sentence why there is no validation.

    Args:
        run: opened run.
    """
    generator, editor = run.setting("validation", "generator"), run.setting("validation", "editor")
    if generator == "none" and editor == "none":
        return "Nothing was generated or edited in this run: neither a generator nor an editor is configured."
    return run.why_missing("validation", "validation/summary.tsv")


def _summary(run: reading.Run, summary: pd.DataFrame) -> dict[str, Any]:
    bars: dict[str, list[page.Bar]] = {question: [] for question in QUESTIONS}
    rows = []
    # the table has all; the picture has the configured models under the encoders that wrote the words
    first = {name: summary[name].iloc[0] for name in JUDGES if name in summary}
    for row in summary.to_dict("records"):
        label = comparison(row, run.unit)
        known = {key: float(row[key]) for key in STATISTICS if key in row and pd.notna(row[key])}
        if "effect" in known and all(row[name] == value for name, value in first.items()):
            note = page.decimal(known["effect"]) + (f", q {page.p_value(known['q'])}" if "q" in known else "")
            bar = page.Bar(label, known["effect"], known.get("low"), known.get("high"), note)
            bars[_question(row)].append(bar)
        interval = page.interval(known.get("low"), known.get("high"))
        n_pairs = page.count(int(known["n_pairs"])) if "n_pairs" in known else "not known"
        effect, p, q = page.decimal(known.get("effect")), page.p_value(known.get("p")), page.p_value(known.get("q"))
        rows.append((label, *(str(row[name]) for name in first), effect, interval, p, q, n_pairs))
    caption = (
        f"All {page.count(len(rows), 'comparison')} of validation/summary.tsv, over all their pairs with a usable "
        f"image. Effects are differences of predicted responses ({run.scale}), or correlations where the row says so."
    )
    heads = ("Comparison", *(JUDGES[name] for name in first), "Effect", "Interval", "p", "q", "Pairs")
    of = ", ".join(str(value) for value in first.values())
    # all on one scale
    low, high = page.Bars("", [bar for listed in bars.values() for bar in listed]).span()
    pictures = [
        (question, page.Bars(f"{question} Effects with their intervals{of and f': {of}'}", listed, low, high))
        for question, listed in bars.items()
        if listed
    ]
    return {"table": page.Table(caption, heads, rows), "bars": pictures, "of": of}


def _question(row: dict[str, Any]) -> str:
    """Which of the questions a row of summary.tsv answers."""
    (images, moved, more, nothing, beside), name = QUESTIONS, str(row.get("comparison", ""))
    if row.get("voxels") == "exchanged" or name.startswith("other voxel's words minus"):
        return nothing
    first, _, second = name.partition(" minus ")
    if first == "description":
        return images
    if "no-op" in (first, second):
        return moved
    return more if "insert" in (first, second) or "remove" in (first, second) else beside


def comparison(row: dict[str, Any], unit: page.Unit) -> str:
    """Writes what a row of summary.tsv compares, in words.

    Args:
        row: `comparison`, and where they are known `source` of the words and `voxels`.
        unit: what one column of the responses is called.

    Returns:
        A label such as "Inserting the profile's words, against an edit that changes nothing".
    """
    name = str(row.get("comparison", "comparison"))
    words = SOURCES.get(str(row.get("source", "")), "the words")
    verb, _, compared = name.rpartition(": ")
    sides = compared.split(" minus ")
    if len(sides) == 2 and verb in ACTS:
        text = f"{ACTS[verb]} {SOURCES.get(sides[0], sides[0])}, against {SOURCES.get(sides[1], sides[1])}"
    elif len(sides) == 2:
        text = ", against ".join(SIDES.get(side, side).format(words=words, unit=unit) for side in sides)
    else:
        text = name
    control = f", words exchanged between {unit.many} (control)" if row.get("voxels") == "exchanged" else ""
    return page.capital(text) + control


def _voxels(run: reading.Run) -> page.Table | None:
    """How many single voxels their words move, beyond no-ops and hard distractors."""
    table = run.table("validation/voxels.tsv", ("voxel_id", "n_pairs", "effect", "p", "q", "causal"))
    if table is None or table.empty:
        return None
    passed = reading.is_true(table["causal"])
    rows = []
    for text, part in (
        ("moved by their words", table[passed]),
        ("not moved more than by hard distractors", table[~passed]),
    ):
        effects = pd.to_numeric(part["effect"], errors="coerce").dropna()
        middle = page.decimal(effects.median()) if len(effects) else "not known"
        rows.append((text, page.count(len(part)), page.share(len(part) / len(table)), middle))
    judge = f" ({table['evaluator'].iloc[0]})" if "evaluator" in table else ""
    caption = (
        f"All {run.unit.count(len(table))} of validation/voxels.tsv, drawn at random from the explained ones, "
        f"areas taking turns, each tested alone by the most independent evaluator{judge}. Hard distractors are words "
        "of the same area, of nearly the same meaning, and of things that come along in images."
    )
    return page.Table(caption, (page.capital(run.unit.many), "Number", "Share", "Median effect"), rows)


def _statuses(noun: str, table: pd.DataFrame | None) -> str:
    if table is None or table.empty or "status" not in table:
        return ""
    names = table["status"].str.replace("_", " ").replace("", "not recorded")
    counts = ", ".join(f"{page.count(n)} {status}" for status, n in names.value_counts().items())
    return f"{page.capital(page.count(len(table), noun))} by status: {counts}."


def _evaluators(*tables: pd.DataFrame | None) -> list[str]:
    names = [
        set(table["evaluator"].dropna().astype(str)) for table in tables if table is not None and "evaluator" in table
    ]
    return sorted(set().union(*names))


def _edits(run: reading.Run, edits: pd.DataFrame | None, files: dict[Any, Path]) -> dict[str, Any] | None:
    if edits is None or edits.empty:
        return None
    chosen, exact = _chosen(edits, files, MAX_EDITS)
    photos = run.photos(chosen["image_id"].tolist())
    others = {tuple(row[name] for name in EDIT): row for row in exact.to_dict("records")}
    cards = [_card(row, photos, files, others) for row in chosen.to_dict("records")]
    rule = (
        f"{page.count(len(cards), 'edit')} of {page.count(len(edits))}: status ok, picture stored, the first of each "
        f"{run.unit} and action in the order of edits.tsv; of these, evenly spaced from the strongest effect on the "
        "predicted response to the weakest, insertions before removals."
    )
    return {"cards": cards, "rule": rule} if cards else None


def _chosen(edits: pd.DataFrame, files: dict[Any, Path], limit: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The edits that are shown, and all exact ones."""
    usable, exact = _first(edits, files)
    return _spread(usable, limit), exact


def _first(edits: pd.DataFrame, files: dict[Any, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first insertion and removal of each voxel by the configured model, and all exact edits."""
    stored = _stored(edits, "edits", files)
    stored = stored[stored["action"].isin(list(VERBS)) & (stored["source"] != "bystanders")]
    stored = stored.drop_duplicates([*EDIT, "maker"])
    usable, exact = (part.drop_duplicates(EDIT[:3]) for part in _by_maker(stored))
    return usable.drop_duplicates(["voxel_id", "action"]), exact


def edits_of_voxels(run: reading.Run, *, limit: int) -> list[dict[str, Any]]:
    """Reads an insertion and a removal of each voxel that was tested so.

    Args:
        run: opened run.
        limit: largest number of edits.

    Returns:
        voxel_id, words, what was done, the photos `old` and `new` [height, width, 3] uint8, predicted responses
        `before` and `after`, and the evaluator that predicts them; none without stored pictures or a reader of photos.
    """
    edits = run.table(EDITS, EDIT_COLUMNS)
    if edits is None or edits.empty or run.read_images is None:
        return []
    files = _files(run.directory / "validation" / "images")
    rows = _first(edits, files)[0].head(limit).to_dict("records")
    photos, listed = run.photos([row["image_id"] for row in rows]), []
    for row in rows:
        told = {name: row[name] for name in ("voxel_id", "words", "before", "after")}
        told |= {"old": photos[row["image_id"]], "new": _read(_file_of(row, "edits", files))}
        listed.append({**told, "what": VERBS[row["action"]], "evaluator": str(row.get("evaluator", ""))})
    return [told for told in listed if told["new"] is not None and np.isfinite([told["before"], told["after"]]).all()]


def edit_pairs(run: reading.Run, *, limit: int) -> list[figures.EditPair] | str:
    """Chooses edits to show: evenly spaced from the strongest effect to the weakest.

    Args:
        run: opened run, with a reader of its images.
        limit: largest number of edits.

    Returns:
        The edits; a sentence that says why where there are none.
    """
    edits = run.table(EDITS, EDIT_COLUMNS)
    if edits is None or edits.empty:
        return why_missing(run)
    files = _files(run.directory / "validation" / "images")
    chosen, _ = _chosen(edits, files, limit)
    photos, pairs = run.photos(chosen["image_id"].tolist()), []
    for row in chosen.to_dict("records"):
        before, after = photos.get(row["image_id"]), _read(_file_of(row, "edits", files))
        if before is not None and after is not None:
            title = f"{run.unit} {row['voxel_id']}\n{row['words']} {VERBS[row['action']]}"
            pairs.append(figures.EditPair(title, before, after, row["after"] - row["before"]))
    return pairs or "No edit with the status ok has both its picture and its photo."


def usable_edits(edits: pd.DataFrame) -> pd.DataFrame:
    """Returns the edits of the first evaluator and the first maker whose shift is known.

    Args:
        edits: rows of validation/edits.tsv.
    """
    known = edits[edits["shift"].notna()]
    for name in ("evaluator", "maker"):
        if name in known and len(known):
            known = known[known[name] == known[name].iloc[0]]
    return known


def with_truth(edits: pd.DataFrame) -> pd.DataFrame:
    """Returns the insertions and removals whose true shift is known, by the first evaluator.

    Args:
        edits: rows of validation/edits.tsv.

    Returns:
        The rows, with `maker`; none where true shifts do not vary.
    """
    if "true_shift" not in edits:
        return edits.head(0)
    usable = edits[edits["action"].isin(list(VERBS)) & edits["true_shift"].notna() & edits["shift"].notna()]
    usable = usable[usable["evaluator"] == usable["evaluator"].iloc[0]] if len(usable) else usable
    if len(usable) < 3 or usable["true_shift"].std() == 0:
        return usable.head(0)
    return usable.assign(maker=usable["maker"] if "maker" in usable else "edits")


def _card(row: dict[str, Any], photos: Any, files: dict[Any, Path], others: dict[Any, Any]) -> dict[str, Any]:
    """One edit: the image before and after, the exact edit where it is known, and the shifts."""
    words, verb = row["words"], VERBS[row["action"]]
    card = {"voxel_id": row["voxel_id"], "what": verb, "words": words, "before": row["before"], "after": row["after"]}
    card["truth"] = float(row.get("true_shift", np.nan))
    card["old"] = _shown(photos.get(row["image_id"]), f"Image {row['image_id']} before the edit.")
    card["new"] = _shown(_read(_file_of(row, "edits", files)), f"The same image with {words} {verb}.")
    other = others.get(tuple(row[name] for name in EDIT))
    card["exact"] = (
        None if other is None else _shown(_read(_file_of(other, "edits", files)), f"The exact edit: {words} {verb}.")
    )
    card["exact_after"] = np.nan if other is None else other["after"]
    return card


def _by_maker(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the configured model, and of the exact one beside it, which comes last."""
    makers = table["maker"].unique().tolist() or [""]
    return table[table["maker"] == makers[0]], table[(table["maker"] == makers[-1]) & (len(makers) > 1)]


def _spread(table: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Takes rows evenly spaced over the effect of each action, strongest first."""
    effect = (table["after"] - table["before"]) * np.where(table["action"] == "remove", -1, 1)
    ranked = table.assign(effect=effect).sort_values("effect", ascending=False, kind="stable")
    parts = [ranked[ranked["action"] == action] for action in VERBS]
    parts = [part for part in parts if len(part)]
    if not parts:
        return table
    each = max(1, limit // len(parts))
    rows = [np.unique(np.linspace(0, len(part) - 1, min(each, len(part))).round().astype(int)) for part in parts]
    return pd.concat([part.iloc[places] for part, places in zip(parts, rows, strict=True)])


def _shifts(run: reading.Run, edits: pd.DataFrame | None) -> page.Picture | None:
    """How far each kind of edit shifts the predicted response."""
    usable = usable_edits(edits) if edits is not None and "shift" in edits else pd.DataFrame()
    if usable.empty:
        return None
    middles = [
        f"{name}: median {shifts.median():+.2f}"
        for action, name in ACTIONS.items()
        if len(shifts := usable.loc[usable["action"] == action, "shift"])
    ]
    judge = f" ({usable['evaluator'].iloc[0]})" if "evaluator" in usable else ""
    caption = (
        f"Shift of the predicted response by kind of edit, {page.count(len(usable), 'edit')} of the first maker of "
        f"images, first evaluator{judge}. Dots: edits; box: quartiles; orange line: median."
    )
    fig = figures.edit_shifts(usable, scale=run.scale)
    return canvas.picture(fig, alt=f"Box plots of shifts. {'; '.join(middles)}.", caption=caption)


def _true_shifts(run: reading.Run, edits: pd.DataFrame | None) -> page.Picture | None:
    """Predicted against true shifts of the edits, where the truth is known."""
    usable = with_truth(edits) if edits is not None else pd.DataFrame()
    if usable.empty:
        return None
    labels = [
        f"{name}: r = {page.decimal(r)} ({page.count(n, 'edit')})"
        for name, (r, n) in shift_correlations(usable).items()
    ]
    fig = figures.true_shifts(usable, unit=run.unit.one, scale=run.scale)
    caption = (
        f"Predicted shift against what the exact edit does to the simulated {run.unit}, "
        f"{page.count(len(usable), 'edit')}: insertions and removals with a usable image, "
        f"first evaluator ({usable['evaluator'].iloc[0]})."
    )
    return canvas.picture(
        fig, alt=f"Scatter plot of predicted against true shifts. {'; '.join(labels)}.", caption=caption
    )


def _generated(run: reading.Run, generation: pd.DataFrame | None, files: dict[Any, Path]) -> dict[str, Any] | None:
    if generation is None or generation.empty:
        return None
    usable, _ = _by_maker(_stored(generation, "generation", files))
    usable = usable.drop_duplicates(["voxel_id", "image_id", "condition"])
    pairs = usable.drop_duplicates("voxel_id")[["voxel_id", "image_id"]].head(MAX_GENERATED)
    photos = run.photos(pairs["image_id"].tolist())
    groups = []
    for voxel, image in pairs.itertuples(index=False):
        part = usable[(usable["voxel_id"] == voxel) & (usable["image_id"] == image)]
        part = part.set_index("condition").reindex([c for c in CONDITIONS if c in set(part["condition"])])
        tiles = []
        if image in photos:
            original = part["original"].iloc[0] if "original" in part else np.nan
            tiles.append(("original", original, _shown(photos[image], f"Original image {image}."), ""))
        for condition, row in part.iterrows():
            new = _read(_file_of(row.to_dict(), "generation", files))
            shown = _shown(new, f"Image generated from the {condition} words of image {image}.")
            tiles.append((condition, row["predicted"], shown, row.get("prompt", "")))
        groups.append({"voxel_id": voxel, "image_id": image, "tiles": tiles})
    rule = (
        f"{run.unit.count(len(groups))} of {page.count(generation['voxel_id'].nunique())}: the first image of "
        f"each {run.unit} in the order of generation.tsv whose pictures are stored, first seed of each condition, "
        "whatever their effect."
    )
    return {"groups": groups, "rule": rule} if groups else None


def _same_prompts(generation: pd.DataFrame | None) -> str:
    """Says how many controls were made from the very words they are compared with."""
    if generation is None or generation.empty or "prompt" not in generation:
        return ""
    keys = [name for name in ("voxel_id", "image_id", "maker") if name in generation]
    prompts = generation.drop_duplicates([*keys, "condition"]).pivot(index=keys, columns="condition", values="prompt")
    if "description" not in prompts:
        return ""
    told = []
    for name in [condition for condition in CONDITIONS[1:] if condition in prompts]:
        pairs = prompts[["description", name]].dropna()
        same = int((pairs["description"] == pairs[name]).sum())
        told += [f"{page.count(same)} of {page.count(len(pairs))} of the {name} words"] if same else []
    if not told:
        return ""
    return f"Controls with the very prompt of the description, which are left out of the tests: {', '.join(told)}."


def _stored(table: pd.DataFrame, name: str, files: dict[Any, Path]) -> pd.DataFrame:
    """Returns the rows with the status ok whose picture is stored, with their number as `row`."""
    usable = table.assign(
        row=np.arange(len(table)), **{name: "" for name in ("maker", "words", "source") if name not in table}
    )
    if "status" in usable:
        usable = usable[usable["status"] == "ok"]
    return usable.loc[np.array([_file_of(row, name, files) is not None for row in usable.to_dict("records")], bool)]


def _files(folder: Path) -> dict[Any, Path]:
    """Finds stored pictures by file name, and by table and row number where the name holds them."""
    pictures: dict[Any, Path] = {}
    for path in sorted(folder.glob("*.png")) + sorted(folder.glob("*/*.png")):
        pictures[path.relative_to(folder).as_posix()] = path
        match = re.fullmatch(r"(generation|edits?)[-_/]0*(\d+)", path.relative_to(folder).with_suffix("").as_posix())
        if match:
            pictures["generation" if match[1] == "generation" else "edits", int(match[2])] = path
    return pictures


def _file_of(row: dict[str, Any], table: str, files: dict[Any, Path]) -> Path | None:
    named = str(row.get("image", row.get("file", ""))).removeprefix("validation/").removeprefix("images/")
    return files.get(named) or files.get((table, row["row"]))


def _shown(photo: np.ndarray | None, alt: str) -> page.Picture | None:
    return None if photo is None else canvas.pixels(photo, alt=alt)


def _read(path: Path | None) -> np.ndarray | None:
    if path is None:
        return None
    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB")) if image.width * image.height <= MAX_PIXELS else None
