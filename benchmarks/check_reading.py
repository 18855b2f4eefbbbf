"""Does reading a session of NSD hold little more than its masked block? A check on files of its sizes.

    python -m benchmarks.check_reading [--spaces func1pt8mm,fsaverage] [--in-memory] [--json FILE]

One session of 750 trials is written as NSD has it and read by `load_nsd`: a volume of 81 x 104 x 83 voxels, of which
15,724 are in the mask, and both hemispheres of fsaverage, all vertices. The block is the masked trials in float32; it
may be held 1.5 times (the averages of images, and the trials as stored, 16 bits each), beside 32 MiB for the work on
512 voxels at once and the areas. Counted are the pages that no file backs. As in a run, what is large lies in files of
a folder; with --in-memory it does not.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import scipy.io

from benchmarks.run import environment
from benchmarks.timing import PeakMemory
from mine_jax import artifacts, data
from mine_jax.data.nsd import layout

SHAPE, N_VOXELS, N_TRIALS, N_VERTICES = (81, 104, 83), 15_724, 750, 163_842
MOST, WORK_BYTES = 1.5, 32 << 20
_BETAS = "betas_fithrf_GLMdenoise_RR"


def write(root: Path, space: str) -> int:
    """Writes one session and what belongs to it; returns the bytes of the masked block."""
    rng = np.random.default_rng(0)
    design = layout.design_file(root)
    design.parent.mkdir(parents=True)
    ids = np.arange(1, 1 + N_TRIALS)[None].astype(float)
    scipy.io.savemat(design, {"masterordering": ids, "subjectim": np.repeat(ids, 8, 0), "sharedix": ids[:, :10]})
    images = layout.stimuli_file(root)
    images.parent.mkdir(parents=True)
    with h5py.File(images, "w") as file:
        file.create_dataset("imgBrick", (N_TRIALS, 8, 8, 3), np.uint8)
    folder = layout.betas_folder(root, "subj01", space, _BETAS)
    folder.mkdir(parents=True)
    if space == "fsaverage":
        labels = layout.label_folder(root, "subj01", space)
        labels.mkdir(parents=True)
        for hemi in ("lh", "rh"):
            ones = np.ones((N_VERTICES, 1, 1), np.int32)
            nibabel.save(nibabel.MGHImage(ones, np.eye(4)), labels / f"{hemi}.nsdgeneral.mgz")
            header = nibabel.MGHImage(np.zeros((1, 1, 1, 1), np.float32), np.eye(4)).header
            header["dims"] = (N_VERTICES, 1, 1, N_TRIALS)
            with (folder / f"{hemi}.betas_session01.mgh").open("wb") as file:
                file.write(header.structarr.tobytes()[:90].ljust(284, b"\0"))
                for _ in range(N_TRIALS):
                    file.write(rng.standard_normal(N_VERTICES, np.float32).astype(">f4").tobytes())
        return 2 * N_VERTICES * N_TRIALS * 4
    rois = layout.roi_folder(root, "subj01", space)
    rois.mkdir(parents=True)
    inside = np.zeros(SHAPE, bool)
    inside[30:60, 20:70, 20:40] = True
    chosen = np.flatnonzero(inside)[:N_VOXELS]
    mask = np.zeros(inside.size, np.int16)
    mask[chosen] = 1
    nibabel.save(nibabel.Nifti1Image(mask.reshape(SHAPE), np.eye(4)), rois / "nsdgeneral.nii.gz")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*SHAPE, N_TRIALS))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    volume = np.zeros(SHAPE, np.int16)
    with gzip.open(folder / "betas_session01.nii.gz", "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(N_TRIALS):
            volume.ravel()[chosen] = rng.integers(-900, 900, N_VOXELS)
            file.write(volume.tobytes(order="F"))
    return N_VOXELS * N_TRIALS * 4


def main() -> None:
    """Writes, reads and prints; exits with 1 where more is held than should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", default="func1pt8mm,fsaverage")
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, is_within = [], True
    for space in arguments.spaces.split(","):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            root = Path(folder) / "nsd"
            block = write(root, space)
            data.open_nsd_stimuli(root, space=space)  # libraries and the tables of the design are no part of it
            directory = None if arguments.in_memory else Path(folder) / "run"
            with PeakMemory() as memory:
                responses, _ = data.load_nsd(root, space=space, directory=directory)
            held = memory.peak["RssAnon"]
            shape = responses.responses.shape
            del responses
        rows.append({"space": space, "responses": shape, "block_mib": block / 2**20, "held_mib": held / 2**20})
        is_within &= held <= MOST * block + WORK_BYTES
        print(f"{space:<12} {shape[0]} x {shape[1]:,}: block {block / 2**20:,.0f} MiB, held {held / 2**20:,.0f} MiB")
    if arguments.json is not None:
        artifacts.write_json(arguments.json, {"environment": environment(), "rows": rows})
    if not is_within:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
