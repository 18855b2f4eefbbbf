"""What the later stages make: words, profiles, areas, generated and edited images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import artifacts, profile
from mine_jax.convert import frames
from mine_jax.description import CorpusShares
from mine_jax.errors import MissingInputError
from mine_jax.memory import SparseRows
from mine_jax.run import tables
from mine_jax.run.files.encoders import load_rival
from mine_jax.run.files.inputs import load_responses
from mine_jax.run.files.owned import DECOYS
from mine_jax.types import Descriptions, Profiles

# Arrays of the words of images.
_SPARSE = ("starts", "columns", "values")


def save_control_descriptions(directory: Path, control: str, descriptions: Descriptions) -> None:
    """Writes the descriptions of a control (`DECOYS` or one of `HALVES`)."""
    artifacts.save(descriptions, directory / "description" / control)


def load_control_descriptions(directory: Path, control: str) -> Descriptions | None:
    """Loads what `save_control_descriptions` wrote; None where there is no such control."""
    folder = directory / "description" / control
    return artifacts.load(folder) if (folder / "meta.json").is_file() else None


def save_description(directory: Path, descriptions: Descriptions, shares: CorpusShares) -> None:
    """Writes the descriptions of all pairs, and the shares of words that they are compared with."""
    out = directory / "description"
    artifacts.save(descriptions, out)
    artifacts.write_array(out / "corpus.npy", shares.mean)
    for part in _SPARSE:
        artifacts.write_array(out / f"image_words.{part}.npy", getattr(shares.images, part))
    artifacts.write_json(out / "images.json", {"ids": shares.image_ids.tolist(), "splits": shares.splits.tolist()})
    n_words, n_pairs = int((descriptions.word_ids >= 0).sum()), descriptions.image_ids.size
    artifacts.write_parts(out / "words.tsv", tables.description_words(descriptions), n_words)
    artifacts.write_parts(out / "sentences.tsv", tables.description_sentences(descriptions), n_pairs)


def save_no_description(directory: Path, reason: str) -> None:
    """Writes why nothing was described."""
    artifacts.write_json(directory / "description" / "none.json", {"reason": reason})


def why_not_described(directory: Path) -> str | None:
    """Says why nothing was described; None where there are descriptions."""
    folder = directory / "description"
    return None if (folder / "corpus.npy").exists() else artifacts.read_json(folder / "none.json")["reason"]


def load_descriptions(directory: Path) -> Descriptions:
    """Loads the descriptions of all pairs."""
    return artifacts.load(directory / "description")


def corpus(directory: Path) -> np.ndarray:
    """Reads the mean share [C] of each word over the training images."""
    return artifacts.read_array(directory / "description" / "corpus.npy")


def word_shares(directory: Path) -> CorpusShares:
    """Opens the shares of words in the corpus and in each image [N, C]."""
    folder = directory / "description"
    images = artifacts.read_json(folder / "images.json")
    ids, splits = (np.array(images[name], dtype=str) for name in ("ids", "splits"))
    mean = corpus(directory)
    parts = (artifacts.read_array(folder / f"image_words.{part}.npy") for part in _SPARSE)
    return CorpusShares(mean, SparseRows(*parts, len(mean)), ids, splits)


def test_words(directory: Path) -> np.ndarray:
    """Reads the share [T, C] of each word in the test images."""
    shares = word_shares(directory)
    return shares.images.take(shares.splits == "test").dense()


def test_images(directory: Path) -> np.ndarray:
    """Reads the ids [T] of the test images, in the order of `test_words`."""
    shares = word_shares(directory)
    return shares.image_ids[shares.splits == "test"]


def save_profiles(directory: Path, profiles: Profiles, decoys: Profiles | None) -> None:
    """Writes the profiles of voxels, and of decoys as the null beside them."""
    out = directory / "profile"
    artifacts.save(profiles, out)
    artifacts.write_table(out / "words.tsv", frames.profile_words(profiles))
    artifacts.write_table(out / "sentences.tsv", tables.profile_sentences(profiles))
    save_profile_voxels(directory, profiles)
    if decoys is not None:
        artifacts.save(decoys, out / DECOYS)
        artifacts.write_table(out / "decoys.tsv", _rungs(directory, decoys))


def save_profile_voxels(directory: Path, profiles: Profiles) -> None:
    """Writes the claims of the profiled voxels, with the numbers of every rung."""
    table, responses = _rungs(directory, profiles), load_responses(directory)
    areas = responses.rois[np.searchsorted(responses.voxel_ids, profiles.voxel_ids)]
    table["agreement_area"] = profile.agreement_with_others(*profiles.halves, corpus(directory), areas)
    artifacts.write_table(directory / "profile" / "voxels.tsv", table)


def _rungs(directory: Path, profiles: Profiles) -> pd.DataFrame:
    """Tables every rung of the ladder, with the accuracy of the low-level rival, NaN where there is none."""
    table, rival = frames.profile_voxels(profiles), load_rival(directory)
    of_rival = np.nan if rival is None else rival[1].r[np.searchsorted(rival[1].voxel_ids, profiles.voxel_ids)]
    table.insert(list(table).index("r_measured") + 1, "r_low_level", of_rival)
    return table


def save_evidence(directory: Path, evidence: dict[str, pd.DataFrame]) -> None:
    """Writes what rests on profiles, one table by name."""
    for name, table in evidence.items():
        artifacts.write_table(directory / "profile" / f"{name}.tsv", table)


def load_evidence(directory: Path, name: str) -> pd.DataFrame | None:
    """Reads a table that `save_evidence` wrote; None where there is none."""
    path = directory / "profile" / f"{name}.tsv"
    names = dict.fromkeys(("confound", "role", "first", "second"), str)
    try:
        return artifacts.read_table(path, **names)
    except MissingInputError:
        return None


def save_no_profiles(directory: Path, reason: str) -> None:
    """Writes why there are no profiles."""
    artifacts.write_json(directory / "profile" / "none.json", {"reason": reason})


def load_profiles(directory: Path, *, decoys: bool = False) -> Profiles | None:
    """Loads the profiles, or those of decoys; None where the profile stage made none."""
    folder = directory / "profile" / DECOYS if decoys else directory / "profile"
    return artifacts.load(folder) if (folder / "meta.json").is_file() else None


def save_roi(
    directory: Path,
    selectivity: list[dict[str, Any]],
    structure: list[dict[str, Any]],
    contrasts: list[dict[str, Any]],
) -> None:
    """Writes what areas prefer, what is inside them, and the words that tell them apart."""
    out = directory / "roi"
    artifacts.write_table(out / "selectivity.tsv", tables.rows(selectivity, tables.SELECTIVITY))
    artifacts.write_table(out / "structure.tsv", tables.rows(structure, tables.STRUCTURE))
    artifacts.write_table(out / "contrasts.tsv", tables.rows(contrasts, tables.CONTRASTS))


def save_subjects(directory: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Writes what areas prefer across subjects, and returns the table."""
    table = tables.rows(rows, tables.SUBJECTS)
    artifacts.write_table(directory / "roi_subjects.tsv", table)
    return table


def save_answer(path: Path, table: pd.DataFrame) -> Path:
    """Writes what a query finds, one row per voxel, and returns the path."""
    artifacts.write_table(path, table)
    return path


def maps_folder(directory: Path) -> Path:
    """Returns the folder of the maps."""
    return directory / "maps"


def why_no_profiles(directory: Path) -> str | None:
    """Says why there are no descriptions or no profiles; None where there are both."""
    for stage, name in (("description", "corpus.npy"), ("profile", "meta.json")):
        if not (directory / stage / name).exists():
            reason = directory / stage / "none.json"
            return artifacts.read_json(reason)["reason"] if reason.exists() else f"no {stage}s"
    return None


def validation_images(directory: Path) -> Path:
    """Returns the folder of the images that the validation stage makes and keeps."""
    return directory / "validation" / "images"


def save_validation(directory: Path, results: dict[str, pd.DataFrame], meta: dict[str, Any]) -> None:
    """Writes the tables of the validation stage, and what they were made with."""
    out = directory / "validation"
    for name, table in results.items():
        artifacts.write_table(out / f"{name}.tsv", table)
    artifacts.write_json(out / "meta.json", {"schema": artifacts.SCHEMA, **meta})
    (out / "none.json").unlink(missing_ok=True)


def save_no_validation(directory: Path, reason: str) -> None:
    """Writes why nothing was validated."""
    artifacts.write_json(directory / "validation" / "none.json", {"reason": reason})
