"""Public form of the penalty sweep: checks, choice of implementation."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from mine_kernels.arrays import Array
from mine_kernels.ridge_sweep import reference, xla
from mine_kernels.ridge_sweep.specs import Blocks

Implementation = Literal["reference", "xla", "pallas"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
_KERNEL_DEVICES = ("gpu", "tpu")


def ridge_sweep(
    factor: Array,
    values: Array,
    train: Array,
    valid: Array,
    share: Array,
    penalties: Array,
    *,
    implementation: Implementation | None = None,
    blocks: Blocks | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Computes validation errors of ridge solutions at each voxel's own candidate penalties.

    Args:
        factor: [K, R, F] factor of each fold's validation Gram in the eigenbasis of its training
            Gram, R at most F; zero below the diagonal.
        values: [K, F] eigenvalues of the training Gram.
        train: [K, F, V] rotated training cross-products.
        valid: [K, F, V] rotated validation cross-products.
        share: [K] weight of each fold's squared error.
        penalties: [C, V] candidates of each voxel.
        implementation: None for the fastest that works here, or a name.
        blocks: tile sizes of the kernel; None for the defaults. Speed only.
        interpret: runs the kernel in the interpreter, on any device.

    Returns:
        Errors [C, V]: the weighted sum over folds of |y - prediction|^2 - |y|^2.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation, or a kernel that this device lacks.

    Source: Hastie, Tibshirani & Friedman 2009, 3.4.1, in terms of Gram matrices.
    """
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise NotImplementedError(
            f"`implementation` must be one of {IMPLEMENTATIONS} or None, but is {implementation!r}."
        )
    _check(factor, values, train, valid, share, penalties)
    if implementation == "pallas":
        blocks = blocks or Blocks()
        if not interpret and jax.default_backend() not in _KERNEL_DEVICES:
            raise NotImplementedError(
                f"`implementation='pallas'` needs one of {_KERNEL_DEVICES}, but the device is "
                f"{jax.default_backend()!r}; `interpret=True` runs it slowly on any device."
            )
        # Loads the kernel compilers, which nothing else here needs.
        from mine_kernels.launch import VECTOR_BYTES
        from mine_kernels.ridge_sweep import pallas

        if not interpret and jax.default_backend() == "tpu" and blocks.vector_bytes(*factor.shape[1:]) > VECTOR_BYTES:
            raise NotImplementedError(
                f"`implementation='pallas'` on a TPU needs a factor that fits its {VECTOR_BYTES >> 20} MiB twice, but "
                f'`factor` has shape {factor.shape}. Use "xla", or None.'
            )

        options = {"blocks": blocks, "interpret": interpret, "platform": jax.default_backend()}
        return pallas.ridge_sweep(factor, values, train, valid, share, penalties, **options)
    if implementation == "reference":
        sweep = jax.vmap(reference.ridge_sweep, in_axes=(None, None, 2, 2, None, 1), out_axes=1)
        return sweep(factor, values, train, valid, share, penalties)
    return xla.ridge_sweep(factor, values, train, valid, share, penalties)


def _check(factor: Array, values: Array, train: Array, valid: Array, share: Array, penalties: Array) -> None:
    folds, rows, features = jnp.shape(factor)
    voxels = jnp.shape(penalties)[-1]
    expected = {
        "values": (values, (folds, features)),
        "train": (train, (folds, features, voxels)),
        "valid": (valid, (folds, features, voxels)),
        "share": (share, (folds,)),
        "penalties": (penalties, (jnp.shape(penalties)[0], voxels)),
    }
    for name, (array, shape) in expected.items():
        if jnp.shape(array) != shape:
            raise ValueError(f"`{name}` must have shape {shape}, but has shape {jnp.shape(array)}.")
    if rows > features:
        raise ValueError(f"`factor` must have at most {features} rows, one per feature, but has {rows}.")
