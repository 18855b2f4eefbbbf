"""What the fits read: responses, images and their splits, image-tokens, the lens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax import artifacts, data, features
from mine_jax.config import Config, DataConfig, PhantomConfig
from mine_jax.convert import frames
from mine_jax.run import tables
from mine_jax.run.files.owned import OUTPUTS, RIVAL
from mine_jax.run.record import directory as run_directory
from mine_jax.run.record import manifest
from mine_jax.types import ImageTokens, Lens, Profiles, Responses, Scores, Split, Stimuli


def data_folder(directory: Path) -> Path:
    """Returns the folder of the data stage."""
    return directory / "data"


def features_folder(directory: Path) -> Path:
    """Returns the folder of the feature stage: the token store, with the lens in it."""
    return directory / "features"


def data_source(config: Config, directory: Path) -> DataConfig:
    """Returns the data configuration as its reader takes it; a phantom's folder is known by then."""
    if not isinstance(config.data, PhantomConfig) or config.data.root is not None:
        return config.data
    return config.data.model_copy(update={"root": str(directory / "phantom")})


def shown_stimuli(config: Config, directory: Path) -> Stimuli:
    """Opens the images that the subject of the data stage saw."""
    stimuli = data.open_stimuli(data_source(config, directory))
    wanted = np.isin(stimuli.image_ids, artifacts.load(data_folder(directory)).image_ids)
    return replace(
        stimuli,
        image_ids=stimuli.image_ids[wanted],
        hashes=stimuli.hashes[wanted],
        shared=stimuli.shared[wanted],
    )


def save_data(directory: Path, responses: Responses, splits: np.ndarray) -> None:
    """Writes the responses, and the splits [N] of their images."""
    artifacts.save(responses, data_folder(directory))
    artifacts.write_table(directory / "images.tsv", tables.images(responses, splits))
    save_voxels(directory, responses, None, None)


def save_voxels(directory: Path, responses: Responses, scores: Scores | None, profiles: Profiles | None) -> None:
    """Writes what is known of the voxels so far."""
    artifacts.write_table(directory / "voxels.tsv", frames.voxels(responses, scores, profiles))


def load_responses(directory: Path) -> Responses:
    """Loads the responses of the data stage."""
    return artifacts.load(data_folder(directory), verify=False)


def split_of(directory: Path) -> dict[str, str]:
    """Reads the split of every image: id -> train, val or test."""
    images = artifacts.read_table(directory / "images.tsv")
    return dict(zip(images["image_id"].astype(str), images["split"], strict=True))


def training_images(directory: Path) -> np.ndarray:
    """Returns the ids [n] of the training images, which alone may decide what is fitted before the encoders."""
    return np.array([image_id for image_id, split in split_of(directory).items() if split == "train"], dtype=str)


def splits_of_images(directory: Path, image_ids: np.ndarray) -> np.ndarray:
    """Returns the split [N] of each of these images [N]; "" for images without responses."""
    known = split_of(directory)
    return np.array([known.get(image_id, "") for image_id in image_ids], dtype=str)


def load_lens(directory: Path) -> Lens | None:
    """Loads the lens of the feature stage; None where the features have no words."""
    folder = features_folder(directory) / "lens"
    return artifacts.load(folder) if (folder / "meta.json").exists() else None


def load_tokens(directory: Path) -> ImageTokens:
    """Opens the image-tokens of the feature stage; precomputed ones where the present configuration has them."""
    record = manifest.read(directory)
    settings = {} if record is None else record.get("configuration", {}).get("features", {})
    return features.open_store(features_folder(directory), verify=False, moved_to=settings.get("tokens"))


def fitted_to_tokens(directory: Path) -> list[Path]:
    """Returns the folders of what was fitted to image-tokens, which further photos need: none, one or two."""
    return [
        path for path in (features_folder(directory) / name for name in ("denoising", "reduction")) if path.is_dir()
    ]


def load_more_layers(config: Config, directory: Path) -> dict[int, ImageTokens]:
    """Opens the image-tokens of further layers that the features stage stored: layer -> tokens."""
    if not getattr(config.features, "more_layers", ()):
        return {}
    folders = sorted(features_folder(directory).glob("layer-*"))
    stores = [features.open_store(folder, verify=False) for folder in folders]
    return {tokens.layer: tokens for tokens in stores}


def save_low_level(directory: Path, statistics: ImageTokens) -> None:
    """Writes the low-level statistics of the images."""
    artifacts.save(statistics, features_folder(directory) / RIVAL)


def load_low_level(directory: Path) -> ImageTokens | None:
    """Opens the low-level statistics of the images; None where there are none."""
    folder = features_folder(directory) / RIVAL
    return artifacts.load(folder, verify=False) if (folder / "meta.json").is_file() else None


def remove_low_level(directory: Path) -> None:
    """Deletes the low-level statistics of an earlier run."""
    artifacts.delete(ImageTokens, features_folder(directory) / RIVAL)


def remove_features(directory: Path) -> None:
    """Deletes the token store, and no other file in its folder."""
    known = run_directory.snapshot(directory)
    run_directory.remove(directory, [file for file in known if run_directory.matches(file, OUTPUTS["features"])])


def load_splits(config: Config, directory: Path, *, tokens: ImageTokens | None = None) -> dict[str, Split]:
    """Aligns tokens, those of the main layer where none are given, and responses, and takes them apart by split."""
    responses, tokens = load_responses(directory), load_tokens(directory) if tokens is None else tokens
    aligned = data.align(responses, tokens, on_missing=config.data.on_missing)
    known = split_of(directory)
    split = np.array([known[image_id] for image_id in aligned.responses.image_ids])
    return {name: data.split_rows(aligned, split, names=name) for name in ("train", "val", "test")}
