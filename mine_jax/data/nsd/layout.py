"""Where the Natural Scenes Dataset keeps what: names of files, codes and labels; reads nothing.

Source: NSD data manual, https://cvnlab.slite.page/p/CT9Fwl4_hc/NSD-Data-Manual
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mine_jax.data.containers import spheres

TRIALS_PER_SESSION = 750
# Integer betas are percent signal change times this.
BETA_SCALE = 300.0
SUFFIXES = {"hdf5": ".hdf5", "nifti": ".nii.gz", "mgh": ".mgh"}
SURFACES = ("fsaverage", "nativesurface")
# Code -1 is "not cortex", 0 "cortex without a label", 1.. these names.
ROI_LABELS: dict[str, tuple[str, ...]] = {
    "nsdgeneral": ("nsdgeneral",),
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
}
# And of collections that are not drawn for categories.
ALL_LABELS: dict[str, tuple[str, ...]] = {
    **ROI_LABELS,
    "prf-eccrois": ("ecc0pt5", "ecc1", "ecc2", "ecc4", "ecc4+"),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
}


def betas_folder(root: Path, subject: str, space: str, beta_version: str) -> Path:
    """Returns the folder of a subject's single-trial betas."""
    return root / "nsddata_betas" / "ppdata" / subject / space / beta_version


def is_surface(space: str) -> bool:
    """Says whether a space is one of the two surfaces."""
    return space in SURFACES


def session_file(folder: Path, session: int, beta_format: str, prefix: str = "") -> Path:
    """Returns the betas of one session, counted from 1; on surfaces of the hemisphere that the prefix names."""
    return folder / f"{prefix}betas_session{session:02d}{SUFFIXES[beta_format]}"


def label_folder(root: Path, subject: str, space: str) -> Path:
    """Returns the folder of labels on a surface, and of the tables of their names."""
    return root / "nsddata" / "freesurfer" / ("fsaverage" if space == "fsaverage" else subject) / "label"


def spheres_path(root: Path, subject: str, space: str, *, named: str | None = None) -> str | None:
    """Returns the spheres of a surface, `{hemi}` in the name: those that are named, or those in nsddata/freesurfer.

    The registered sphere follows a template, so the other keeps distances better. None in volumes, and where
    there are none.
    """
    if named is not None:
        return named
    if not is_surface(space):
        return None
    folder = label_folder(root, subject, space).parent / "surf"
    for name in ("sphere", "sphere.reg"):
        if all((folder / f"{hemi}.{name}").is_file() for hemi in ("lh", "rh")):
            return f"{folder}/{{hemi}}.{name}"
    return None


def roi_folder(root: Path, subject: str, space: str) -> Path:
    """Returns the folder of a subject's ROI volumes."""
    return root / "nsddata" / "ppdata" / subject / space / "roi"


def roi_file(root: Path, subject: str, space: str, name: str) -> Path:
    """Returns one ROI volume of both hemispheres."""
    return roi_folder(root, subject, space) / f"{name}.nii.gz"


def ctab_file(root: Path, subject: str, name: str) -> Path:
    """Returns the table of label names of one ROI collection."""
    return root / "nsddata" / "freesurfer" / subject / "label" / f"{name}.mgz.ctab"


def design_file(root: Path) -> Path:
    """Returns the experimental design: which image was shown when."""
    return root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"


def stim_info_file(root: Path) -> Path:
    """Returns the table of all images."""
    return root / "nsddata" / "experiments" / "nsd" / "nsd_stim_info_merged.csv"


def stimuli_file(root: Path) -> Path:
    """Returns the images themselves."""
    return root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"


def inputs(root: Path, config: Any) -> list[Path]:
    """Returns what responses are made from: betas, areas with their labels, the design, spheres of surfaces."""
    labels = label_folder(root, config.subject, config.space)
    sphere = spheres_path(root, config.subject, config.space, named=getattr(config, "sphere", None))
    return [
        betas_folder(root, config.subject, config.space, config.beta_version),
        *([] if is_surface(config.space) else [roi_folder(root, config.subject, config.space)]),
        *sorted(labels.glob("*.mgz*" if is_surface(config.space) else "*.ctab")),
        design_file(root),
        *spheres.files_of(sphere),
    ]
