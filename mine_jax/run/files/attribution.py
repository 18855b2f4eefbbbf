"""What the attribution stage makes: what drives the voxels, and what patching it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax import artifacts, memory
from mine_jax.config import AttributionConfig
from mine_jax.run import tables
from mine_jax.types import Attributions, CriticalTokens, Faithfulness, Scores


@contextlib.contextmanager
def kept_scores(
    directory: Path, shape: tuple[int, int, int], *, keep: bool
) -> Generator[Callable[[slice, np.ndarray], None] | None, None, None]:
    """Gives what writes the scores of all tokens to a float16 array [V x I, P], whole or not at all.

    Args:
        directory: of the run.
        shape: V, I and P.
        keep: whether to write them; otherwise those of an earlier run are deleted.

    Yields:
        A function of a slice of voxels and their scores [v, I, P]; None if they are not kept.
    """
    path = directory / "attribution" / "heat.npy"
    if not keep:
        path.unlink(missing_ok=True)
        yield None
        return
    n_voxels, n_images, n_tokens = shape
    with artifacts.atomic(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        heat = memory.mapped_npy(temporary, (n_voxels * n_images, n_tokens), np.float16)

        def write(voxels: slice, scores: np.ndarray) -> None:
            heat[voxels.start * n_images : voxels.stop * n_images] = scores.reshape(-1, n_tokens)
            heat.flush()

        yield write


def save_attribution(
    directory: Path,
    attributions: Attributions,
    critical: CriticalTokens,
    faithfulness: Faithfulness,
    of_halves: np.ndarray,
    *,
    scores: Scores,
    settings: AttributionConfig,
    seed: int,
) -> pd.DataFrame:
    """Writes what drives the voxels, and what patching it does.

    Args:
        directory: of the run.
        attributions: of V x I pairs.
        critical: their critical tokens.
        faithfulness: their patching curves.
        of_halves: [V] faithfulness of one refit's attributions in the other; NaN where unknown.
        scores: of all voxels of the run.
        settings: of the stage.
        seed: of the bootstrap of the curves.

    Returns:
        The table with one row per voxel.
    """
    out = directory / "attribution"
    n_voxels, n_images, k = critical.indices.shape
    pairs = tables.pairs(attributions, faithfulness, tolerance=settings.tolerance)
    artifacts.write_parts(out / "pairs.tsv", pairs, n_voxels * n_images)
    # those of the table, for readers that need no other column: of a whole brain these are millions of texts
    artifacts.write_array(out / "image_ids.npy", critical.image_ids)
    artifacts.write_array(out / "tokens.npy", critical.indices.reshape(-1, k))
    artifacts.write_array(out / "scores.npy", critical.scores.reshape(-1, k))
    artifacts.write_table(out / "curves.tsv", tables.curves(attributions, faithfulness, seed=seed))
    per_voxel = tables.attributed_voxels(attributions, faithfulness, of_halves, critical, scores)
    artifacts.write_table(out / "voxels.tsv", per_voxel)
    artifacts.save(faithfulness, out / "faithfulness")
    meta = {"schema": artifacts.SCHEMA, "n_voxels": n_voxels, "n_images": n_images, "k": k, **settings.model_dump()}
    artifacts.write_json(out / "meta.json", meta)
    return per_voxel


def save_no_attribution(directory: Path) -> None:
    """Writes that no voxel was attributed."""
    artifacts.write_json(directory / "attribution" / "meta.json", {"schema": artifacts.SCHEMA, "n_voxels": 0})


def load_critical(directory: Path) -> CriticalTokens | None:
    """Loads the critical tokens of the attribution stage; None where no voxel was attributed."""
    folder = directory / "attribution"
    meta = artifacts.read_json(folder / "meta.json")
    if not meta["n_voxels"]:
        return None
    shape = (meta["n_voxels"], meta["n_images"])
    indices, scores = (artifacts.read_array(folder / f"{name}.npy", mmap=True) for name in ("tokens", "scores"))
    return CriticalTokens(
        voxel_ids=artifacts.read_table(folder / "voxels.tsv")["voxel_id"].to_numpy(),
        image_ids=artifacts.read_array(folder / "image_ids.npy", mmap=True),
        indices=indices.reshape(*shape, -1),
        scores=scores.reshape(*shape, -1),
    )


def load_faithfulness(directory: Path) -> Faithfulness:
    """Loads the faithfulness of the attributed pairs."""
    return artifacts.load(directory / "attribution" / "faithfulness")


def save_control_attribution(directory: Path, control: str, critical: CriticalTokens, faithfulness: np.ndarray) -> None:
    """Writes the critical tokens of a control (`DECOYS` or one of `HALVES`), and how faithful [V, I] they are."""
    folder = directory / "attribution" / control
    artifacts.save(critical, folder)
    artifacts.write_array(folder / "faithfulness.npy", faithfulness)


def load_control_attribution(directory: Path, control: str) -> tuple[CriticalTokens, np.ndarray] | None:
    """Loads what `save_control_attribution` wrote; None where there is no such control."""
    folder = directory / "attribution" / control
    if not (folder / "meta.json").is_file():
        return None
    return artifacts.load(folder), artifacts.read_array(folder / "faithfulness.npy")


def load_heat(directory: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Opens the scores of all tokens [V, I, P] of the attribution stage; None where they were not kept.

    Args:
        directory: of the run.
        shape: V and I.
    """
    path = directory / "attribution" / "heat.npy"
    return artifacts.read_array(path, mmap=True).reshape(*shape, -1) if path.exists() else None
