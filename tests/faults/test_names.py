"""F-70, F-71, F-95, F-96: what cannot be used ends with one named error, not with a traceback."""

import io
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from mine_jax import artifacts, config, data, encoder, errors
from mine_jax.config import RidgeConfig
from mine_jax.run.record import lock, manifest
from mine_jax.run.reporter import PlainReporter

COMMAND = [sys.executable, "-m", "mine_jax"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "beta_scale", "nan"),
        ("data", "beta_scale", "inf"),
        ("data", "beta_scale", "-300.0"),
        ("data", "beta_scale", "0.0"),
        ("data", "min_noise_ceiling", "nan"),
        ("encoder", "penalty_low", "nan"),
        ("encoder", "penalty_low", "-inf"),
        ("encoder", "penalty_high", "400.0"),
        ("encoder", "penalty_high", "-3.0"),
        ("encoder", "learning_rate", "inf"),
        ("encoder", "learning_rate", "nan"),
        ("attribution", "min_r2", "nan"),
        ("attribution", "tolerance", "inf"),
        ("run", "seed", str(1 << 64)),
        ("run", "seed", "-1"),
    ],
)
def test_numbers_that_cannot_work_are_named(tmp_path, section, key, value):
    """F-95."""
    (tmp_path / "c.toml").write_text("")
    with pytest.raises(errors.ConfigError, match=f"{section}.*{'penalt' if 'penalty' in key else key}"):
        config.read(tmp_path / "c.toml", overrides=[f"{section}.{key}={value}"])


def test_deep_nesting_is_named(tmp_path):
    """F-96."""
    (tmp_path / "c.toml").write_text("")
    with pytest.raises(errors.ConfigError, match="nested too deeply"):
        config.read(tmp_path / "c.toml", overrides=["roi.categories=" + "[" * 5000])
    for name in ("run.json", "meta.json"):
        (tmp_path / name).write_text("[" * 100_000)
        with pytest.raises(errors.IntegrityError, match=name):
            artifacts.read_json(tmp_path / name)
    with pytest.raises(errors.CheckpointError, match="not readable JSON"):
        manifest.read(tmp_path)


def test_nul_in_a_path_is_named():
    """F-96."""
    with pytest.raises(errors.ConfigError, match=r"data\.responses: must not hold a NUL"):
        config.from_dict({"data": {"responses": "a\0b.npy"}})


def test_nul_in_run_json_is_refused(tmp_path):
    record = {"schema": 1, "stages": {}, "files": {"a\0b": {}}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(errors.CheckpointError, match="outside of the run"):
        manifest.read(tmp_path)


def test_a_wrong_kind_hides_no_other_error():
    """F-95: all problems at once."""
    with pytest.raises(errors.ConfigError) as raised:
        config.from_dict({"data": {"kind": "nsdd", "sesions": 3, "val": 7.0}, "run": {"sed": 1}})
    for part in ('"nsd"', "data.sesions", "data.val", "run.sed"):
        assert part in str(raised.value)


def test_more_folds_than_images_are_named():
    """F-13: folds without images."""
    rng = np.random.default_rng(0)
    settings = RidgeConfig(folds=40, decoys=0)
    with pytest.raises(errors.ConfigError, match="folds = 40, but there are 12 images"):
        encoder.fit(_split(rng, 12), key=0, config=settings)


def _split(rng, n):
    from mine_jax.types import ImageTokens, Responses, Split

    ids, voxels = np.array([f"i{i:02d}" for i in range(n)]), 3
    responses = Responses(
        rng.standard_normal((n, voxels)).astype(np.float32),
        ids,
        np.ones(n, np.int64),
        np.arange(voxels),
        np.array(["ok"] * voxels),
        np.full(voxels, np.nan),
        np.full(voxels, np.nan),
        np.full(voxels, ""),
    )
    tokens = ImageTokens(rng.standard_normal((n, 4, 5)).astype(np.float32), ids, None, (2, 2), -1, "tiny")
    return Split(tokens, responses, "train")


HEADER = b"\x93NUMPY\x01\x00\x76\x00"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        HEADER + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }".ljust(117) + b"\n",
        HEADER + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9".ljust(117) + b"\n",
        HEADER + b"{'descr': 3, 'fortran_order': 7, 'shape': 'x', }".ljust(117) + b"\n",
        HEADER + ("(" * 117).encode() + b"\n",
        b"not an array at all",
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_damaged_arrays_are_named(tmp_path, content, mmap):
    """F-71."""
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(errors.IntegrityError, match=r"a\.npy"):
        artifacts.read_array(tmp_path / "a.npy", mmap=mmap)


def test_archive_named_as_array_is_named(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, x=np.ones(3))
    with pytest.raises(errors.IntegrityError, match="archive of arrays"):
        artifacts.read_array(tmp_path / "a.npy", mmap=True)


def test_photo_names_with_control_characters_are_named(tmp_path):
    (tmp_path / "a\nb\t.png").write_bytes(b"")
    with pytest.raises(errors.DataError, match=r"control characters.*a\\nb\\t"):
        data.images.list_photos(tmp_path)


def test_empty_lock_of_a_process_that_died_is_removed(tmp_path, caplog):
    """F-74."""
    (tmp_path / ".lock").write_text("")
    with pytest.raises(errors.ResourceError, match="in use by another process"), lock.locked(tmp_path):
        pass
    os.utime(tmp_path / ".lock", (time.time() - 60,) * 2)
    with lock.locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert "empty lock" in caplog.text and not (tmp_path / ".lock").exists()


def test_reports_to_a_closed_stream_do_not_stop_the_work():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    PlainReporter(Closed()).say("nobody reads this")


def test_closed_output_ends_without_a_traceback(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run([*COMMAND, "run", str(tmp_path / "no.toml"), "--out", "x"], stdout=writing, stderr=writing)
    os.close(writing)
    assert process.returncode == errors.EXIT_DATA


def test_platform_that_is_not_there_is_named(tmp_path):
    """The doctor still reports."""
    (tmp_path / "c.toml").write_text('[data]\nkind = "phantom"\n')
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    options = {"env": environment, "capture_output": True, "text": True}
    failed = subprocess.run([*COMMAND, "run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "o")], **options)
    assert failed.returncode == 2 and "JAX_PLATFORMS is 'cuda'" in failed.stderr and "fault of" not in failed.stderr
    doctor = subprocess.run([*COMMAND, "doctor"], **options)
    assert doctor.returncode == 0 and "none: " in doctor.stdout and "environment:" in doctor.stdout


def test_unknown_benchmark_is_named():
    process = subprocess.run([*COMMAND, "bench", "--what", "nope"], capture_output=True, text=True)
    assert process.returncode == 2 and "no such benchmark" in process.stderr and "Traceback" not in process.stderr
