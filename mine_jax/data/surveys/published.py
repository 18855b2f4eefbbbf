"""Data sets in the layout in which they are published: subjects, areas, sessions and test images that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mine_jax.data.nsd import layout
from mine_jax.data.surveys.found import Found, first_subject, root_and_photos

# Test images of data sets that set none apart.
SHARE = 0.2
_NO_SPLIT = "the data set has no test images of its own: a share of all"


def nsd(paths: Sequence[Path]) -> Found:
    """Surveys the Natural Scenes Dataset, or a phantom in its layout."""
    root, _ = root_and_photos(paths)
    subjects = layout.betas_folder(root, "", "", "")
    found = first_subject(subjects.glob("*"), r"(subj\d+)", root=root, layout="nsddata_betas/ppdata/subj01")
    values, notes = dict(found.values), dict(found.notes)
    spaces = {path.parent.name: path for path in sorted((subjects / values["subject"]).glob("*/betas_*"))}
    if spaces:
        space = next((name for name in ("func1pt8mm", "func1mm") if name in spaces), next(iter(spaces)))
        values |= {"space": space, "beta_version": spaces[space].name}
        notes["space"] = f"found: {', '.join(sorted(spaces))}"
        files = {path.name for path in spaces[space].glob("*betas_session*")}
        notes["sessions"] = f"{len({name.partition('session')[2][:2] for name in files})} found"
        areas = layout.roi_folder(root, values["subject"], space).glob("*.nii.gz")
        if layout.is_surface(space):
            areas = layout.label_folder(root, values["subject"], space).glob("*.mgz")
        names = sorted({path.name.removeprefix("lh.").removeprefix("rh.").split(".")[0] for path in areas})
        labels = sorted({label for name in names for label in layout.ALL_LABELS.get(name, ())})
        notes["roi"] = f"found: {', '.join(names) or 'none'}" + (f"; with {', '.join(labels)}" if labels else "")
        values["roi"] = ["nsdgeneral"] if "nsdgeneral" in names else []
    values["test"] = "shared"
    return Found(values, notes)


def bids(paths: Sequence[Path]) -> Found:
    """Surveys BIDS derivatives."""
    root, photos = root_and_photos(paths)
    found = first_subject(root.glob("sub-*"), r"sub-(\w+)", root=root, layout="sub-01")
    sessions = len(list((root / f"sub-{found.values['subject']}").glob("ses-*")))
    notes = {"sessions": f"{sessions} found", "test": _NO_SPLIT}
    return Found({**found.values, **photos, "test": SHARE}, {**found.notes, **notes})


def laion_fmri(paths: Sequence[Path]) -> Found:
    """Surveys LAION-fMRI."""
    root, photos = root_and_photos(paths)
    folder = root / "derivatives" / "glmsingle-tedana"
    found = first_subject(folder.glob("sub-*"), r"(sub-\w+)", root=root, layout="derivatives/glmsingle-tedana/sub-01")
    subject = found.values["subject"]
    areas = sorted(path.name for path in (root / "derivatives" / "rois" / subject).glob("*") if path.is_dir())
    notes = {
        "roi": f"categories found: {', '.join(areas) or 'none'}",
        "sessions": f"{len(list((folder / subject).glob('ses-*')))} found",
    }
    return Found({**found.values, **photos, "test": "shared"}, {**found.notes, **notes})


def things(paths: Sequence[Path]) -> Found:
    """Surveys THINGS-fMRI."""
    root, photos = root_and_photos(paths)
    tables = list((root / "betas_csv").glob("sub-*_ResponseData.h5"))
    files = tables or (root / "betas_vol").glob("sub-*")
    found = first_subject(files, r"sub-(\d+)", root=root, layout="betas_csv/sub-01_ResponseData.h5 or betas_vol/sub-01")
    form = "tables" if tables else "volumes"
    return Found({**found.values, **photos, "format": form, "test": "shared"}, found.notes)


def algonauts2023(paths: Sequence[Path]) -> Found:
    """Surveys the Algonauts 2023 challenge."""
    root, _ = root_and_photos(paths)
    found = first_subject(root.glob("subj*"), r"(subj\d+)", root=root, layout="subj01")
    masks = (root / found.values["subject"] / "roi_masks").glob("lh.*_fsaverage_space.npy")
    names = sorted({path.name.removeprefix("lh.").removesuffix("_fsaverage_space.npy") for path in masks})
    labels = [label for name in names for label in layout.ALL_LABELS.get(name, ())]
    notes = {"roi": f"found: {', '.join(labels) or 'none'}", "test": _NO_SPLIT}
    return Found({**found.values, "test": SHARE}, {**found.notes, **notes})


def bold5000(paths: Sequence[Path]) -> Found:
    """Surveys BOLD5000."""
    root, photos = root_and_photos(paths)
    second = list(root.rglob("CSI*_GLMbetas-*"))
    files = second or root.rglob("CSI*_ROIs_TR34.*")
    found = first_subject(files, r"(CSI\d)", root=root, layout="CSI1_GLMbetas-* or CSI1_ROIs_TR34.h5, in any folder,")
    form = "rois" if not second or any(path.suffix == ".npy" for path in second) else "volumes"
    values = {"release": 2 if second else 1, "format": form, "test": "shared"}
    return Found({**found.values, **photos, **values}, found.notes)
