"""What the stages make of them: encoders and scores, attributions, words, profiles, areas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import artifacts, encoder, memory, profile
from mine_jax.config import AttributionConfig
from mine_jax.convert import frames
from mine_jax.description import CorpusShares
from mine_jax.errors import MissingInputError
from mine_jax.memory import SparseRows
from mine_jax.run import tables
from mine_jax.run.files.inputs import load_responses
from mine_jax.run.files.owned import DECOYS, HALVES, RIVAL
from mine_jax.types import (
    Attributions,
    CriticalTokens,
    Descriptions,
    Encoders,
    Faithfulness,
    Profiles,
    Responses,
    Scores,
)

# Arrays of the words of images.
_SPARSE = ("starts", "columns", "values")


def save_encoders(directory: Path, encoders: Encoders, scores: Scores) -> None:
    """Writes the encoders of voxels and of decoys, and how well they predict."""
    decoys = encoder.is_decoy(np.asarray(encoders.voxel_ids))
    for subfolder, chosen in (("", ~decoys), (DECOYS, decoys)):
        if chosen.any():
            artifacts.save(encoders.take(chosen), directory / "encoder" / subfolder)
            artifacts.save(scores.take(chosen), directory / "scores" / subfolder)


def load_encoders(directory: Path) -> Encoders:
    """Loads the encoders of the encoder stage."""
    return artifacts.load(directory / "encoder")


def load_decoys(directory: Path) -> tuple[Encoders, Scores] | None:
    """Loads the encoders of decoys and their scores; None where no decoys were fitted."""
    folder = directory / "encoder" / DECOYS
    if not (folder / "meta.json").is_file():
        return None
    return artifacts.load(folder), artifacts.load(directory / "scores" / DECOYS)


def load_scores(directory: Path) -> Scores:
    """Loads the scores of the encoder stage."""
    return artifacts.load(directory / "scores")


def save_half(directory: Path, half: int, encoders: Encoders, image_ids: np.ndarray) -> None:
    """Writes the encoders of voxels and decoys that saw one half of the training images, and its image ids."""
    folder = directory / "encoder" / HALVES[half]
    artifacts.save(encoders, folder)
    artifacts.write_json(folder / "images.json", image_ids.tolist())


def load_half(directory: Path, half: int) -> tuple[Encoders, np.ndarray] | None:
    """Loads what `save_half` wrote; None where no halves were fitted."""
    folder = directory / "encoder" / HALVES[half]
    if not (folder / "meta.json").is_file():
        return None
    return artifacts.load(folder), np.array(artifacts.read_json(folder / "images.json"), dtype=str)


def save_reference(directory: Path, scores: Scores) -> None:
    """Writes the scores of the ridge that the encoders are compared with."""
    artifacts.save(scores, directory / "scores" / "ridge")


def load_reference(directory: Path) -> Scores | None:
    """Loads the scores of the reference ridge; None where it was not fitted."""
    folder = directory / "scores" / "ridge"
    return artifacts.load(folder) if (folder / "meta.json").is_file() else None


def save_layers(directory: Path, responses: Responses, by_layer: dict[int, Scores]) -> None:
    """Writes which layer predicts each voxel best, and how many voxels of each area; nothing for one layer."""
    by_area, by_voxel = (directory / "encoder" / name for name in ("layers.tsv", "voxel_layers.tsv"))
    if len(by_layer) < 2:
        for path in (by_area, by_voxel):
            path.unlink(missing_ok=True)
        return
    best = encoder.best_layers(by_layer)
    artifacts.write_table(by_area, tables.layers(responses, best, by_layer))
    artifacts.write_table(by_voxel, tables.voxel_layers(best, by_layer))


def save_rival(directory: Path, predicted: np.ndarray, scores: Scores) -> None:
    """Writes what the low-level rival predicts of the test images, [T, V] with decoys, and how well it does."""
    folder = directory / "scores" / RIVAL
    artifacts.save(scores, folder)
    artifacts.write_array(folder / "predicted.npy", predicted)


def load_rival(directory: Path) -> tuple[np.ndarray, Scores] | None:
    """Opens what `save_rival` wrote; None where no rival was fitted."""
    folder = directory / "scores" / RIVAL
    if not (folder / "meta.json").is_file():
        return None
    return artifacts.read_array(folder / "predicted.npy", mmap=True), artifacts.load(folder)


def remove_rival(directory: Path) -> None:
    """Deletes the rival of an earlier run."""
    folder = directory / "scores" / RIVAL
    (folder / "predicted.npy").unlink(missing_ok=True)
    artifacts.delete(Scores, folder)


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


def load_heat(directory: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Opens the scores of all tokens [V, I, P] of the attribution stage; None where they were not kept.

    Args:
        directory: of the run.
        shape: V and I.
    """
    path = directory / "attribution" / "heat.npy"
    return artifacts.read_array(path, mmap=True).reshape(*shape, -1) if path.exists() else None


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
