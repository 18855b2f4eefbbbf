"""What a user needs to know about the installation when something does not work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator

import mine_jax
from mine_jax import sharding
from mine_jax.errors import ConfigError
from mine_jax.run.record import manifest

ENVIRONMENT = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "CUDA_VISIBLE_DEVICES",
)


def report() -> Iterator[str]:
    """Yields lines about versions, missing extras, devices, environment and a check of the compiler."""
    yield f"mine_jax {mine_jax.__version__} ({manifest.git_commit() or 'no checkout'})"
    yield f"python {platform.python_version()} on {platform.platform()}"
    yield ""
    for extra, packages in _requirements().items():
        yield "required:" if not extra else f"extra {extra}:"
        versions = manifest.versions(packages)
        for name, version in versions.items():
            yield f"  {name:<18} {version or 'not installed'}"
        if None in versions.values():
            yield f"  -> pip install 'mine_jax[{extra}]'" if extra else "  -> pip install mine_jax"
    yield ""
    yield from _devices()
    yield "environment:"
    for name in ENVIRONMENT:
        yield f"  {name:<30} {os.environ.get(name, 'not set')}"


def _requirements() -> dict[str, list[str]]:
    """Returns the distributions of each extra; "" holds those always needed."""
    found: dict[str, list[str]] = {"": []}
    for requirement in importlib.metadata.requires("mine_jax") or ():
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if name and name.group() not in ("mine_jax", "mine-jax"):
            found.setdefault(extra.group(1) if extra else "", []).append(name.group())
    return found


def _devices() -> Iterator[str]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    yield "devices:"
    try:
        devices = sharding.devices()
    except ConfigError as error:
        yield f"  none: {error}"
        yield ""
        return
    for device in devices:
        yield f"  {device.platform}:{device.id} {device.device_kind}"
    # jax-ml/jax#39103: some releases compute wrong numbers from row 32,768 on.
    matrix = np.arange(9, dtype=np.float32).reshape(3, 3) / 9
    rows = np.random.default_rng(0).standard_normal((32_769, 3)).astype(np.float32)
    got = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    expected = ((rows.astype(np.float64) @ matrix.T) ** 2).sum(1)
    right = np.allclose(got, expected, rtol=2e-2, atol=1e-3)
    yield f"  jit(vmap) over 32,769 rows: {'right' if right else 'WRONG NUMBERS: use another release of jax'}"
    yield ""
