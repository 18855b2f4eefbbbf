"""Files of a run: what is saved comes back, damage is noticed, nothing is half written."""

import dataclasses
import errno
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest

from mine_jax import artifacts, errors, memory, types

V, N, P, D, K, W, L = 3, 4, 6, 5, 2, 7, 2
generator = np.random.default_rng(0)
IDS = np.array(["0", "72999", "é ü", "img.png"])
VOXELS = np.array([0, 5, 2**40])


def floats(*shape):
    return generator.standard_normal(shape).astype(np.float32)


def texts(*shape):
    return np.full(shape, "a sentence, with\ttab")


VALUES = [
    types.Responses(
        responses=floats(N, V),
        image_ids=IDS,
        n_repeats=np.array([3, 3, 2, 1]),
        voxel_ids=VOXELS,
        status=np.array(["ok", "constant", "ok"]),
        ncsnr=np.array([0.5, np.nan, 1.0]),
        noise_ceiling=np.array([0.2, np.nan, 0.7]),
        rois=np.array(["FFA;V1", "", "PPA"]),
        indices=np.arange(9).reshape(3, 3),
        volume=types.Volume((4, 5, 6), np.eye(4)),
        subject="subj01",
    ),
    types.ImageTokens(floats(N, P, D).astype(ml_dtypes.bfloat16), IDS, None, (2, 3), -1, "phantom"),
    types.ImageTokens(floats(N, P, D).astype(np.float16), IDS, np.ones((N, P), bool)),
    types.Lens(np.array(["face", "house"]), floats(2, D), floats(2), projection=floats(D, D), normalize=True),
    types.Scores(VOXELS, *(floats(3),) * 4, 10, 4, np.array(["ok", "constant", "n_test<2"]), floats(3)),
    types.Attributions(VOXELS, np.tile(IDS, (V, 1)), floats(V, N, P), floats(V, N), floats(V, N), floats(V, N)),
    types.CriticalTokens(VOXELS, np.tile(IDS, (V, 1)), np.zeros((V, N, K), np.int32), floats(V, N, K)),
    types.Faithfulness(
        floats(V, N),
        np.full((V, N), -1, np.int32),
        np.array([1, 2]),
        {"ig": floats(V, N, 2)},
        {"random": floats(V, N, 2)},
    ),
    types.Descriptions(
        VOXELS,
        np.tile(IDS, (V, 1)),
        np.array(["face"] * W),
        np.zeros((V, N, L), np.int32),
        floats(V, N, L),
        np.ones((V, N, L), np.int32),
        K,
    ),
    types.Profiles(
        voxel_ids=VOXELS,
        words=np.array(["face"] * W),
        word_ids=np.zeros((V, L), np.int32),
        **{name: floats(V, L) for name in ("weights", "low", "high", "log_odds")},
        distribution=types.SparseRows(np.array([0, 1, 1, 2]), np.array([0, 1], np.int32), floats(2), W),
        halves=(memory.empty_rows(V, W), memory.sparse_rows(floats(V, W))),
        is_named=np.ones((V, L), bool),
        n_images=np.ones(V, np.int32),
        **{name: floats(V) for name in ("faithfulness", "reliability", "r_measured")},
        **{name: {"predicted": floats(V), "words": floats(V)} for name in ("effects", "p_values", "q_values")},
        claims=np.array(["words", "none", "localised"]),
        reasons=np.array(["", "low r2", ""]),
    ),
    types.Responses(
        responses=floats(N, V),
        image_ids=IDS,
        n_repeats=np.ones(4, int),
        voxel_ids=np.array([0, 5, 12]),
        status=np.array(["ok", "ok", "ok"]),
        ncsnr=np.ones(3),
        noise_ceiling=np.ones(3),
        rois=np.array(["FFA", "", "PPA"]),
        surface=types.Surface("fsaverage", (10, 9)),
        sphere=floats(3, 3),
    ),
]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, types.Volume):
        return one.shape == other.shape and same(one.affine, other.affine)
    if isinstance(one, types.SparseRows):
        return one.width == other.width and all(
            same(getattr(one, n), getattr(other, n)) for n in ("starts", "columns", "values")
        )
    if isinstance(one, tuple) and one and isinstance(one[0], types.SparseRows):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "dtype"):
        as_bytes = one.dtype.kind not in "U"
        return one.shape == other.shape and (
            one.dtype == other.dtype and np.asarray(one).tobytes() == np.asarray(other).tobytes()
            if as_bytes
            else one.tolist() == other.tolist()
        )
    return one == other and type(one) is type(other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_roundtrip(value, tmp_path):
    """F-79: paths with spaces, and moved."""
    directory = tmp_path / "with space é"
    artifacts.save(value, directory)
    directory = directory.rename(tmp_path / "moved")
    loaded = artifacts.load(directory)
    assert type(loaded) is type(value)
    for field in dataclasses.fields(value):
        assert same(getattr(value, field.name), getattr(loaded, field.name)), field.name


@pytest.mark.parametrize("folder", ["encoder", "runs [draft]/a*/encoder"])
def test_roundtrip_of_encoders(tmp_path, folder):
    """F-37: a voxel's id beyond 32 bits. The store takes brackets in a path for a pattern."""
    encoders = types.Encoders(
        shared={"projection": floats(D, 2)},
        per_voxel={"query": floats(V, 2), "bias": floats(V)},
        baseline=floats(P, D),
        voxel_ids=VOXELS,
        status=np.zeros(V, np.int8),
        architecture=types.Architecture("query", grid=(2, 3), pool=2),
    )
    artifacts.save(encoders, tmp_path / folder)
    loaded = artifacts.load(tmp_path / folder)
    assert loaded.architecture == encoders.architecture
    assert same(dict(encoders.per_voxel), {k: np.asarray(v) for k, v in loaded.per_voxel.items()})
    assert same(dict(encoders.shared), {k: np.asarray(v) for k, v in loaded.shared.items()})
    assert np.asarray(loaded.voxel_ids).tolist() == VOXELS.tolist()
    assert same(encoders.baseline, np.asarray(loaded.baseline))


def test_one_flipped_bit_is_noticed_everywhere(tmp_path):
    """F-70: any file."""
    directory = artifacts.save(VALUES[1], tmp_path / "tokens")
    files = [path for path in directory.iterdir() if path.name != "meta.json"]
    for path in files:
        good = path.read_bytes()
        for position in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(errors.CheckpointError, match=path.name):
                artifacts.load(directory)
        path.write_bytes(good)
    artifacts.load(directory)


def test_one_flipped_bit_in_encoders_is_noticed(tmp_path):
    """F-70: a checkpoint."""
    arrays = {"a": jnp.arange(200, dtype=jnp.float32)[:, None]}
    encoders = types.Encoders(
        {}, arrays, floats(D), np.arange(200), np.zeros(200, np.int8), types.Architecture("ridge")
    )
    directory = artifacts.save(encoders, tmp_path / "encoder")
    path = max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 4]) + good[-8:])
    with pytest.raises(errors.CheckpointError, match="differs from the sha256"):
        artifacts.load(directory)


@pytest.mark.parametrize("error", [MemoryError("no"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no")])
def test_too_little_memory_is_no_damage_of_encoders(tmp_path, monkeypatch, error):
    """To run the stage again would not help."""
    arrays = {"a": np.zeros((2, 1), np.float32)}
    encoders = types.Encoders({}, arrays, floats(D), np.arange(2), np.zeros(2, np.int8), types.Architecture("ridge"))
    directory = artifacts.save(encoders, tmp_path / "encoder")

    def restore(*_):
        raise error

    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.restore", restore)
    with pytest.raises(type(error), match="no"):
        artifacts.load(directory)


def test_missing_and_foreign_files(tmp_path):
    """F-71, F-78: files that are gone, and another schema."""
    with pytest.raises(errors.MissingInputError, match=r"meta\.json"):
        artifacts.load(tmp_path)
    directory = artifacts.save(VALUES[4], tmp_path / "scores")
    (directory / "r2.npy").unlink()
    with pytest.raises(errors.CheckpointError, match=r"r2\.npy is missing"):
        artifacts.load(directory)
    artifacts.write_json(directory / "meta.json", {"schema": 99})
    with pytest.raises(errors.CheckpointError, match="schema 99"):
        artifacts.load(directory)
    (directory / "meta.json").write_text("{")
    with pytest.raises(errors.IntegrityError, match="not readable JSON"):
        artifacts.load(directory)


def test_long_lists_of_texts_are_arrays(tmp_path, monkeypatch):
    """As JSON each of them would be in memory by itself."""
    ids = np.array([["é1", "image000002"], ["", "a\tb"]] * 3)
    critical = types.CriticalTokens(np.arange(6), ids, np.zeros((6, 2, 1), np.int32), np.zeros((6, 2, 1), np.float32))
    short = artifacts.save(critical, tmp_path / "short")
    monkeypatch.setattr("mine_jax.artifacts.saved._LONG_TEXT", ids.nbytes)
    long = artifacts.save(critical, tmp_path / "long")
    assert (short / "image_ids.json").is_file() and (long / "image_ids.npy").is_file()
    for folder in (short, long):
        np.testing.assert_array_equal(artifacts.load(folder).image_ids, ids)


def test_objects_are_never_read(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(errors.IntegrityError, match="holds Python objects"):
        artifacts.read_array(tmp_path / "objects.npy", mmap=True)
    with pytest.raises(errors.IntegrityError, match="holds Python objects"):
        artifacts.read_array(tmp_path / "objects.npy")
    with pytest.raises(ValueError, match="Object arrays"):
        artifacts.write_array(tmp_path / "other.npy", np.array([{"a": 1}], dtype=object))


def test_type_without_a_file_form(tmp_path):
    with pytest.raises(TypeError, match="dict has no file form"):
        artifacts.save({}, tmp_path)


def test_failed_write_keeps_the_old_file(tmp_path):
    """F-75: no half-written file."""
    path = artifacts.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="stop"), artifacts.atomic(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    """F-75: no space left."""
    path = artifacts.write_array(tmp_path / "a.npy", np.zeros(3))

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.ResourceError, match="No space left"):
        artifacts.write_array(path, np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"] and artifacts.read_array(path).sum() == 0


def test_full_disk_keeps_the_old_encoders(tmp_path):
    """F-75: the store of encoders has its own errors for a disk that refuses."""
    code = """
import resource, signal, sys
import numpy as np
from mine_jax import artifacts, errors, types

def encoders(n):
    arrays = {"a": np.random.default_rng(n).standard_normal((n, 50)).astype(np.float32)}
    status, baseline = np.zeros(n, np.int8), np.zeros(50, np.float32)
    return types.Encoders({}, arrays, baseline, np.arange(n), status, types.Architecture("ridge"))

artifacts.save(encoders(3), sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    artifacts.save(encoders(5_000), sys.argv[1])
except errors.ResourceError as error:
    print(error)
print(len(artifacts.load(sys.argv[1]).voxel_ids))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "encoder")]
    message, n = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    assert message.startswith(f"cannot write {tmp_path}") and "File too large" in message and n == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_table_roundtrip_and_change_of_form(tmp_path, monkeypatch):
    table = pd.DataFrame({"image_id": ["007", "é"], "r2": [0.25, np.nan], "reason": ["", "low"], "rois": ["", "V1;V2"]})
    path = tmp_path / "voxels.tsv"
    assert artifacts.write_table(path, table) == path
    pd.testing.assert_frame_equal(artifacts.read_table(path), table, check_dtype=False)
    monkeypatch.setattr(artifacts.tables, "MAX_TSV_ROWS", 1)
    assert artifacts.write_table(path, table) == path.with_suffix(".parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["voxels.parquet"]
    pd.testing.assert_frame_equal(artifacts.read_table(path), table, check_dtype=False)
    with pytest.raises(errors.MissingInputError, match=r"other\.tsv"):
        artifacts.read_table(tmp_path / "other.tsv")


def test_no_text_of_a_table_is_a_formula(tmp_path):
    texts = ["=1+1", "+cmd", "-x", "@sum", "'=quoted", "'tis", "plain", "-5", "+.5", "-", ""]
    path = artifacts.write_table(tmp_path / "table.tsv", pd.DataFrame({"word": texts, "r": np.linspace(-1, 1, 11)}))
    cells = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert cells == ["'=1+1", "'+cmd", "'-x", "'@sum", "''=quoted", "'tis", "plain", "-5", "+.5", "'-", ""]
    assert artifacts.read_table(path)["word"].tolist() == texts


def test_json_has_no_nan(tmp_path):
    path = artifacts.write_json(tmp_path / "a.json", {"a": [np.float32("nan"), np.int64(2), tmp_path, np.arange(2)]})
    assert artifacts.read_json(path) == {"a": [None, 2, str(tmp_path), [0, 1]]}
