"""The closed form: no backward pass, no gradient tensor, O(P H) per voxel, image and step.

With the attention A(a), the value scalars U(a) and the prediction of a head Y = sum A U at
share a of the path, the score of a token in cell c is
    w_c,p sum_h [ du_p int A_c da + dl_p int A_c (U_c - Y) da ],
since logits and value scalars are linear in a (dl, du: their changes over the path).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mine_kernels.arrays import Array

# Logits of cells without a real token; finite, so that no difference of two of them is NaN.
_HIDDEN = -1e30


def token_ig(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    cells: Array | None,
    nodes: Array,
    weights: Array,
    *,
    block: int | None = None,
) -> jax.Array:
    """Computes the scores of the reference; leading axes [..., H, P] are batched.

    Args:
        logits_0: [..., H, P], or [..., H, 1] where all tokens start alike; so are the others.
        logits_1: [..., H, P].
        scalars_0: [..., H, P].
        scalars_1: [..., H, P].
        position: [..., H, C].
        cells: [C, P] or None.
        nodes: [S].
        weights: [S]; zeros at the end are steps that are not taken, so that S may be the same for any number of them.
        block: numbers of one array worked on at a time, so that they stay in a processor's
            cache; None for all at once. Speed only, never the result.

    Returns:
        Scores [..., P].
    """
    given = (logits_0, logits_1, scalars_0, scalars_1, position)
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in given))
    n_pairs, (n_heads, n_tokens) = int(np.prod(lead)), logits_1.shape[-2:]
    flat = [jnp.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(n_pairs, *x.shape[-2:]) for x in given]

    def scores(*arrays: jax.Array) -> jax.Array:
        return _token_ig(*arrays, cells, nodes, weights)

    n_blocks = 1 if block is None else min(n_pairs, -(-n_pairs * n_heads * n_tokens // block))
    if n_blocks > 1:
        size = -(-n_pairs // n_blocks)
        n_blocks = -(-n_pairs // size)
        padding = ((0, n_blocks * size - n_pairs), (0, 0), (0, 0))
        flat = [jnp.pad(x, padding).reshape(n_blocks, size, *x.shape[1:]) for x in flat]
        made = lax.map(lambda arrays: scores(*arrays), tuple(flat)).reshape(-1, n_tokens)[:n_pairs]
    else:
        made = scores(*flat)
    return made.reshape(*lead, n_tokens)


def top_k(scores: Array, k: int) -> jax.Array:
    """Computes the indices of the reference's `top_k` without sorting all tokens."""
    limit = jnp.finfo(scores.dtype).max
    # NaN comes after -inf, and -0 equals 0, as in a stable sort
    ranked = jnp.where(jnp.isnan(scores), -jnp.inf, jnp.clip(scores, -limit, None))
    return lax.top_k(jnp.where(ranked == 0, 0.0, ranked), k)[1]


def n_taken(weights: Array) -> jax.Array:
    """Returns how many steps of a path are taken, a number: those of weights [S] but for zeros at the end."""
    return jnp.max(jnp.where(weights != 0, jnp.arange(1, len(weights) + 1), 0))


def _token_ig(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    cells: Array | None,
    nodes: Array,
    weights: Array,
) -> jax.Array:
    """Scores [n, P] of n pairs.

    Softmax needs a bound of the logits at every step. The largest logit is convex in the
    share, so lines between its values at the start, the middle and the end bound it; they
    lie above it by at most an eighth of the spread of dl, far from underflow below 600.
    """
    d_logits, d_scalars = logits_1 - logits_0, scalars_1 - scalars_0
    to_cells = (lambda x: x) if cells is None else (lambda x: jnp.broadcast_to(x, d_logits.shape) @ cells.T)
    start_l, delta_l = to_cells(logits_0) + position, to_cells(d_logits)
    start_u, delta_u = to_cells(scalars_0), to_cells(d_scalars)
    if cells is not None:
        start_l = jnp.where(cells.sum(1) > 0, start_l, _HIDDEN)
    bounds = [jnp.maximum((start_l + a * delta_l).max(-1, keepdims=True), 0.1 * _HIDDEN) for a in (0.0, 0.5, 1.0)]
    # sums over tokens as products with ones: those use all lanes of a processor
    ones = jnp.ones((position.shape[-1], 1), start_l.dtype)

    def step(number: Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        share, weight = nodes[number], weights[number]
        first, last = jnp.maximum(1 - 2 * share, 0), jnp.maximum(2 * share - 1, 0)
        bound = first * bounds[0] + (1 - first - last) * bounds[1] + last * bounds[2]
        exponentials = jnp.exp(start_l + share * delta_l - bound)
        scalars = start_u + share * delta_u
        total = jnp.matmul(exponentials, ones, precision="highest")
        total = jnp.where(total > 0, total, 1.0)
        head = jnp.matmul(exponentials * scalars, ones, precision="highest") / total
        attention = exponentials * (weight / total)
        return sums[0] + attention, sums[1] + attention * (scalars - head)

    zeros = jnp.zeros_like(start_l + delta_l)
    mass, slope = lax.fori_loop(0, n_taken(weights), step, (zeros, zeros))
    if cells is not None:
        mass, slope = mass @ cells, slope @ cells
    return (d_scalars * mass + d_logits * slope).sum(-2)
