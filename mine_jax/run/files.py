"""Opens what earlier stages left in a run directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mine_jax import artifacts, data, features
from mine_jax.config import Config, DataConfig, PhantomConfig
from mine_jax.types import CriticalTokens, Encoders, ImageTokens, Lens, Responses, Scores, Split, Stimuli


def data_source(config: Config, directory: Path) -> DataConfig:
    """Returns the data configuration as its reader takes it; a phantom's folder is known by then."""
    if not isinstance(config.data, PhantomConfig) or config.data.root is not None:
        return config.data
    return config.data.model_copy(update={"root": str(directory / "phantom")})


def shown_stimuli(config: Config, directory: Path) -> Stimuli:
    """Opens the images that the subject of the data stage saw."""
    stimuli = data.open_stimuli(data_source(config, directory))
    wanted = np.isin(stimuli.image_ids, artifacts.load(directory / "data").image_ids)
    return Stimuli(
        stimuli.image_ids[wanted], stimuli.read, stimuli.hashes[wanted], stimuli.shared[wanted], stimuli.source
    )


def load_responses(directory: Path) -> Responses:
    """Loads the responses of the data stage."""
    return artifacts.load(directory / "data", verify=False)


def load_scores(directory: Path) -> Scores:
    """Loads the scores of the encoder stage."""
    return artifacts.load(directory / "scores")


def load_encoders(directory: Path) -> Encoders:
    """Loads the encoders of the encoder stage."""
    return artifacts.load(directory / "encoder")


def load_lens(directory: Path) -> Lens | None:
    """Loads the lens of the feature stage; None where the features have no words."""
    folder = directory / "features" / "lens"
    return artifacts.load(folder) if (folder / "meta.json").exists() else None


def load_tokens(directory: Path) -> ImageTokens:
    """Opens the image-tokens of the feature stage."""
    return features.open_store(directory / "features", verify=False)


def load_splits(config: Config, directory: Path) -> dict[str, Split]:
    """Aligns tokens and responses and takes them apart by split."""
    responses, tokens = load_responses(directory), load_tokens(directory)
    aligned = data.align(responses, tokens, on_missing=config.data.on_missing)
    images = artifacts.read_table(directory / "images.tsv")
    split_of = dict(zip(images["image_id"], images["split"], strict=True))
    split = np.array([split_of[image_id] for image_id in aligned.responses.image_ids])
    return {name: data.split_rows(aligned, split, names=name) for name in ("train", "val", "test")}


def load_critical(directory: Path) -> CriticalTokens | None:
    """Loads the critical tokens of the attribution stage; None where no voxel was attributed."""
    folder = directory / "attribution"
    meta = artifacts.read_json(folder / "meta.json")
    if not meta["n_voxels"]:
        return None
    pairs = artifacts.read_table(folder / "pairs.tsv")
    shape = (meta["n_voxels"], meta["n_images"])
    return CriticalTokens(
        voxel_ids=pairs["voxel_id"].to_numpy().reshape(shape)[:, 0],
        image_ids=pairs["image_id"].to_numpy(dtype=str).reshape(shape),
        indices=artifacts.read_array(folder / "tokens.npy").reshape(*shape, -1),
        scores=artifacts.read_array(folder / "scores.npy").reshape(*shape, -1),
    )
