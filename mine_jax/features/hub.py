"""A model of the Hugging Face hub -> its folder in the local cache: one commit, only what a port reads.

The cache is that of huggingface_hub (`HF_HOME`), which other programs share. Nothing is asked of the network
without `features.allow_download`; no pickle and no code is fetched.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mine_jax import artifacts
from mine_jax.config import FeaturesConfig, ModelConfig, PrecomputedConfig, hub_id
from mine_jax.errors import MissingInputError, WeightsError
from mine_jax.features.ports import weights as checkpoint

_log = logging.getLogger("mine_jax")

WEIGHTS, TEXTS = "*.safetensors", ("*.json", "*.txt")
# other formats of the same model lie in folders
IGNORED = ("*/*",)


def hub_folder(config: ModelConfig) -> Path | None:
    """Returns where a model of the hub lies in the local cache, or would lie.

    Args:
        config: the `[features]` section.

    Returns:
        The folder; None where `model` is no id of the hub.
    """
    model = hub_id(config)
    if model is None:
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=model, repo_type="model")
    return Path(constants.HF_HUB_CACHE).expanduser() / name / "snapshots" / str(config.revision)


def hub_files(config: FeaturesConfig) -> list[Path]:
    """Returns the files of a model of the hub that a port may read.

    What else lies in their folder counts for nothing.

    Args:
        config: the `[features]` section.

    Returns:
        The files in the local cache; the folder, where it has none; nothing where `model` is no id of the hub.
    """
    folder = None if isinstance(config, PrecomputedConfig) else hub_folder(config)
    return [] if folder is None else _files(folder) or [folder]


def fetched(config: ModelConfig) -> Path:
    """Returns the folder of a model of the hub; brings it into the local cache where the configuration allows it.

    Args:
        config: the `[features]` section, with an id of the hub.

    Returns:
        The folder in the cache.

    Raises:
        MissingInputError: if it is not in the cache and may not or cannot be fetched.
        WeightsError: if that commit has no safetensors weights, or a file is damaged.
    """
    from huggingface_hub import errors

    model, folder = hub_id(config), hub_folder(config)
    assert model is not None and folder is not None
    named = f"{model} at revision {config.revision}"
    try:
        if not config.allow_download:
            _snapshot(config, is_online=False)
        elif not _is_whole(config, folder):
            _log.info("fetching %s into %s", named, folder.parent.parent)
            _snapshot(config, is_online=True)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise MissingInputError(
            f"the hub shows no {named} ({_first_line(error)}). Are the id and the commit right? A gated model needs "
            "its terms accepted, and `hf auth login`."
        ) from error
    except (OSError, errors.HTTPError) as error:
        raise MissingInputError(_not_there(config, named, folder, error)) from error
    if not any(folder.glob(WEIGHTS)):
        where = "" if config.allow_download else " in the local cache"
        raise WeightsError(
            f"{named} has no .safetensors file{where}. Pickled weights are never read: choose a commit with "
            "safetensors (the hub's converter offers one as a pull request of the model), or convert them."
        )
    for path in _texts(folder):
        checkpoint.check_blob(path, artifacts.sha256(path))
    return folder


def fetched_files(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each file of a model of the hub, by name.

    Args:
        folder: of one commit, in the cache; the model has been loaded from it.

    Returns:
        Name -> digest, of the files that a port may read.
    """
    digests = {}
    for path in _files(folder):
        blob = path.resolve().name
        # loading has compared the weights with the sha256 that names them
        is_known = path.match(WEIGHTS) and checkpoint.SHA256.fullmatch(blob)
        digests[path.name] = blob if is_known else artifacts.sha256(path)
    return digests


def _snapshot(config: ModelConfig, *, is_online: bool) -> None:
    """Brings what a port reads into the cache, or checks without the network that it is there."""
    import huggingface_hub

    huggingface_hub.snapshot_download(
        str(hub_id(config)),
        revision=config.revision,
        allow_patterns=[WEIGHTS, *TEXTS],
        ignore_patterns=list(IGNORED),
        local_files_only=not is_online,
        endpoint=os.environ.get("HF_ENDPOINT"),
    )


def _is_whole(config: ModelConfig, folder: Path) -> bool:
    """Tells without the network whether the cache has every file that a port may read.

    Other programs leave some files of a commit there, and no list of what belongs to it.
    """
    if not (folder.parent.parent / "trees" / f"{folder.name}.json").is_file():
        return False
    try:
        _snapshot(config, is_online=False)
    except OSError:
        return False
    return any(folder.glob(WEIGHTS))


def _not_there(config: ModelConfig, named: str, folder: Path, error: Exception) -> str:
    if not config.allow_download:
        where = "is not whole" if folder.is_dir() else "is not"
        return (
            f"{named} {where} in the local cache, {folder.parent.parent}. Set `features.allow_download = true` to "
            f"fetch it once, or run: hf download {hub_id(config)} --revision {config.revision}"
        )
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return (
            f"{named} is not whole in the local cache, {folder.parent.parent}, and the environment forbids to fetch "
            "it: unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE."
        )
    return (
        f"{named} could not be fetched ({_first_line(error)}). What has arrived is kept; the same command goes on from "
        "there."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(WEIGHTS), *_texts(folder)])


def _texts(folder: Path) -> list[Path]:
    return [path for pattern in TEXTS for path in folder.glob(pattern)]
