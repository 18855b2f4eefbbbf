"""Many devices and processes: equal results, no needless communication, clear errors.

Devices are virtual ones on the CPU; whatever needs other devices than this process has runs in
processes of its own, all meshes in one, since compiling is what takes the time.
"""

import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from mine_jax import artifacts, sharding
from mine_jax.config import QueryConfig
from mine_jax.encoder.query import adam, solving, state, train
from mine_jax.encoder.query.images import Batch
from mine_jax.errors import ConfigError, ResourceError
from mine_jax.sharding import rendezvous

PROGRAM = Path(__file__).parent / "many_devices.py"
# All kinds on a mesh with both axes; on one axis alone, what it divides in a way of its own.
MESHES = {"4x1": ":query", "2x2": "", "1x4": ":query,shared"}
# Softmax does not see what all keys have in common, so Adam follows rounding errors there.
UNSEEN = "shared key_bias"


def launch(arguments, *, n_devices, process=None, port=None, n_processes=2):
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    if process is not None:
        environment |= {"MINE_COORDINATOR": f"localhost:{port}", "MINE_N_PROCESSES": str(n_processes)}
        environment["MINE_PROCESS_ID"] = str(process)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(processes, *, timeout=600):
    """Waits for all; returns exit codes and what each wrote to stderr."""
    try:
        texts = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], texts


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def assert_equal_results(got, expected):
    """Within 1e-6 of the scale of each result; chosen tokens are the same."""
    assert {"query"} <= set(got.files) <= set(expected.files)
    for name in set(got.files) - {UNSEEN}:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got[name], expected[name], atol=1e-6 * scale, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Results on one device, and of every mesh of four."""
    directory = tmp_path_factory.mktemp("devices")
    meshes = [name + kinds for name, kinds in MESHES.items()]
    codes, texts = finished([launch([PROGRAM, directory, "none", *meshes], n_devices=4)])
    assert codes == [0], texts[0]
    return directory


@pytest.mark.parametrize("name", MESHES)
def test_meshes_give_the_results_of_one_device(single, name):
    """F-73: any number of devices."""
    if name == "2x2":
        assert set(np.load(single / "2x2.npz").files) == set(np.load(single / "none.npz").files)
    assert_equal_results(np.load(single / f"{name}.npz"), np.load(single / "none.npz"))


def test_two_processes_give_the_results_of_one_device(single, tmp_path):
    """Processes have shares of the voxels of a fixed trunk; a shared trunk spans them (F-73)."""
    port = free_port()
    arguments = [PROGRAM, tmp_path, "4x1:query,shared"]
    codes, texts = finished([launch(arguments, n_devices=2, process=i, port=port) for i in range(2)])
    assert codes == [0, 0], texts
    got = np.load(tmp_path / "4x1.npz")
    assert {"query", "shared"} <= set(got.files)
    assert_equal_results(got, np.load(single / "none.npz"))


CONFIG = """
[data]
kind = "folder"
images = "photos"
responses = "responses.npy"
image_ids = "ids.txt"
test = 0.2
[features]
kind = "precomputed"
tokens = "tokens.npy"
token_image_ids = "ids.txt"
grid = [3, 3]
[encoder]
width = 4
position_order = 2
epochs = 1
batch_size = 16
reference = false
[attribution]
k = 3
n_images = 5
n_steps = 4
max_steps = 4
[run]
voxel_chunk = 3
"""


def test_two_processes_run_the_stages_of_the_command_line(tmp_path):
    """Process 0 writes; the other one takes its share of fits and attribution and prints nothing.

    Ten voxels and decoys in chunks of six, or of five filled up: both runs need the same programs.
    """
    split = runpy.run_path(str(PROGRAM))["made_split"]()
    np.save(tmp_path / "tokens.npy", split.tokens.tokens)
    np.save(tmp_path / "responses.npy", split.responses.responses)
    ids = [f"i{image_id}" for image_id in split.tokens.image_ids]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    (tmp_path / "photos").mkdir()
    for i, image_id in enumerate(ids):
        PIL.Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(tmp_path / "photos" / f"{image_id}.png")
    (tmp_path / "run.toml").write_text(CONFIG)
    command = ["-m", "mine_jax", "run", tmp_path / "run.toml", "--until", "attribution", "--out"]
    alone, port = launch([*command, tmp_path / "one"], n_devices=2), free_port()
    codes, texts = finished([alone])
    assert codes == [0], texts
    both = [launch([*command, tmp_path / "two"], n_devices=2, process=i, port=port) for i in range(2)]
    printed = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert "attribution: done" in printed[0][0] and "done" not in printed[1][0]
    for name in ("voxels.tsv", "attribution/pairs.tsv", "attribution/curves.tsv"):
        expected, got = (artifacts.read_table(tmp_path / run / name) for run in ("one", "two"))
        assert len(expected)
        pd.testing.assert_frame_equal(got, expected, rtol=0, atol=3e-6)
    expected, got = (np.load(tmp_path / run / "attribution" / "tokens.npy") for run in ("one", "two"))
    np.testing.assert_array_equal(got, expected)


FAILING = """
import sys
from mine_jax import sharding
sharding.start(timeout_s=60)
with sharding.telling_others():
    if sharding.process_id() == 1:
        raise ValueError("a fault")
    sharding.exchange()
"""


def test_a_process_that_fails_ends_the_others(tmp_path):
    """F-85: one of two fails."""
    (tmp_path / "failing.py").write_text(FAILING)
    port = free_port()
    codes, texts = finished([launch([tmp_path / "failing.py"], n_devices=1, process=i, port=port) for i in range(2)])
    assert 0 not in codes
    assert "ResourceError: process 1 stopped: ValueError: a fault" in texts[0]


def lowered_step(mesh, *, trunk):
    """The compiled program of a training step, and of the sums and solutions of readouts."""
    n_voxels, n_images, n_cells, width, heads = 8, 16, 9, 4, 1
    config = QueryConfig(width=width, heads=heads, trunk=trunk)
    basis = np.ones((n_cells, 3), np.float32)
    weights = {"key_weight": np.ones((width, 1, width)), "key_bias": np.zeros((1, width))}
    arrays = state.start(weights, basis, np.arange(n_voxels), jax.random.key(0), config)
    moving = ("query", "position") + ("trunk",) * (trunk == "shared")
    moments = state.placed(adam.first_moments(arrays, moving), mesh)
    arrays = state.placed(arrays, mesh)
    is_projected = trunk == "fixed"
    tokens = jnp.ones((n_images, n_cells, 1, width) if is_projected else (n_images, n_cells, width))
    tokens = sharding.placed(tokens, mesh)
    responses = sharding.placed(np.ones((n_images, n_voxels), np.float32), mesh, None, sharding.VOXEL)
    order = np.arange(n_images).reshape(2, -1)
    rates = {name: np.ones(() if name == "trunk" else n_voxels, np.float32) for name in moments}
    options, images = {"is_projected": is_projected, "mesh": mesh}, Batch(tokens, None, responses)
    steps = adam.steps.lower(arrays, moments, rates, images, basis, order, moving=moving, **options)
    position = arrays["position"] @ basis.T
    added = solving.add_images.lower(None, arrays, position, images, **options)
    sums = solving.add_images(None, arrays, position, images, **options)
    solved = solving.finished_by_all.lower(sums, heads=heads, mesh=mesh)
    predicted = train.predict_images.lower(arrays, tokens, None, basis, **options)
    return [program.compile().as_text() for program in (steps, added, solved, predicted)]


COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter")


def test_fixed_trunk_needs_no_communication_over_voxels():
    mesh = sharding.mesh({"voxel": 2})
    assert not [text for text in lowered_step(mesh, trunk="fixed") if COLLECTIVE.search(text)]


def test_shared_trunk_and_data_communicate():
    """The same search finds what must be there: without it the test above would say nothing."""
    assert COLLECTIVE.search(lowered_step(sharding.mesh({"voxel": 2}), trunk="shared")[0])
    steps, added, _, _ = lowered_step(sharding.mesh({"voxel": 1, "data": 2}), trunk="fixed")
    assert COLLECTIVE.search(steps) and COLLECTIVE.search(added)


def test_checkpoint_of_one_mesh_opens_on_another(tmp_path):
    """F-73: another number of devices."""
    rng = np.random.default_rng(0)
    arrays = {"query": rng.standard_normal((4, 1, 3)), "intercept": rng.standard_normal(4)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    shared = {"key_weight": rng.standard_normal((5, 1, 3)).astype(np.float32)}
    first, second = sharding.mesh({"voxel": 2}), sharding.mesh({"voxel": 1, "data": 2})
    saved = encoder_of(shared, arrays, lambda array: sharding.placed(array, first, sharding.VOXEL))
    assert len(saved.per_voxel["query"].sharding.device_set) == 2
    artifacts.save(saved, tmp_path / "encoder")
    opened = artifacts.load(tmp_path / "encoder")
    for mesh in (None, first, second):
        for name, array in arrays.items():
            placed = sharding.placed(opened.per_voxel[name], mesh, sharding.VOXEL)
            np.testing.assert_array_equal(sharding.host(placed), array)
    np.testing.assert_array_equal(opened.shared["key_weight"], shared["key_weight"])


def encoder_of(shared, per_voxel, place):
    from mine_jax.types import Architecture, Encoders

    return Encoders(
        shared=shared,
        per_voxel={name: place(array) for name, array in per_voxel.items()},
        baseline=np.zeros(5, np.float32),
        voxel_ids=np.arange(4),
        status=np.zeros(4, np.int8),
        architecture=Architecture("query"),
    )


def test_mesh_defaults_to_all_devices_on_voxels():
    shapes = [mesh and dict(mesh.shape) for mesh in (sharding.mesh(), sharding.mesh({}), sharding.mesh({"data": 2}))]
    assert shapes == [{"voxel": 2, "data": 1}] * 2 + [{"voxel": 1, "data": 2}]
    assert sharding.mesh({"voxel": 1}) is None
    assert sharding.mesh({"voxel": 2, "model": 2}) is not None
    assert sharding.padded(5, sharding.mesh(), "voxel") == 6 and sharding.padded(5, None, "voxel") == 5


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"voxels": 2}, "unknown axis 'voxels'"),
        ({"voxel": 4}, "asks for 4 x 1 devices .* but there are 2"),
        ({"data": 3}, "asks for 1 x 3 devices"),
    ],
)
def test_mesh_errors(axes, message):
    with pytest.raises(ConfigError, match=message):
        sharding.mesh(axes)


def test_batches_that_devices_cannot_divide_are_an_error():
    with pytest.raises(ConfigError, match="data = 2 must divide the batches of 15 images"):
        train.check_batch(15, sharding.mesh({"data": 2}))


def test_memory_is_found():
    assert 2**20 < sharding.free_bytes() < 2**45


SLURM = {
    "SLURM_JOB_ID": "4099",
    "SLURM_STEP_NODELIST": "gpu[007-008,011]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_PROCID": "2",
}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        (SLURM, ("gpu007:61443", 3, 2)),
        (SLURM | {"SLURM_STEP_NODELIST": "login,gpu1"}, ("login:61443", 3, 2)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SLURM | {"MINE_N_PROCESSES": "1"}, None),
        (SLURM | {"MINE_COORDINATOR": "a:1"}, ("a:1", 3, 2)),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, None),
        ({"MINE_COORDINATOR": "a:1", "MINE_N_PROCESSES": "2", "MINE_PROCESS_ID": "0"}, ("a:1", 2, 0)),
    ],
)
def test_environment_says_who_works_together(environment, found):
    assert rendezvous.place_and_number(environment) == found


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MINE_N_PROCESSES": "2"}, "MINE_COORDINATOR, MINE_PROCESS_ID must be set"),
        ({"MINE_COORDINATOR": "a", "MINE_N_PROCESSES": "2", "MINE_PROCESS_ID": "0"}, "must be host:port"),
        ({"MINE_COORDINATOR": "a:1", "MINE_N_PROCESSES": "x", "MINE_PROCESS_ID": "0"}, "whole numbers"),
        ({"MINE_COORDINATOR": "a:1", "MINE_N_PROCESSES": "2", "MINE_PROCESS_ID": "2"}, "no process 2 of 2"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "2"}, "no process 2 of 2"),
        (SLURM | {"SLURM_JOB_ID": ""}, "cannot read SLURM_STEP_NODELIST"),
    ],
)
def test_environment_that_contradicts_itself(environment, message):
    """F-85: a wrong number of tasks."""
    with pytest.raises(ConfigError, match=message):
        rendezvous.place_and_number(environment)


def test_outside_srun_is_a_warning(caplog):
    """F-85: outside srun."""
    rendezvous.place_and_number({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"})
    assert "not started by srun" in caplog.text


def test_missing_processes_are_named():
    """F-85: processes that do not come."""
    address = f"localhost:{free_port()}"
    with pytest.raises(ResourceError, match=r"process 1, 2 of 3 did not come within 0\.2 s"):
        rendezvous.meet(address, n_processes=3, process_id=0, timeout_s=0.2)
    with pytest.raises(ResourceError, match=r"waited 0\.3 s for process 0"):
        rendezvous.meet(address, n_processes=3, process_id=1, timeout_s=0.3)


def test_taken_port_is_named():
    """F-85: a port in use."""
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ResourceError, match=f"cannot listen on port {port}"):
            rendezvous.meet(f"localhost:{port}", n_processes=2, process_id=0, timeout_s=1)
