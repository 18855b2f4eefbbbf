"""Finds each voxel's penalty on a grid with few exact evaluations."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# After the first look, voxels that move on are evaluated in groups of this share of the block.
_GROUP = 8


def search(
    screened: jax.Array, exact: Callable[[jax.Array, jax.Array | None], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Walks from the screened minimum of each voxel until its exact minimum is bracketed.

    The chosen penalty is the one of a full search wherever the curve has one valley. Only
    voxels that still move are evaluated again, in groups of one size.

    Args:
        screened: [A, v] approximate errors; only the place of their minimum matters.
        exact: (index [C, b], columns [b] or None for all) -> errors [C, b].

    Returns:
        Index [v] of the penalty and its exact error [v].
    """
    n, v = screened.shape
    group = max(1, v // _GROUP)

    def moving(errors: jax.Array) -> jax.Array:
        return (errors[0] < errors[1]) | (errors[2] < errors[1])

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, errors = state
        columns = jnp.nonzero(moving(errors), size=group, fill_value=v)[0]
        here = index.at[columns].get(mode="clip")
        left, middle, right = errors.at[:, columns].get(mode="clip")
        down = (left < middle) & (left <= right)
        here = jnp.where(down, here - 1, here + 1)
        ahead = jnp.where(down, here - 1, here + 1)
        inside = (ahead >= 0) & (ahead < n)
        fresh = jnp.where(inside, exact(jnp.clip(ahead, 0, n - 1)[None], columns)[0], jnp.inf)
        walked = jnp.where(down[None], jnp.stack([fresh, left, middle]), jnp.stack([middle, right, fresh]))
        return index.at[columns].set(here, mode="drop"), errors.at[:, columns].set(walked, mode="drop")

    start = jnp.clip(jnp.argmin(screened, 0), 1, n - 2)
    around = start[None] + jnp.arange(-1, 2)[:, None]
    index, errors = lax.while_loop(lambda state: jnp.any(moving(state[1])), step, (start, exact(around, None)))
    return index, errors[1]
