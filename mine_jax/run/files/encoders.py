"""What the encoder stage makes: encoders and scores, of voxels, decoys and halves, and of the fits beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mine_jax import artifacts, encoder
from mine_jax.run import tables
from mine_jax.run.files.owned import DECOYS, HALVES, RIVAL
from mine_jax.types import Encoders, Responses, Scores


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
