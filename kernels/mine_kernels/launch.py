"""How kernels are launched: one place that knows which compiler of Pallas a device has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import pallas as pl

try:
    from jax.experimental.pallas import triton
except ImportError:  # deprecated since jax 0.11; the other compiler has no float32 products
    triton = None

# Shared memory that one program has on a GPU (H100), and memory of one core of a TPU (v5e).
SHARED_BYTES = 227 << 10
VECTOR_BYTES = 16 << 20


def precision() -> jax.lax.DotAlgorithmPreset | None:
    """Returns what products in a kernel ask for: Triton takes "high" for one pass in tf32, XLA for three."""
    is_high = jax.config.jax_default_matmul_precision == "high"  # ty: ignore[missing-attribute]
    return jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3 if is_high else None


def pallas_call(
    kernel: Callable[..., None], *, warps: int, interpret: bool, name: str, platform: str = "gpu", **options: Any
) -> Any:
    """Prepares a kernel for a device, or for the interpreter; the other options are those of `pl.pallas_call`.

    Raises:
        NotImplementedError: if this jax has no Triton, which compiles for GPUs.
    """
    if interpret:
        launched = pl.pallas_call(kernel, interpret=True, name=name, **options)
        # in float32: CPUs know no other products
        return lambda *arrays: jax.default_matmul_precision("highest")(launched)(*arrays)
    if platform != "gpu":
        return pl.pallas_call(kernel, name=name, **options)
    if triton is None:
        raise NotImplementedError(
            f"`implementation='pallas'` needs Pallas's Triton compiler, which jax {jax.__version__} does not have. "
            'Use "xla", or None.'
        )
    parameters = triton.CompilerParams(num_warps=warps, num_stages=1)
    return pl.pallas_call(kernel, compiler_params=parameters, name=name, **options)
