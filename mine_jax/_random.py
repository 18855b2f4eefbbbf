"""Random keys, and random numbers of any length from few compiled programs.

XLA compiles a program per shape, and drawing is among those that take long to compile. So numbers are drawn in powers
of two, and the first of them kept: with jax's counter-based bits these are the numbers that a shorter draw would give.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import jax
import numpy as np

from mine_jax.errors import ConfigError

# Fewer numbers are not worth a program of their own.
_FEWEST = 1 << 12
_MOST_BITS = float(np.iinfo(np.uint32).max)


def random_key(key: Any) -> jax.Array:
    """Returns a random key: the one given, or that of a seed.

    Args:
        key: of `jax.random.key`, or a whole number.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    try:
        return jax.random.key(operator.index(key))
    except (TypeError, OverflowError):
        raise ConfigError(f"`key` must be a whole number or jax.random.key(seed), but is {key!r}.") from None


def permutation(key: jax.Array, n: int) -> np.ndarray:
    """Returns the numbers 0..n-1 in random order, those of `jax.random.permutation`, as int [n] on the host.

    Args:
        key: random key.
        n: how many.
    """
    order = np.arange(n)
    # as often as keeps equal bits, which leave two numbers in their order, unlikely
    for _ in range(math.ceil(3 * math.log(max(n, 1)) / math.log(_MOST_BITS))):
        key, drawn = jax.random.split(key)
        bits = np.asarray(_bits(drawn, size=_padded(n)))[:n]
        order = order[np.argsort(bits, kind="stable")]
    return order


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws standard normal numbers, float32, on the default device.

    Args:
        key: random key.
        shape: of the array.
    """
    return _cut(_normal(key, size=_padded(math.prod(shape))), shape=shape)


def _padded(n: int) -> int:
    return max(_FEWEST, 1 << (n - 1).bit_length())


@functools.partial(jax.jit, static_argnames="size")
def _bits(key: jax.Array, *, size: int) -> jax.Array:
    return jax.random.bits(key, (size,))


@functools.partial(jax.jit, static_argnames="size")
def _normal(key: jax.Array, *, size: int) -> jax.Array:
    return jax.random.normal(key, (size,))


@functools.partial(jax.jit, static_argnames="shape")
def _cut(flat: jax.Array, *, shape: tuple[int, ...]) -> jax.Array:
    return flat[: math.prod(shape)].reshape(shape)
