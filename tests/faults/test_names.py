"""F-70, F-71, F-95, F-96: what cannot be used ends with one named error, not with a traceback."""

import contextlib
import importlib.resources
import io
import json
import os
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks.reliability import commands, hostile
from mine_jax import artifacts, config, data, encoder, errors, features, run
from mine_jax.config import RidgeConfig
from mine_jax.features.ports.text import load_tokenizer
from mine_jax.phantom.write_nsd import read_scenes
from mine_jax.run import graph
from mine_jax.run.record import lock, manifest
from mine_jax.run.reporter import PlainReporter
from mine_jax.types import Architecture, Encoders
from mine_jax.validation.makers import diffusion

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
        ("run", "voxel_chunk", str(1 << 60)),
        ("encoder", "width", "1" + 40 * "0"),
        ("features", "more_layers", f"[-1, {1 << 60}]"),
        ("features", "layer", str(-(1 << 60))),
    ],
)
def test_numbers_that_cannot_work_are_named(tmp_path, section, key, value):
    """F-95."""
    (tmp_path / "c.toml").write_text("")
    with pytest.raises(errors.ConfigError, match=f"{section}.*{'penalt' if 'penalty' in key else key}"):
        config.read(tmp_path / "c.toml", overrides=[f"{section}.{key}={value}"])


def test_numbers_of_thousands_of_digits_are_named(tmp_path):
    """F-96: Python refuses to read them."""
    (tmp_path / "c.toml").write_text("")
    digits = "9" * 5000
    with pytest.raises(errors.ConfigError, match=r"--set run\.seed holds a value that cannot be read"):
        config.read(tmp_path / "c.toml", overrides=[f"run.seed={digits}"])
    (tmp_path / "c.toml").write_text(f"[run]\nseed = {digits}\n")
    with pytest.raises(errors.ConfigError, match=r"c\.toml is not valid TOML"):
        config.read(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["query", "a_file", "cat"], 3, "a_file"),
        (["figures", "a_file"], 3, "a_file"),
        (["run", "config.toml", "--out", "a_file/run"], 5, "a_file"),
        (["run", "config.toml", "--out", "x" * 300], 2, "too long"),
        (["run", "config.toml", "--out", "/".join(["y" * 200] * 30)], 2, "too long"),
        (["run", "z" * 5000, "--out", "run"], 2, "too long"),
        (["run", "config.toml", "--out", "run", "--set", f"data.images={'z' * 5000}"], 2, "too long"),
        (["features", "config.toml", "--out", "run", "--shard", "2/2"], 2, "from 0 to N - 1"),
        (["check", "a_folder"], 3, "a_folder"),
    ],
)
def test_paths_that_cannot_be_are_named(tmp_path, arguments, code, words):
    """What the system says of a path is an error with a name, whichever command meets it."""
    hostile.write_data_set(tmp_path)
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "a_folder").mkdir()
    with contextlib.chdir(tmp_path):
        ended = commands.run_here(arguments)
    assert ended.code == code and words in ended.said, ended.said
    assert "Traceback" not in ended.said and "fault" not in ended.said and ended.said.count("mine-jax: ") == 1


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


def test_errors_that_cannot_be_shown_keep_their_code(tmp_path):
    for where in ("/dev/full", "&-"):
        assert subprocess.run(["bash", "-c", f"exec {' '.join(COMMAND)} check nowhere.toml 2>{where}"]).returncode == 3


def test_backend_of_matplotlib_that_is_not_there_is_not_asked_for(tmp_path):
    program = "import sys\nfrom mine_jax import cli\nsys.argv = ['mine-jax', 'config']\ntry:\n    cli.command_line()\n"
    program += "except SystemExit as error:\n    assert not error.code\nimport matplotlib\n"
    environment = os.environ | {"MPLBACKEND": "bogus"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)


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


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", DEEP),
        ("tokenizer.json", '{"model": ' * 100_000),
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer.json", ""),
        ("tokenizer_config.json", DEEP),
        ("special_tokens_map.json", DEEP),
    ],
)
def test_damaged_tokenizers_are_named(tmp_path, name, content):
    """F-96: also those whose parsers raise plain exceptions, or none that end a recursion."""
    source = importlib.resources.files("mine_jax") / "phantom" / "weights" / "clip"
    shutil.copytree(str(source), tmp_path / "model")
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(errors.WeightsError, match=r"tokenizer|special_tokens_map") as raised:
        load_tokenizer(tmp_path / "model")
    assert len(str(raised.value)) < 1000


def test_other_deep_files_are_named(tmp_path):
    """F-96: the description of a pipeline, of a checkpoint, and the scenes of a phantom."""
    for name in ("model_index.json", "config.json", "phantom_scenes.jsonl"):
        (tmp_path / name).write_text(DEEP)
    with pytest.raises(errors.WeightsError, match=r"model_index\.json"):
        diffusion.check_directory(str(tmp_path), role="editor")
    assert features.family_of(tmp_path) is None
    with pytest.raises(errors.IntegrityError, match="does not hold scenes"):
        read_scenes(tmp_path)


def edited(path, **changes):
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays": {"image_ids": "../secret.npy"}}, "no file of its folder"),
        ({"arrays": {"image_ids": "/etc/passwd"}}, "no file of its folder"),
        ({"arrays": {"image_ids": "link.npy"}}, "leads outside"),
        ({"arrays": {"image_ids": "absent.npy"}}, "is missing"),
        ({"arrays": {"image_ids": 7}}, "no file of its folder"),
        ({"arrays": ["image_ids"]}, "damaged or was edited"),
        ({"arrays": {}}, "another version"),
        ({"fields": None}, "damaged or was edited"),
        ({"fields": {"grid": 4}}, "damaged or was edited"),
        ({"sparse": {"tokens": {"n": 1}}}, "damaged or was edited"),
        ({"type": ["ImageTokens"]}, "damaged or was edited"),
        ({"sha256": {"../secret.npy": "0"}}, "no file of its folder"),
        ({"sha256": 3}, "damaged or was edited"),
    ],
)
def test_descriptions_that_name_other_files_are_refused(tmp_path, changes, message):
    """F-71: names in meta.json that lead outside, are not there, or are no names."""
    np.save(tmp_path / "secret.npy", np.ones(3))
    folder = artifacts.save(_split(np.random.default_rng(0), 4).tokens, tmp_path / "tokens")
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    edited(folder / "meta.json", **changes)
    with pytest.raises(errors.CheckpointError, match=message):
        artifacts.load(folder)


def test_encoders_whose_description_was_edited_are_refused(tmp_path):
    """F-71: the store would cut arrays to other sizes, or fill them up with zeros."""
    encoders = Encoders(
        shared={},
        per_voxel={"b": np.ones((3, 2), np.float32)},
        baseline=np.zeros(2, np.float32),
        voxel_ids=np.arange(3),
        status=np.zeros(3, np.int8),
        architecture=Architecture(kind="ridge"),
    )
    folder = artifacts.save(encoders, tmp_path / "encoder")
    np.testing.assert_array_equal(artifacts.load(folder).per_voxel["b"], encoders.per_voxel["b"])
    meta = json.loads((folder / "meta.json").read_text())
    for shape, message in (([10**9, 10**9], "declares"), ([4, 2], "declares"), (7, "damaged or was edited")):
        meta["arrays"]["per_voxel"]["b"][0] = shape
        (folder / "meta.json").write_text(json.dumps(meta))
        with pytest.raises(errors.CheckpointError, match=message):
            artifacts.load(folder)


def test_lock_of_a_process_whose_number_another_one_has_now_is_removed(tmp_path, caplog):
    """F-74: this process has the number, but did not start when the owner did."""
    with lock.locked(tmp_path):
        owner = json.loads((tmp_path / ".lock").read_text())
    assert owner["pid"] == os.getpid() and owner["started"]
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with pytest.raises(errors.ResourceError, match=f"in use by process {os.getpid()}"), lock.locked(tmp_path):
        pass
    (tmp_path / ".lock").write_text(json.dumps({**owner, "started": owner["started"] + "0"}))
    with lock.locked(tmp_path):
        pass
    assert "which is gone" in caplog.text and not (tmp_path / ".lock").exists()


def test_strict_promotion_of_types_does_not_stop_a_run(tmp_path):
    """F-95: a variable of the environment, JAX_NUMPY_DTYPE_PROMOTION=strict, that a shell may set for other work."""
    written = hostile.write_data_set(tmp_path / "inputs")
    with jax.numpy_dtype_promotion("strict"):
        record = run.execute(config.read(written), tmp_path / "run", graph.STEPS, until="roi")
    assert record["stages"]["roi"]["state"] == "done"
