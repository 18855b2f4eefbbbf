"""Opens every input of stage 1 and says what is odd, without heavy computing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silenced, silent
from mine_jax.config import DataConfig, FolderConfig, NsdConfig, PhantomConfig
from mine_jax.data import copies, folder, loading, splits, tables
from mine_jax.data.containers import csv, series, spheres, volumes
from mine_jax.data.noise_ceiling import with_noise_ceiling
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.data.nsd import betas as nsd_betas
from mine_jax.data.nsd import design as nsd_design
from mine_jax.data.nsd import layout, spaces, surface
from mine_jax.data.nsd.betas import Sessions
from mine_jax.data.trials import Rows, Trials, average
from mine_jax.errors import AlignmentError, ConfigError, MineError
from mine_jax.types import Responses, Stimuli, Surface

_N_PROBED, _READ_BLOCK = 16, 64


def check(
    config: DataConfig,
    *,
    seed: int = 0,
    compare: Callable[[Responses, Stimuli], list[str]] = lambda responses, stimuli: [],
    progress: Progress = silent,
) -> list[str]:
    """Checks files, alignment, geometry and ranges of the data section.

    Args:
        config: section [data].
        seed: of the split.
        compare: takes what was read of the responses and the images; returns further findings.
        progress: called while images are read.

    Returns:
        Findings, one sentence each: what was found, and what is odd but usable.

    Raises:
        MineError: a named error for what cannot be used, as `load` raises it.
    """
    if isinstance(config, FolderConfig):
        responses, stimuli = folder.load_folder(config, progress=progress)
        findings = spheres.finding(config.sphere, responses.surface)
    elif isinstance(config, (NsdConfig, PhantomConfig)):
        responses, stimuli, findings = _check_nsd(config)
    else:
        findings = loading.probe(config)
        stimuli = loading.open_stimuli(config)
        responses = _bare(stimuli.image_ids)
    assigned = splits.assign_splits(responses, stimuli, test=config.test, val=config.val, seed=seed)
    if isinstance(config, FolderConfig):
        scored = with_noise_ceiling(responses, assigned == "test")
        findings += _status_findings(splits.with_low_ceiling(scored, min_noise_ceiling=config.min_noise_ceiling))
        findings += [_areas(responses.rois)] if config.rois is not None else []
    counts = [f"{int((assigned == name).sum())} {name}" for name in splits.NAMES]
    findings.append(f"{len(assigned)} images: {', '.join(counts)}")
    few = splits.warning_of_few(assigned)
    findings += [f"warning: {few}"] if few else []
    findings += compare(responses, stimuli)
    if not config.has_photos:
        return [*findings, "no photos: only precomputed tokens can be used"]
    image_ids = stimuli.image_ids.tolist()
    split_of = dict(zip(image_ids, assigned.tolist(), strict=True))
    findings += filter(None, [copies.not_searched(split_of)])
    if len(split_of) > copies.MOST_PHOTOS:
        return findings
    thumbnails = copies.Thumbnails(stimuli)
    for start in range(0, len(image_ids), _READ_BLOCK):
        thumbnails.read(image_ids[start : start + _READ_BLOCK])
        progress(start, len(image_ids))
    warning = copies.warning_of_copies(copies.find_copies(thumbnails.kept, split_of, progress=progress))
    return findings + ([f"warning: {warning}"] if warning else [])


def expected_shape(config: DataConfig) -> tuple[int, int] | None:
    """Counts images and voxels from headers, tables, masks and areas.

    Reads no responses.

    Args:
        config: section [data].

    Returns:
        N and V as `load` will give them; at most, as it leaves out sessions that do not vary. Voxels that will be
        found to be constant or to hold NaN count. None where files are missing, damaged or do not fit.
    """
    counted = _counted(config)
    return None if isinstance(counted, MineError) or not all(counted) else counted


def why_not_read(config: DataConfig) -> str:
    """Says which file of the data section is missing, or does not fit.

    Args:
        config: section [data].

    Returns:
        The first error, with all other files that are not there; "" where `expected_shape` finds no error.
    """
    error = _counted(config)
    if not isinstance(error, MineError):
        return ""
    try:
        named = {str(path) for path in loading.inputs(config) if not path.exists()}
    except MineError:
        named = set()
    also = sorted(path for path in named if path not in str(error))
    return f"{error} Not there, either: {', '.join(also)}." if also else str(error)


def _counted(config: DataConfig) -> tuple[int, int] | MineError:
    try:
        with silenced("mine_jax"):  # the data stage warns again
            if isinstance(config, (NsdConfig, PhantomConfig)):
                opened = _open_nsd(config)
                shown = opened.design.images[nsd_design.trial_positions(opened.sessions)]
                return len(np.unique(shown)), len(opened.voxel_ids)
            return loading.expected_shape(config)
    except MineError as error:
        return error


class _Nsd(NamedTuple):
    """What is opened of NSD before any response: `ncsnr` is None where there is none."""

    root: Path
    design: nsd_design.Design
    areas: nsd_areas.Areas
    betas: Path
    sessions: Sessions
    ncsnr: np.ndarray | None
    voxel_ids: np.ndarray


def _open_nsd(config: NsdConfig | PhantomConfig) -> _Nsd:
    if config.root is None:
        raise ConfigError(f'data: kind = "{config.kind}" needs `root`, the folder that holds nsddata.')
    root = Path(config.root)
    design = nsd_design.read_design(root, subject=config.subject)
    areas = spaces.read_areas(root, subject=config.subject, space=config.space)
    betas = layout.betas_folder(root, config.subject, config.space, config.beta_version)
    sessions = spaces.find_sessions(
        betas,
        space=config.space,
        n_design_trials=len(design.images),
        beta_format=config.beta_format,
        limit=config.sessions,
    )
    ncsnr = spaces.read_ncsnr(betas, areas)
    return _Nsd(root, design, areas, betas, sessions, ncsnr, nsd_areas.select_voxels(areas, config.roi, ncsnr))


def _check_nsd(config: NsdConfig | PhantomConfig) -> tuple[Responses, Stimuli, list[str]]:
    """Opens what `load_nsd` would read; responses are those of a few voxels, or none."""
    root, design, areas, betas, sessions, ncsnr, voxel_ids = _open_nsd(config)
    findings = [f"{config.subject}: {len(sessions.numbers)} sessions ({sessions.beta_format}), {len(voxel_ids)} voxels"]
    named = getattr(config, "sphere", None)  # a phantom has none
    findings += spheres.finding(layout.spheres_path(root, config.subject, config.space, named=named), areas.space)
    if sessions.missing:
        findings.append(f"warning: sessions {', '.join(map(str, sessions.missing))} are not there")
    if ncsnr is None:
        findings.append(f"note: no ncsnr in {betas}; the noise ceiling comes from repeats")
    elif np.isnan(ncsnr[voxel_ids]).any():
        findings.append(f"{int(np.isnan(ncsnr[voxel_ids]).sum())} voxels hold no valid data (ncsnr is NaN)")
    findings.append(_areas(nsd_areas.area_names(areas, voxel_ids)))
    probed = np.unique(voxel_ids[np.linspace(0, len(voxel_ids) - 1, _N_PROBED).astype(int)])
    of_probed = _probe_betas(sessions, probed, areas, config)
    findings += _check_info(root, config.subject, design)
    shown = design.images[nsd_design.trial_positions(sessions)]
    stimuli = nsd_design.stimuli(root, np.unique(shown).astype(str), design)
    if of_probed is None:
        return _bare(stimuli.image_ids), stimuli, findings
    names = tuple(str(number) for number in sessions.numbers)
    rows = Rows(shown.astype(str), np.repeat(np.arange(len(names)), sessions.n_trials), names)
    responses = average(Trials(lambda block: of_probed[block], probed, rows, source=str(sessions.folder)))
    return responses, stimuli, findings


def _probe_betas(
    sessions: Sessions, probed: np.ndarray, areas: nsd_areas.Areas, config: NsdConfig | PhantomConfig
) -> np.ndarray | None:
    """Reads some voxels [v, T] of every HDF5 session; of others headers alone."""
    if isinstance(areas.space, Surface):
        surface.open_sessions(sessions, areas.space)
        return None
    if sessions.beta_format == "nifti":
        for file, n_trials in zip(sessions.files, sessions.n_trials, strict=True):
            header = volumes.read_header(file)
            series.check_volumes(str(file), header.volume, reference="the ROI files", expected=areas.space)
            if (header.shape[3] if len(header.shape) == 4 else 1) != n_trials:
                raise AlignmentError(f"{file} has shape {header.shape}, but the design says {n_trials} trials.")
        return None
    read = nsd_betas.column_reader(sessions, voxel_ids=probed, volume=areas.space, axis_order=config.axis_order)
    betas = []
    for session, file in enumerate(sessions.files):
        betas.append(read(session, slice(None)))
        if config.beta_scale == "auto":
            nsd_betas.check_percent(betas[-1], source=str(file))
    return np.concatenate([part.astype(np.float64) for part in betas], axis=1)


def _check_info(root: Path, subject: str, design: nsd_design.Design) -> list[str]:
    """Compares the design with the table of images, which lists trials by image."""
    path = layout.stim_info_file(root)
    if not path.is_file():
        return [f"note: no {path.name}, so the design was not compared with it"]
    columns = [f"subject{int(subject[-2:])}_rep{repeat}" for repeat in range(3)]
    if not {"nsdId", *columns} <= set(csv.read_header(path)):
        return [f"note: {path.name} lacks {', '.join(columns)}, so the design was not compared with it"]
    table = csv.read_columns(path, ("nsdId", *columns))
    trials = np.stack([tables.whole_numbers(table[name], path) for name in columns], 1)
    ids = np.broadcast_to(tables.whole_numbers(table["nsdId"], path)[:, None], trials.shape)
    shown = (trials > 0) & (trials <= len(design.images))
    agree = design.images[trials[shown] - 1] == ids[shown]
    if agree.all():
        return []
    return [f"warning: {path.name} and nsd_expdesign.mat disagree on {int((~agree).sum())} of {agree.size} trials"]


def _status_findings(responses: Responses) -> list[str]:
    """Counts of voxels by status, and the typical noise ceiling."""
    names, counts = np.unique(responses.status, return_counts=True)
    findings = [f"{len(responses.status)} voxels: " + ", ".join(f"{c} {n}" for n, c in zip(names, counts, strict=True))]
    ceiling = responses.noise_ceiling[np.isfinite(responses.noise_ceiling)]
    findings.append(
        f"median noise ceiling of the test images {np.median(ceiling):.2f}"
        if len(ceiling)
        else "noise ceiling unknown: no repeats, and data.noise_ceiling names no file of known ones"
    )
    return findings


def _areas(rois: np.ndarray) -> str:
    """Counts the voxels of each area in names [V] that are joined with ";"."""
    names, counts = np.unique([name for text in rois.tolist() for name in text.split(";") if name], return_counts=True)
    return "areas: " + (", ".join(f"{n} {c}" for n, c in zip(names, counts, strict=True)) or "none labelled")


def _bare(image_ids: np.ndarray) -> Responses:
    """Responses without voxels, for rules that look at images only."""
    nothing, text = np.zeros(0), np.zeros(0, str)
    responses = np.zeros((len(image_ids), 0), np.float32)
    repeats = np.ones(len(image_ids), np.int64)
    return Responses(responses, image_ids, repeats, nothing.astype(np.int64), text, nothing, nothing, text)
