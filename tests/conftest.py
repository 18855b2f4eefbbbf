"""Settings of the whole test session, and the fixtures that many tests share."""

import gc
import os
from pathlib import Path

# Before jax starts: two virtual devices, for the tests of sharding.
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=2".strip()
# Threads of LAPACK would wait for each other in the many small eigenproblems of a fit.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Those of PyTorch spin while they wait for each other, and every worker of pytest has some.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs are compiled once for all workers, for processes that tests start, and for the next session.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
# XLA says of each of them, in 4,000 characters, that two names of features are unknown to this machine.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import jax  # noqa: E402
import pytest  # noqa: E402

# A file is one piece of work of `--dist loadfile`: the longest must not come last.
LONGEST = ("sharding/test_sharding.py", "run/test_stages.py", "kernels/test_voxel_attention.py")
LONGEST += ("features/test_extraction_command.py", "validation/test_validate.py", "encoder/test_train.py")
LONGEST += ("report/test_report.py", "benchmarks/test_accelerator.py", "test_readme.py")

# Folders and files that compile longer than they compute, and ask what programs say, not how a compiler may make them
# fast: `quickly_compiled`. Kernels, ridge, the training loop and whole runs are tested as users run them.
QUICK = ("attribution", "estimators", "features", "pipeline", "sharding", "run/test_recordings.py")
QUICK += ("encoder/test_fit.py", "encoder/test_linear.py", "encoder/test_predict.py")

# A forgotten axis must fail, not broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Puts the longest files first; the order within a file stays."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@pytest.fixture(autouse=True, scope="module")
def _young_heap():
    """Keeps what earlier files left, millions of objects of compiled programs, out of every later collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _compiler(request):
    """Compiles what the files of `QUICK` need quickly."""
    if any(request.path.is_relative_to(Path(__file__).parent / name) for name in QUICK):
        request.getfixturevalue("quickly_compiled")


@pytest.fixture(scope="module")
def quickly_compiled():
    """Does not make programs fast, also those of processes started."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def key():
    """A random key, the same in every test."""
    return jax.random.key(0)
