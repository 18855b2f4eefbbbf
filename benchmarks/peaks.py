"""What the device can do at most, measured, and the share of it that an implementation reaches.

A roofline: the work that a method cannot do without takes at least as long as its slowest kind
takes at the device's own rate. Rates are the best of several runs, in the same process as the
benchmark and right after the first that asks, in the seconds that the benchmark uses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cases import Case
from benchmarks.timing import time_in_turn

# Passes over the arrays in place: the first one also makes the pages of the result.
_PASSES = 64
_EXPONENTIAL_PASSES = 8
# Exponentials of each number in a pass, so many that reading the number does not count.
_EXPONENTIALS = 32
_MIN_ROUNDS = 3


class Work(NamedTuple):
    """Work of each kind; as a rate, what is done in one second.

    Attributes:
        arithmetic: floating-point operations, two for a multiplication and addition.
        memory: bytes read and written, each array once.
        exponentials: exponential functions.
    """

    arithmetic: float
    memory: float = 0.0
    exponentials: float = 0.0


class Product(NamedTuple):
    """A matrix product [rows, inner] x [inner, columns] that shows what the device can multiply.

    Attributes:
        rows: of the first matrix.
        inner: summed over.
        columns: of the second matrix.
        dtype: of both.
        precision: of jax; None for the device's default.
    """

    rows: int
    inner: int
    columns: int
    dtype: str = "float32"
    precision: str | None = "highest"

    @property
    def flop(self) -> int:
        """Operations of one product."""
        return 2 * self.rows * self.inner * self.columns


def squares(case: Case, *, dtype: str = "float32", precision: str | None = "highest") -> tuple[Product, ...]:
    """Returns a product that fills the memory and one that fits the caches of processors.

    Args:
        case: `product` is the side of the larger one.
        dtype: of the matrices.
        precision: of jax; None for the device's default.
    """
    return tuple(Product(side, side, side, dtype, precision) for side in (case.product, max(1, case.product // 4)))


@functools.cache
def measure(products: tuple[Product, ...], *, side: int, rounds: int) -> Work:
    """Measures the best rates of the default device, once in a process for the same products.

    Args:
        products: matrix products; the fastest counts.
        side: the streamed arrays and the arguments of the exponentials have 4 and 1/4 side^2 numbers.
        rounds: counted runs of each, at least three.

    Returns:
        Work in one second: CPU seconds on a CPU, else wall seconds.
    """
    repeats = [max(1, round(2 * side**3 / product.flop)) for product in products]
    calls = {
        f"product {i}": _multiplying(product, n) for i, (product, n) in enumerate(zip(products, repeats, strict=True))
    }
    stream = jnp.ones((4, side, side))
    calls["memory"] = functools.partial(_stream, stream, stream * 0.5)
    calls["exponentials"] = functools.partial(_exponentials, stream[0, : side // 4])
    seconds = {
        name: min(timing.seconds())
        for name, timing in time_in_turn(calls, rounds=max(rounds, _MIN_ROUNDS), with_memory=False).items()
    }
    return Work(
        arithmetic=max(
            n * product.flop / seconds[f"product {i}"]
            for i, (product, n) in enumerate(zip(products, repeats, strict=True))
        ),
        # two arrays are read and one is written
        memory=3 * _PASSES * stream.nbytes / seconds["memory"],
        exponentials=_EXPONENTIAL_PASSES * _EXPONENTIALS * (side // 4) * side / seconds["exponentials"],
    )


def roofline(work: Work, rates: Work, *, seconds: float) -> dict[str, Any]:
    """Compares seconds with the least that the work takes.

    Args:
        work: what cannot be left out.
        rates: of `measure`.
        seconds: of an implementation.

    Returns:
        `roofline`, the least seconds as a fraction of those taken; `bound`, the kind of work that
        takes them; `work` and `rates` by kind.
    """
    least = {kind: amount / rate for kind, amount, rate in zip(Work._fields, work, rates, strict=True)}
    bound = max(least, key=lambda kind: least[kind])
    return {
        "roofline": least[bound] / seconds,
        "bound": bound,
        "work": work._asdict(),
        "rates": rates._asdict(),
    }


def _multiplying(product: Product, repeats: int) -> Callable[[], jax.Array]:
    """Returns a call that multiplies often enough to be timed."""
    first_key, second_key = jax.random.split(jax.random.key(2))
    a = jax.random.normal(first_key, (product.rows, product.inner)).astype(product.dtype)
    b = jax.random.normal(second_key, (product.inner, product.columns)).astype(product.dtype)

    def call() -> jax.Array:
        for _ in range(repeats - 1):
            _multiply(a, b, precision=product.precision)
        return _multiply(a, b, precision=product.precision)

    return call


@functools.partial(jax.jit, static_argnames=("precision",))
def _multiply(a: jax.Array, b: jax.Array, *, precision: str | None) -> jax.Array:
    return jnp.einsum("nk,km->nm", a, b, precision=precision, preferred_element_type=jnp.float32)


@jax.jit
def _stream(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, _PASSES, lambda _, x: 0.5 * x + b, a)


@jax.jit
def _exponentials(x: jax.Array) -> jax.Array:
    def one_pass(_: jax.Array, x: jax.Array) -> jax.Array:
        return sum((jnp.exp(-0.02 * n * x) for n in range(1, _EXPONENTIALS + 1)), jnp.zeros_like(x))

    return jax.lax.fori_loop(0, _EXPONENTIAL_PASSES, one_pass, x)
