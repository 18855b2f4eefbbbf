"""Reads the files of a run, by the names they have in its directory.

A file that is not there gives None and a sentence that says why; a file that is there but
damaged is an error. Nothing here computes anything about voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax import artifacts
from mine_jax.errors import IntegrityError, MissingInputError
from mine_jax.report.page import Unit, squared

ReadImages = Callable[[Sequence[str]], list[np.ndarray]]
NO_AREA = "no area"
SPLITS = {"train": "training", "val": "early stopping"}


class StageState(NamedTuple):
    """What `run.json` says of one stage; seconds are None where it did not finish, `warning` "" without one."""

    name: str
    state: str
    seconds: float | None
    warning: str


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        directory: holds `run.json` and the folders of the stages.
        read_images: takes image ids, returns one uint8 [height, width, 3] array each; or None.
        truth: table of recovery scores on a phantom; may not exist.
    """

    directory: Path
    read_images: ReadImages | None
    truth: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        """What stands in `run.json`; empty without it."""
        path = self.directory / "run.json"
        value = artifacts.read_json(path) if path.is_file() else {}
        if not isinstance(value, dict):
            raise IntegrityError(f"{path} must hold one JSON object, but holds a {type(value).__name__}.")
        return value

    @cached_property
    def configuration(self) -> dict[str, dict[str, Any]]:
        """The resolved configuration by section; empty where it was not recorded."""
        config = self.info.get("configuration", self.info.get("config", {}))
        sections = config.items() if isinstance(config, dict) else ()
        return {name: values for name, values in sections if isinstance(values, dict)}

    @cached_property
    def features(self) -> dict[str, Any]:
        """What stands in `features/meta.json`; empty without it."""
        path = self.directory / "features" / "meta.json"
        meta = artifacts.read_json(path) if path.is_file() else {}
        return meta if isinstance(meta, dict) else {}

    @cached_property
    def voxels(self) -> pd.DataFrame | None:
        """Rows of `voxels.tsv`, with `explained` as booleans, numbers as floats, and reasons as pages write them."""
        table = self.table("voxels.tsv", ("voxel_id", "status", "r2"))
        if table is None:
            return None
        for name in ("r2", "r", "r2_normalized", "noise_ceiling", "ncsnr"):
            table[name] = pd.to_numeric(table[name], errors="coerce") if name in table else np.nan
        table["explained"] = is_true(table["explained"]) if "explained" in table else False
        for name in ("rois", "reason"):
            if name not in table:
                table[name] = ""
        table["reason"] = table["reason"].map(squared, na_action="ignore")
        return table

    @cached_property
    def has_areas(self) -> bool:
        """Whether any voxel is in an area."""
        return self.voxels is not None and any(areas_of(rois) != [NO_AREA] for rois in self.voxels["rois"].unique())

    def area_name(self, area: str) -> str:
        """Returns how pages call an area; where there are none, `NO_AREA` is all voxels."""
        return area if area != NO_AREA or self.has_areas else f"all {self.unit.many}"

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the token grid; None where unknown."""
        for place in (self.features, self.features.get("fields", {})):
            grid = place.get("grid") if isinstance(place, dict) else None
            if isinstance(grid, list) and len(grid) == 2 and all(isinstance(n, int) and n > 0 for n in grid):
                return grid[0], grid[1]
        return None

    def table(self, name: str, columns: Sequence[str] = ()) -> pd.DataFrame | None:
        """Reads a table, or returns None where it is absent.

        Raises:
            IntegrityError: if it cannot be parsed or lacks one of `columns`.
        """
        path = self.directory / name
        if not path.is_file() and not path.with_suffix(".parquet").is_file():
            return None
        return checked(artifacts.read_table(path), path, columns)

    def rows(self, name: str, voxel_ids: Sequence[int], columns: Sequence[str] = ()) -> pd.DataFrame | None:
        """Reads the rows of some voxels; of a Parquet table only those enter memory."""
        path = self.directory / name
        parquet = path.with_suffix(".parquet")
        if not path.is_file() and parquet.is_file():
            try:
                wanted = [("voxel_id", "in", [int(v) for v in voxel_ids])]
                table = checked(pd.read_parquet(parquet, filters=wanted), parquet, columns)
                return table.fillna({name: "" for name in ("word", "sentence") if name in table})
            except (OSError, ValueError) as error:
                raise IntegrityError(f"{parquet} cannot be read as a table: {error}.") from error
        table = self.table(name, ("voxel_id", *columns))
        return None if table is None else table[table["voxel_id"].isin(list(voxel_ids))]

    def array(self, name: str) -> np.ndarray | None:
        """Opens an array, memory-mapped, or returns None where it is absent."""
        path = self.directory / name
        return artifacts.read_array(path, mmap=True) if path.is_file() else None

    def setting(self, section: str, key: str, default: Any = None) -> Any:
        """Returns a value of the resolved configuration."""
        return self.configuration.get(section, {}).get(key, default)

    @property
    def unit(self) -> Unit:
        """What the run calls one column of its responses: a voxel, a neuron."""
        return Unit(str(self.setting("data", "unit_name") or "voxel"))

    @property
    def scale(self) -> str:
        """The unit of responses and of all that is predicted or attributed."""
        if self.setting("data", "zscore") == "none":
            return "response units"
        return "z-scored responses" if self.setting("data", "kind") == "folder" else "z-scored beta"

    def stages(self) -> list[StageState]:
        """Returns the state of each stage, in the order of `run.json`."""
        stages = self.info.get("stages", {})
        if not isinstance(stages, dict):
            return []
        states = []
        for name, value in stages.items():
            entry = value if isinstance(value, dict) else {"state": value}
            seconds = entry.get("seconds")
            seconds = seconds if isinstance(seconds, int | float) else None
            summary = entry.get("summary")
            warning = squared(summary.get("warning", "")) if isinstance(summary, dict) else ""
            states.append(StageState(name, str(entry.get("state", "")), seconds, warning))
        return states

    def why_missing(self, stage: str, name: str) -> str:
        """Says in one sentence why a file of a stage cannot be shown."""
        path = self.directory / name
        if path.exists() or path.with_suffix(".parquet").exists():
            return f"{name} holds no rows: the stage {stage} found nothing to write in this run."
        states = {entry.name: entry.state for entry in self.stages()}
        if stage in states:
            return f"This run has no {name}: run.json gives the state of the stage {stage} as {states[stage]!r}."
        return f"This run has no {name}: the stage {stage} has not been run."

    @cached_property
    def splits(self) -> dict[str, str]:
        """Split of each image, as pages name it."""
        images = self.table("images.tsv", ("image_id", "split"))
        if images is None:
            return {}
        return dict(zip(images["image_id"].astype(str), images["split"].map(lambda s: SPLITS.get(s, s)), strict=True))

    def split_of(self, image_id: str) -> str:
        """Returns the split of an image: test, training, early stopping; "split not recorded" without images.tsv."""
        return self.splits.get(str(image_id), "split not recorded")

    def measured(self, voxel_ids: pd.Series, image_ids: pd.Series) -> np.ndarray:
        """Reads measured responses, averaged over repeats.

        Args:
            voxel_ids: [pairs] voxels.
            image_ids: [pairs] images.

        Returns:
            One response for each pair [pairs] float64; NaN where it is not stored.
        """
        found = np.full(len(voxel_ids), np.nan)
        responses, columns = self.array("data/responses.npy"), self.array("data/voxel_ids.npy")
        names = self.directory / "data" / "image_ids.json"
        if responses is None or columns is None or not names.is_file():
            return found
        row = pd.Index([str(name) for name in artifacts.read_json(names)]).get_indexer(image_ids.astype(str))
        column = pd.Index(np.asarray(columns)).get_indexer(voxel_ids)
        known = (row >= 0) & (column >= 0)
        found[known] = responses[row[known], column[known]]
        return found

    def photos(self, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Reads photos [height, width, 3] uint8 by id; empty without a reader."""
        unique = list(dict.fromkeys(image_ids))
        if self.read_images is None or not unique:
            return {}
        return dict(zip(unique, self.read_images(unique), strict=True))


def open_run(directory: Path, *, read_images: ReadImages | None = None, truth: Path | None = None) -> Run:
    """Opens a run directory.

    Raises:
        MissingInputError: if it holds neither `run.json` nor `voxels.tsv`.
    """
    if not (directory / "run.json").is_file() and not (directory / "voxels.tsv").is_file():
        raise MissingInputError(
            f"{directory} is no run directory: it holds neither run.json nor voxels.tsv. Give the folder of a run."
        )
    return Run(directory, read_images, directory / "truth.tsv" if truth is None else truth)


def checked(table: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Returns a table that has the needed columns.

    Raises:
        IntegrityError: if it lacks one.
    """
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise IntegrityError(
            f"{path} must have the columns {', '.join(columns)}, but lacks {', '.join(absent)}. "
            "Was it written by another version? Run its stage again."
        )
    return table


def is_true(column: pd.Series) -> pd.Series:
    """Reads a column of true/false, in any spelling, as booleans; empty is False."""
    return column.astype(str).str.strip().str.lower().isin(("true", "1", "1.0", "yes"))


def areas_of(rois: str) -> list[str]:
    """Splits the areas of one voxel; `NO_AREA` where there are none."""
    return list(dict.fromkeys(part.strip() for part in str(rois).split(";") if part.strip())) or [NO_AREA]


def records(table: pd.DataFrame | None) -> Iterator[Any]:
    """Goes through the rows of a table as objects with one attribute per column; none for None."""
    if table is not None:
        yield from table.itertuples(index=False)


def spread_over_areas(voxels: pd.DataFrame, *, limit: int, per_area: int | None = None) -> pd.DataFrame:
    """Picks voxels area by area, so that no area takes all places.

    Goes round the areas in alphabetical order and takes the best voxel by R2 that is left
    in each, until `limit` voxels are found. A voxel counts for all its areas, once.

    Args:
        voxels: rows with `voxel_id`, `rois` and `r2`.
        limit: largest number of voxels.
        per_area: largest number of voxels per area; None for no limit.

    Returns:
        The rows picked, with the area they were picked for as `area`.
    """
    ordered = voxels.sort_values(["r2", "voxel_id"], ascending=[False, True])
    queues: dict[str, list[int]] = {}
    for position, rois in zip(ordered.index, ordered["rois"], strict=True):
        for area in areas_of(rois):
            queues.setdefault(area, []).append(position)
    picked: dict[int, str] = {}
    turns = 0
    while len(picked) < limit and any(queues.values()) and (per_area is None or turns < per_area):
        for area in sorted(queues):
            while queues[area] and queues[area][0] in picked:
                queues[area].pop(0)
            if queues[area] and len(picked) < limit:
                picked[queues[area].pop(0)] = area
        turns += 1
    return voxels.loc[list(picked)].assign(area=list(picked.values()))
