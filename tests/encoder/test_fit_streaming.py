"""Fits and scores from responses that stay in their file: the same numbers, in bounded memory."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mine_jax import encoder, statistics
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder import blocks, targets
from mine_jax.memory import rows
from mine_jax.memory.rows import ChosenRows
from mine_jax.types import STATUSES

CONFIGS = {
    "query": QueryConfig(width=4, heads=2, position_order=2, batch_size=16, epochs=1),
    "shared": QueryConfig(width=4, heads=2, position_order=2, batch_size=16, epochs=1, trunk="shared"),
    "ridge": RidgeConfig(folds=3, penalties=6),
    "masked": RidgeConfig(folds=3, penalties=6, missing="mask"),
}
N, V = 60, 9


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Responses of 60 images in a file: one voxel lacks a response, one does not vary."""
    rng = np.random.default_rng(2)
    states = rng.standard_normal((N, 16, 6)).astype(np.float32)
    signal = states.mean(1) @ rng.standard_normal((6, V)) + np.tanh(states[:, 3, :1])
    responses = (signal + 0.5 * rng.standard_normal((N, V)) + 2).astype(np.float32)
    responses[6, 1], responses[:, 4] = np.nan, 3
    path = tmp_path_factory.mktemp("stored") / "responses.npy"
    np.save(path, responses)
    return states, responses, path


def splits(make, stored, *, mapped):
    """Training, validation and test images of a file, or of an array."""
    states, responses, path = stored
    whole = make.split(make.tokens(N), responses, voxel_ids=np.arange(V) * 5)
    tokens = dataclasses.replace(whole.tokens, tokens=states)
    responses = np.load(path, mmap_mode="r") if mapped else responses
    whole = dataclasses.replace(
        whole, tokens=tokens, responses=dataclasses.replace(whole.responses, responses=responses)
    )
    part = np.arange(N) % 5
    return [
        dataclasses.replace(whole, tokens=whole.tokens.take_images(rows), responses=whole.responses.take_images(rows))
        for rows in (part > 1, part == 1, part == 0)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_files_and_blocks_change_nothing(make, stored, monkeypatch, name):
    """Memory-mapped, and read in blocks of any size: parameters, status and scores are equal."""

    def made(*, mapped):
        train, val, test = splits(make, stored, mapped=mapped)
        assert isinstance(train.responses.responses, ChosenRows) == mapped
        key = jax.random.key(0)
        fitted = encoder.fit(train, key=key, validation=val, config=CONFIGS[name], voxel_chunk=3)
        return fitted, encoder.score(fitted, test)

    expected, expected_scores = made(mapped=False)
    names = [STATUSES[code] for code in expected.status]
    assert names.count("ok") == (8 if name == "masked" else 7) and names[4] == "constant"
    for read_bytes in (1, 4 * N * 7):
        for module, knob in ((targets, "READ_BYTES"), (rows, "PART_BYTES"), (statistics, "BLOCK_BYTES")):
            monkeypatch.setattr(module, knob, read_bytes)
        monkeypatch.setattr(rows, "AROUND_BYTES", 1)
        monkeypatch.setattr(targets, "COLUMNS", max(1, read_bytes >> 9))
        got, scores = made(mapped=True)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
        for field in ("r2", "r", "status"):
            np.testing.assert_array_equal(getattr(scores, field), getattr(expected_scores, field))


def test_blocks_of_scores_change_nothing(make, stored, monkeypatch):
    """Predictions of other numbers of voxels at once round differently, and by no more than that."""
    train, val, test = splits(make, stored, mapped=True)
    fitted = encoder.fit(train, key=jax.random.key(0), validation=val, config=CONFIGS["ridge"])
    expected = encoder.score(fitted, test)
    measured, predicted = np.asarray(test.responses.responses), encoder.predict(fitted, test.tokens)
    usable = fitted.status == 0
    np.testing.assert_array_equal(expected.r2[usable], statistics.r2(measured[:, usable], predicted[:, usable]))
    for block_bytes in (1, 4 * 12 * 4):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        got = encoder.score(fitted, test)
        np.testing.assert_allclose(got.r2, expected.r2, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.r, expected.r, rtol=0, atol=1e-6)


# RLIMIT_DATA, not RLIMIT_AS: the address space also counts mapped files and what jax reserves without using it.
LIMITED = """
import resource, sys
from pathlib import Path
import jax, numpy as np
from mine_jax import data, encoder
from mine_jax.config import RidgeConfig
from mine_jax.encoder import blocks, targets
from mine_jax.types import ImageTokens, Responses

directory = Path(sys.argv[1])
targets.READ_BYTES = blocks.BLOCK_BYTES = 1 << 23

def kilobytes(path, below, name):
    lines = iter(Path(path).read_text().splitlines())
    next(line for line in lines if below in line)
    return int(next(line for line in lines if line.startswith(name)).split()[1])

def splits(n_voxels):
    values = np.load(directory / "responses.npy", mmap_mode="r")[:, :n_voxels]
    ids, unknown = np.arange(len(values)).astype(str), np.full(values.shape[1], np.nan)
    responses = Responses(values, ids, np.ones(len(ids), int), np.arange(values.shape[1]),
                          np.full(values.shape[1], "ok"), unknown, unknown, np.full(values.shape[1], ""))
    aligned = data.align(responses, ImageTokens(np.load(directory / "tokens.npy"), ids))
    part = np.array(["train", "val", "test", "train"])[np.arange(len(ids)) % 4]
    return [data.split_rows(aligned, part, names=name) for name in ("train", "val", "test")]

def fitted(train, val, test):
    config = RidgeConfig(selection="gcv", penalties=5)
    made = encoder.fit(train, key=jax.random.key(0), validation=val, config=config)
    return made, encoder.score(made, test)

fitted(*splits(2048))  # compiles
size = (directory / "responses.npy").stat().st_size
limit = 1024 * kilobytes("/proc/self/status", "Name:", "VmData:") + size // 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
whole = splits(None)
encoders, scores = fitted(*whole)
held = 1024 * kilobytes("/proc/self/smaps", "responses.npy", "Rss:")
assert held < size // 8, f"{held} bytes of the file are kept"
np.savez(directory / "made.npz", r2=scores.r2, status=encoders.status, **encoders.per_voxel)
try:
    np.array(np.load(directory / "responses.npy", mmap_mode="r"))
except MemoryError:
    print("too large")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_memory_is_bounded(tmp_path):
    """Responses of 160 MB, of which half is more than may be in memory, through the ordinary way (F-81)."""
    rng = np.random.default_rng(2)
    n_images, n_voxels, width = 1000, 40_000, 16
    tokens = rng.standard_normal((n_images, 1, width), dtype=np.float32)
    planted = rng.standard_normal((n_voxels, width), dtype=np.float32)
    np.save(tmp_path / "tokens.npy", tokens)
    responses = np.lib.format.open_memmap(tmp_path / "responses.npy", "w+", np.float32, (n_images, n_voxels))
    responses[:] = tokens[:, 0] @ planted.T + rng.standard_normal((n_images, n_voxels), dtype=np.float32)
    responses[3, ::100] = np.nan
    responses.flush()
    one_heap = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # else every thread reserves a heap of its own
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=one_heap)
    assert result.stdout.split() == ["too", "large"], result.stderr
    made = np.load(tmp_path / "made.npz")
    usable = np.arange(n_voxels) % 100 > 0
    np.testing.assert_array_equal(made["status"] == STATUSES.index("ok"), usable)
    assert np.abs(made["coef"] - planted)[usable].max() < 0.3 and not made["coef"][~usable].any()
    assert np.isnan(made["r2"][~usable]).all() and np.nanmin(made["r2"]) > 0.5
