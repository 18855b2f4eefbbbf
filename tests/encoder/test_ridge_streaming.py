"""Responses that stay in files: memory-mapped or HDF5, in either order, results written to files."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mine_jax.encoder import ridge

PENALTIES = np.logspace(0, 4, 5)
N, F, V = 90, 6, 70
# Small enough for several slabs of several chunks.
STREAMING = {"voxel_chunk": 8, "read_bytes": 24 * 4 * N}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((N, F)).astype(np.float32)
    noise = 2 * rng.standard_normal((N, V))
    return features, (features @ rng.standard_normal((F, V)) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def expected(data):
    return ridge.solve(*data, PENALTIES, folds=shuffled())


def shuffled():
    return np.array_split(np.random.default_rng(1).permutation(N), 5)


def memory_mapped(path, array, mode="r"):
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


def hdf5(path, array):
    h5py.File(path, "w").create_dataset("responses", data=array)
    return h5py.File(path)["responses"]


@pytest.mark.parametrize("voxels_first", [False, True])
@pytest.mark.parametrize(
    "stored",
    [
        lambda path, array: memory_mapped(path / "a.npy", array),
        lambda path, array: memory_mapped(path / "a.npy", array, "c"),
        lambda path, array: memory_mapped(path / "a.npy", np.ascontiguousarray(array.T)).T,
        lambda path, array: hdf5(path / "a.h5", array),
        lambda path, array: hdf5(path / "a.h5", array.astype(np.float16).astype(np.float64)),
    ],
    ids=["memory_mapped", "private_copy", "transposed", "hdf5", "hdf5_float64"],
)
def test_files_give_the_same(tmp_path, data, expected, stored, voxels_first):
    features, responses = data
    source = stored(tmp_path, responses.T if voxels_first else responses)
    got = ridge.solve(features, source, PENALTIES, folds=shuffled(), voxels_first=voxels_first, **STREAMING)
    rounded = source.dtype == np.float64
    np.testing.assert_array_equal(got.penalty, expected.penalty)
    np.testing.assert_allclose(got.coef, expected.coef, atol=2e-3 if rounded else 1e-5)
    np.testing.assert_allclose(got.intercept, expected.intercept, atol=2e-3 if rounded else 1e-5)


def test_coefficients_are_written_into_files(tmp_path, data, expected):
    features, responses = data
    path = tmp_path / "coef.npy"
    np.save(path, np.zeros((V, F), np.float32))
    mapped = np.load(path, mmap_mode="r+")
    with h5py.File(tmp_path / "coef.h5", "w") as file:
        stored = file.create_dataset("coef", (F, V), np.float32)
        for out in (mapped.T, stored):
            got = ridge.solve(features, responses, PENALTIES, folds=shuffled(), voxel_chunk=8, out=out)
            assert got.coef is out
        np.testing.assert_allclose(stored[:], expected.coef, atol=1e-5)
    del mapped, got, out
    np.testing.assert_allclose(np.load(path).T, expected.coef, atol=1e-5)


@pytest.mark.parametrize("voxels_first", [False, True])
def test_missing_responses_and_weights_in_files(tmp_path, data, voxels_first):
    """Groups that lie in several slabs, and weights that are streamed beside the responses."""
    features, responses = data
    responses, weights = responses.copy(), np.ones((N, V), np.float32)
    responses[:7, ::3] = np.nan
    weights[20:, 5] = 0.5
    options = {"folds": shuffled(), "mask_missing": True}
    expected = ridge.solve(features, responses, PENALTIES, weights=weights, voxel_chunk=8, **options)
    if voxels_first:
        responses, weights = responses.T, weights.T
    sources = [hdf5(tmp_path / f"{name}.h5", x) for name, x in (("responses", responses), ("weights", weights))]
    got = ridge.solve(
        features, sources[0], PENALTIES, weights=sources[1], voxels_first=voxels_first, **STREAMING, **options
    )
    np.testing.assert_array_equal(got.penalty, expected.penalty)
    np.testing.assert_allclose(got.coef, expected.coef, atol=1e-5)


# RLIMIT_DATA, not RLIMIT_AS: the address space also counts mapped files and what jax reserves without using it.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from mine_jax.encoder import ridge

directory = Path(sys.argv[1])

def kilobytes(path, below, name):
    lines = iter(Path(path).read_text().splitlines())
    next(line for line in lines if below in line)
    return int(next(line for line in lines if line.startswith(name)).split()[1])

features, penalties = np.load(directory / "features.npy"), np.logspace(0, 4, 5)
responses = np.load(directory / "responses.npy", mmap_mode="r")
out = np.lib.format.open_memmap(directory / "coef.npy", "w+", np.float32, (64, responses.shape[1]))
options = {"selection": "gcv", "voxel_chunk": 512, "read_bytes": 1 << 22}
ridge.solve(features, responses[:, :1024], penalties, out=out[:, :1024], **options)  # compiles
limit = 1024 * kilobytes("/proc/self/status", "Name:", "VmData:") + 3 * responses.nbytes // 4
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
solution = ridge.solve(features, responses, penalties, out=out, **options)
held = 1024 * kilobytes("/proc/self/smaps", "responses.npy", "Rss:")
assert held < responses.nbytes // 8, f"{held} bytes of the file are kept"
np.save(directory / "penalty.npy", solution.penalty)
try:
    np.array(responses)
except MemoryError:
    print("too large")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_memory_is_bounded(tmp_path):
    """Responses of 80 MB, of which three quarters are more than may be in memory (F-81)."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((1000, 64)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    responses = np.lib.format.open_memmap(tmp_path / "responses.npy", "w+", np.float32, (1000, 20_000))
    planted = rng.standard_normal((64, 20_000)).astype(np.float32)
    responses[:] = features @ planted + rng.standard_normal((1000, 20_000), dtype=np.float32)
    one_heap = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # else every thread reserves a heap of its own
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, env=one_heap
    )
    assert result.stdout.split() == ["too", "large"], result.stderr
    coef = np.load(tmp_path / "coef.npy")
    assert np.abs(coef - planted).max() < 0.3
    some = slice(19_000, 19_512)
    expected = ridge.solve(features, responses[:, some], np.logspace(0, 4, 5), selection="gcv")
    np.testing.assert_array_equal(np.load(tmp_path / "penalty.npy")[some], expected.penalty)
    np.testing.assert_allclose(coef[:, some], expected.coef, atol=1e-5)
