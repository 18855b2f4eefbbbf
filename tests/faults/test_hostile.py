"""F-100 and the security policy: files that try to reach further than their values."""

import io
import subprocess
import sys
import textwrap

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import errors
from mine_jax.data import images
from mine_jax.data.containers import hdf5, volumes

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n%%EOF\n"


def test_other_formats_behind_the_suffix_of_a_photo_are_not_parsed(monkeypatch):
    """An EPS named .png would start Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **named: pytest.fail("started Ghostscript"))
    for content in (EPS, b"P6 8 8 255 " + bytes(192)):
        with pytest.raises(errors.DataError, match="not a readable photo"):
            images.decode(content)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats_of_photos_are_read(form):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (255, 0, 0)).save(buffer, format=form)
    pixels = images.decode(buffer.getvalue())
    assert pixels.shape == (6, 8, 3) and pixels[..., 0].mean() > 200 and pixels[..., 1].mean() < 60


@pytest.mark.parametrize("how", ["external", "link", "virtual"])
def test_hdf5_that_keeps_values_in_other_files_is_refused(tmp_path, how):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("deep")
        if how == "external":
            group.create_dataset("x", (8,), "f8", external=[(str(tmp_path / "secret"), 0, 64)])
        elif how == "link":
            group["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        else:
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(4,))
            group.create_virtual_dataset("x", layout)
    with pytest.raises(errors.DataError, match="in other files"), hdf5.opened(tmp_path / "a.h5"):
        pass
    with hdf5.opened(tmp_path / "other.h5") as file:
        assert file["x"][0] == 1


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        (lambda file: file.create_dataset("x", (1 << 40,) * 3, "f4", chunks=(8,) * 3), errors.DataError, "declares"),
        (lambda file: file.create_dataset("x", (3,), [("a", "i2"), ("b", "f4")]), errors.DataError, "hold numbers"),
        (lambda file: file.create_dataset("x", data=h5py.Empty("f4")), errors.DataError, "hold numbers"),
        (lambda file: file.update(x=np.dtype("f8")), errors.DataError, "hold numbers"),
        (lambda file: file.create_group("x"), errors.DataError, "is a group"),
        (lambda file: file.update(x=h5py.SoftLink("/nowhere")), errors.DataError, "must hold a dataset"),
        (lambda file: file.update(x=h5py.SoftLink("/x")), errors.IntegrityError, "damaged"),
    ],
)
def test_hdf5_of_other_types_and_sizes_is_named(tmp_path, how, error, words):
    """F-22, F-100: no such file allocates what it declares."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        how(file)
    with pytest.raises(error, match=words), hdf5.opened(tmp_path / "a.h5") as file:
        hdf5.numbers(file, "x", tmp_path / "a.h5")


def test_hdf5_whose_groups_lie_in_each_other_is_read(tmp_path):
    """F-96: 40 groups, each with two names in the one above it and a way back, have 2^40 paths."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file
        for _ in range(40):
            below = group.create_group("a")
            group["b"], below["up"] = below, file
            group = below
        for _ in range(2000):
            group = group.create_group("deep")
        file["x"] = np.ones(3)
    with hdf5.opened(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(hdf5.numbers(file, "x", "a.h5"), np.ones(3))


def test_a_header_of_huge_size_allocates_nothing(tmp_path):
    """F-100: a mask of 2000^3 voxels in a file of 400 bytes."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((2000, 2000, 2000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    (tmp_path / "mask.nii").write_bytes(header.binaryblock + bytes(4 + 48))
    script = textwrap.dedent(
        """
        import re, sys
        from pathlib import Path
        from mine_jax import errors
        from mine_jax.data.containers import volumes
        try:
            volumes.read_series(Path(sys.argv[1]))
        except errors.IntegrityError as error:
            print(error)
        # not getrusage: its peak counts that of the process that started this one
        print("MiB", int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "mask.nii")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cut short" in said and int(said.split()[-1]) < 1500


def test_whole_volumes_and_chosen_voxels_agree(tmp_path):
    stored = np.random.default_rng(0).integers(-9, 9, (3, 4, 5, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii.gz")
    whole, _ = volumes.read_series(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(whole, stored.reshape(-1, 2))
    some, _ = volumes.read_series(tmp_path / "a.nii.gz", voxel_ids=np.array([7, 31]))
    np.testing.assert_array_equal(some, stored.reshape(-1, 2)[[7, 31]])
