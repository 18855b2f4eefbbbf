"""One way in: the configuration names a kind of data set, its reader gives responses and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mine_jax._progress import Progress, shown
from mine_jax.config import DataConfig, NsdConfig, PhantomConfig
from mine_jax.data import algonauts2023, bids, bold5000, folder, laion_fmri, nsd, things
from mine_jax.errors import ConfigError
from mine_jax.types import Responses, Stimuli


class Reader(NamedTuple):
    """How one kind of data set is read; both take the section [data].

    Attributes:
        load: also takes `directory` and `progress`, gives Responses and Stimuli.
        open_stimuli: gives the same Stimuli without reading responses.
        inputs: files and folders whose change makes responses stale.
        images: files and folders of the images; None where they are what the key `images` names.
        expected_shape: gives N and V from headers; None where checking has its own.
        probe: opens all but values and says what it found; None where checking reads the responses, or has its own.
    """

    load: Callable[..., tuple[Responses, Stimuli]]
    open_stimuli: Callable[..., Stimuli]
    inputs: Callable[..., list[Path]]
    expected_shape: Callable[..., tuple[int, int]] | None = None
    images: Callable[..., list[Path]] | None = None
    probe: Callable[..., list[str]] | None = None


def load(
    config: DataConfig, *, directory: str | Path | None = None, progress: Progress | bool = True
) -> tuple[Responses, Stimuli]:
    """Reads responses and images as the configuration says.

    Args:
        config: section [data]; kind "phantom" is read like "nsd", from what was written to `root`.
        directory: where large responses are kept on disk, memory-mapped.
        progress: called with work done and total. True shows a bar on a terminal, False nothing.

    Returns:
        Responses [N, V] and their Stimuli. Which voxels are below `min_noise_ceiling` depends on the rows that
        will be scored: see `with_noise_ceiling` and `with_low_ceiling`.

    Raises:
        MineError: a named error, see `load_nsd` and `load_folder`.
    """
    with shown("data", progress) as report:
        return READERS[config.kind].load(config, directory=directory, progress=report)


def open_stimuli(config: DataConfig) -> Stimuli:
    """Opens the images that `load` would give, without reading responses.

    Args:
        config: section [data].

    Returns:
        Stimuli [N]; hashes are empty.
    """
    return READERS[config.kind].open_stimuli(config)


def inputs(config: DataConfig) -> list[Path]:
    """Names the files and folders whose change makes responses stale.

    Args:
        config: section [data].

    Returns:
        Paths, of which some may not be there.
    """
    test = [Path(config.test)] if isinstance(config.test, str) and Path(config.test).is_file() else []
    return [*READERS[config.kind].inputs(config), *test]


def image_inputs(config: DataConfig) -> list[Path]:
    """Names the files and folders of the images.

    Args:
        config: section [data].

    Returns:
        Paths, of which some may not be there.
    """
    find = READERS[config.kind].images
    if find is not None:
        return find(config)
    named = getattr(config, "images", None)
    return [] if named is None else [Path(named)]


def expected_shape(config: DataConfig) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas.

    Args:
        config: section [data] of a kind whose reader has this function.

    Returns:
        N and V.

    Raises:
        MineError: as `load`.
    """
    count = READERS[config.kind].expected_shape
    assert count is not None
    return count(config)


def probe(config: DataConfig) -> list[str]:
    """Opens everything of a data set but values, for `mine-jax check`.

    Args:
        config: section [data].

    Returns:
        Findings, one sentence each.
    """
    found = READERS[config.kind].probe
    return [] if found is None else found(config)


def _load_nsd(
    config: NsdConfig | PhantomConfig, *, directory: str | Path | None, progress: Progress
) -> tuple[Responses, Stimuli]:
    return nsd.load_nsd(
        _root(config),
        roi=config.roi,
        zscore=config.zscore,
        beta_scale=config.beta_scale,
        axis_order=config.axis_order,
        sphere=getattr(config, "sphere", None),
        directory=directory,
        progress=progress,
        **_nsd_files(config),
    )


def _open_nsd(config: NsdConfig | PhantomConfig) -> Stimuli:
    return nsd.open_nsd_stimuli(_root(config), **_nsd_files(config))


def _root(config: NsdConfig | PhantomConfig) -> str:
    if config.root is None:
        raise ConfigError(f'data: kind = "{config.kind}" needs `root`, the folder that holds nsddata.')
    return config.root


def _nsd_files(config: NsdConfig | PhantomConfig) -> dict[str, Any]:
    """Arguments that say which files of NSD are read."""
    names = ("subject", "space", "beta_version", "beta_format", "sessions")
    return {name: getattr(config, name) for name in names}


def _nsd_inputs(config: NsdConfig | PhantomConfig) -> list[Path]:
    return nsd.inputs(Path(config.root), config) if config.root else []


def _nsd_images(config: NsdConfig | PhantomConfig) -> list[Path]:
    return [nsd.stimuli_file(Path(config.root))] if config.root else []


# A phantom is written in the layout of NSD; without a root it lies in the run, which keeps hashes of its own files.
READERS: dict[str, Reader] = {
    "folder": Reader(folder.load_folder, folder.open_folder_stimuli, folder.inputs, folder.expected_shape),
    "bids": Reader(bids.load_bids, bids.open_bids_stimuli, bids.inputs, bids.expected_shape, probe=bids.probe),
    "laion_fmri": Reader(
        laion_fmri.load_laion,
        laion_fmri.open_laion_stimuli,
        laion_fmri.inputs,
        laion_fmri.expected_shape,
        laion_fmri.images_of,
        laion_fmri.probe,
    ),
    "algonauts2023": Reader(
        algonauts2023.load_algonauts,
        algonauts2023.open_algonauts_stimuli,
        algonauts2023.inputs,
        algonauts2023.expected_shape,
        algonauts2023.images_of,
        algonauts2023.probe,
    ),
    "things": Reader(
        things.load_things, things.open_things_stimuli, things.inputs, things.expected_shape, probe=things.probe
    ),
    "bold5000": Reader(
        bold5000.load_bold5000,
        bold5000.open_bold5000_stimuli,
        bold5000.inputs,
        bold5000.expected_shape,
        probe=bold5000.probe,
    ),
    "nsd": Reader(_load_nsd, _open_nsd, _nsd_inputs, images=_nsd_images),
    "phantom": Reader(_load_nsd, _open_nsd, _nsd_inputs, images=_nsd_images),
}
