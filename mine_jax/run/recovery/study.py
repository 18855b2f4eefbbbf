"""What the claims are worth: many phantoms, every run compared with its truth.

One phantom shows that something can be found; several show how often it is, and how often what is claimed
is not there. The runs differ in seed, in the model that gives the image-tokens, in the number of images and
of test images; noise ceilings are spread over the range of real recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from mine_jax import artifacts
from mine_jax.config import Config, from_dict
from mine_jax.phantom import scenes
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.report import figures
from mine_jax.run import files, graph
from mine_jax.run.demo import K
from mine_jax.run.execute import execute
from mine_jax.run.recovery.claims import claims_table
from mine_jax.run.recovery.compare import Compared, compare_run, measures
from mine_jax.run.recovery.opened import opened
from mine_jax.run.reporter import Reporter

# True noise ceilings, from hardly measurable to the best voxels of a good subject.
CEILINGS = (0.05, 0.7)
MODELS = {"phantom": "trained on tokens", "phantom-captions": "trained on captions alone"}
# How tokens are read where words were never asked of them, see phantom/training/README.md.
_READING = {"phantom-captions": {"image_tokens": "values", "denoise": ["neighbors"]}}
SUBJECT, FIGURE = "subj01", "study"


@dataclass(frozen=True)
class Point:
    """One run: the model of its image-tokens, seed, images, and those of them that test."""

    model: str
    seed: int
    n_images: int
    n_test: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.model}-{self.n_images}-{self.n_test}-seed{self.seed}"


def points(
    *, seeds: int = 5, models: Sequence[str] = tuple(MODELS), images: Sequence[int] = (500, 1000, 2000)
) -> list[Point]:
    """Lists the runs of a study.

    Args:
        seeds: phantoms of every size.
        models: the largest size is run with each, the others with the first.
        images: numbers of images; a fifth of them are test images.

    Returns:
        The runs, the largest first.
    """
    sizes = sorted(set(images), reverse=True)
    listed = [Point(model, seed, sizes[0], _n_test(sizes[0])) for model in models for seed in range(seeds)]
    listed += [Point(models[0], seed, size, _n_test(size)) for size in sizes[1:] for seed in range(seeds)]
    return list(dict.fromkeys(listed))


def study(directory: str | Path, listed: Sequence[Point], *, reporter: Reporter | None = None) -> str:
    """Runs phantoms and says how often claims are right; an interrupted study goes on.

    Args:
        directory: receives one folder per phantom and per run, `study.tsv`, `study_claims.tsv`, `study_voxels`
            and the figure, `study.png` and `study.svg`.
        listed: what `points` gives.
        reporter: shows progress; nothing by default.

    Returns:
        The summary, ready to print.
    """
    directory, reporter = Path(directory), reporter or Reporter()
    found: dict[Point, Compared] = {}
    for i, point in enumerate(listed):
        reporter.say(f"{i + 1} of {len(listed)}: {point.name}")
        found[point] = _compared(directory, point, reporter)
    measured = pd.concat([_labelled(measures(one), point) for point, one in found.items()])
    shares = pd.concat([_labelled(claims_table(one.voxels, one.decoys), point) for point, one in found.items()])
    voxels = pd.concat([_labelled(one.voxels, point) for point, one in found.items()], ignore_index=True)
    summary = over_seeds(measured, value="value", by=["model", "n_images", "n_test", "metric", "target", "sign"])
    artifacts.write_table(directory / "study.tsv", summary)
    artifacts.write_table(directory / "study_claims.tsv", shares)
    artifacts.write_table(directory / "study_voxels.tsv", voxels)
    for kind in ("svg", "png"):
        figure = figures.save(figures.worth_of_claims(voxels), directory / f"{FIGURE}.{kind}")
    return f"{_text(summary)}\nfigure: {figure}"


def over_seeds(table: pd.DataFrame, *, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Averages a column over seeds.

    Args:
        table: one row per seed and group.
        value: the column.
        by: columns that make a group.

    Returns:
        One row per group: mean, low and high of the 95 % interval over seeds (Student's t), smallest, largest, seeds.
    """
    rows = []
    for _, group in table.groupby(list(by), sort=False, dropna=False):
        values = group[value].dropna().to_numpy(float)
        n = len(values)
        half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        mean = values.mean() if n else np.nan
        ends = {"low": mean - half, "high": mean + half}
        least = {"smallest": values.min() if n else np.nan, "largest": values.max() if n else np.nan}
        rows.append({**group.iloc[0][list(by)], "mean": mean, **ends, **least, "seeds": n})
    return pd.DataFrame(rows)


def configuration(root: Path, point: Point) -> Config:
    """Returns the configuration of one run."""
    features = {"kind": "clip", "model": point.model, **_READING.get(point.model, {})}
    return from_dict(
        {
            "data": {"kind": "phantom", "root": str(root), "subject": SUBJECT},
            "features": features,
            "attribution": {"k": K},
            "validation": {"generator": "none", "editor": "none"},
            "roi": {"categories": {name: list(concepts) for name, concepts in scenes.CATEGORIES.items()}},
            "run": {"seed": point.seed},
        }
    )


def _compared(directory: Path, point: Point, reporter: Reporter) -> Compared:
    root = directory / "data" / f"{point.n_images}-{point.n_test}-seed{point.seed}"
    with reporter.task("phantom") as progress:
        write_phantom(
            root,
            subjects=(SUBJECT,),
            n_images=point.n_images,
            n_shared=point.n_test,
            ceiling=CEILINGS,
            seed=point.seed,
            progress=progress,
        )
    out = directory / point.name
    config = configuration(root, point)
    execute(config, out, graph.STEPS, until="roi", resume=files.is_run(out), reporter=reporter)
    return compare_run(opened(out))


def _labelled(table: pd.DataFrame, point: Point) -> pd.DataFrame:
    of_point = {"model": point.model, "seed": point.seed, "n_images": point.n_images, "n_test": point.n_test}
    return table.assign(**of_point)


def _n_test(n_images: int) -> int:
    return n_images // 5


def _text(summary: pd.DataFrame) -> str:
    lines = []
    for _, group in summary.groupby(["model", "n_images", "n_test"], sort=False):
        model, n_images, n_test = (group[name].iloc[0] for name in ("model", "n_images", "n_test"))
        said = MODELS.get(model, "")
        lines.append(
            f"CLIP {said} ({model}), {n_images} images, {n_test} of them test; mean, 95 % interval over seeds:"
        )
        for row in group.to_dict("records"):
            goal = "" if pd.isna(row["target"]) else f"  target {'<=' if row['sign'] < 0 else '>='} {row['target']:g}"
            if goal:
                goal += "" if row["sign"] * row["mean"] >= row["sign"] * row["target"] else "  NOT MET"
            interval = f"{row['mean']:6.3f} [{row['low']:6.3f}, {row['high']:6.3f}]"
            lines.append(f"  {row['metric']:<60} {interval}  seeds={row['seeds']}{goal}")
    return "\n".join(lines)
