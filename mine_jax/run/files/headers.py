"""Sizes of arrays from the headers of files alone, for what is said before anything is computed."""

from __future__ import annotations

from pathlib import Path

from mine_jax import artifacts, data, features
from mine_jax.config import Config, PhantomConfig, PrecomputedConfig
from mine_jax.errors import MineError
from mine_jax.phantom import write_nsd
from mine_jax.run.files.inputs import data_source


def responses_shape(config: Config, directory: Path | None) -> tuple[int, ...] | None:
    """Returns the shape [N, V] of the responses; of those that will be read where `directory` is None or has none."""
    made = None if directory is None else _npy_shape(str(directory / "data" / "responses.npy"))
    if made is not None:
        return made
    source = config.data if directory is None else data_source(config, directory)
    # one in the run is written again where another is wanted
    is_own = getattr(config.data, "root", None) is None
    if isinstance(source, PhantomConfig) and (is_own or not write_nsd.is_phantom(str(source.root))):
        return _planned_phantom(source, seed=config.run.seed)
    return data.expected_shape(source)


def _planned_phantom(source: PhantomConfig, *, seed: int) -> tuple[int, int] | None:
    """The shape [N, V] of the responses of a phantom that is still to be written."""
    if source.sessions is not None or source.space != write_nsd.SPACE:
        return None
    try:
        voxels = write_nsd.planned_voxels(source.subject, shape=source.shape, seed=seed, roi=source.roi)
    except MineError:
        return None  # said where it is written
    return source.n_images, voxels


def tokens_shape(config: Config, directory: Path) -> tuple[int, ...] | None:
    """Returns the shape [N, P, D] of the image-tokens: extracted, precomputed or planned; None where unknown."""
    store = directory / "features" / "meta.json"
    if store.is_file():
        shape = artifacts.read_json(store).get("shape")
        if shape:
            return tuple(shape)
    if isinstance(config.features, PrecomputedConfig):
        return _npy_shape(config.features.tokens)
    responses, planned = responses_shape(config, directory), features.planned_tokens(config.features)
    return None if responses is None or planned is None else (responses[0], *planned)


def _npy_shape(path: str | None) -> tuple[int, ...] | None:
    if path is None or not path.endswith(".npy") or not Path(path).is_file():
        return None
    try:
        return artifacts.read_array(Path(path), mmap=True).shape
    except MineError:
        # a damaged file is an error of the data stage, which says more
        return None
