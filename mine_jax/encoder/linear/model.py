"""The linear term: a weighted sum over the cells of the token grid, added to what the query reads.

    l_v = mean_c (k_c . b_vc),   b_vc = sum_r basis_cr linear_vr

It is one more head, which attends to all real cells alike and whose readout differs from cell to cell: its
token terms have logits 0 and scalars k_p . b_vc(p), so that integrated gradients, completeness and patching
stay exact. The weights of all voxels are combinations of R components of the grid, which voxels share.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mine_jax.encoder.cells import cell_of_token
from mine_jax.types import Architecture, Array

Arrays = Mapping[str, Array]
# Names of the arrays: components [C, E, R] that voxels share, and each voxel's weights [R].
BASIS, WEIGHTS = "linear_basis", "linear"


def has_linear(per_voxel: Arrays) -> bool:
    """Says whether encoders have a linear term."""
    return WEIGHTS in per_voxel


def with_linear(
    shared: Arrays, voxel: Arrays, keys: Array, logits: Array, scalars: Array, architecture: Architecture
) -> tuple[Array, Array]:
    """Adds the head of the linear term to the token terms of one voxel.

    Args:
        shared: `linear_basis` [C, E, R].
        voxel: `linear` [R].
        keys: [P, E], or [1, E] where all tokens are alike.
        logits: [H, P], or [H, 1].
        scalars: as the logits.
        architecture: static description.

    Returns:
        Logits and scalars [H + 1, P].
    """
    own = components_of_tokens(shared[BASIS], keys, architecture) @ voxel[WEIGHTS]
    wide = [jnp.broadcast_to(terms, (len(terms), len(own))) for terms in (logits, scalars)]
    return jnp.concatenate([wide[0], jnp.zeros_like(own)[None]]), jnp.concatenate([wide[1], own[None]])


def with_place(position: Array, n_heads: int) -> Array:
    """Adds zeros to the position terms [H, C] for the head of the linear term, where there is one."""
    return jnp.pad(position, ((0, n_heads - len(position)), (0, 0)))


def components_of_tokens(basis: Array, keys: Array, architecture: Architecture) -> jax.Array:
    """Returns what each token [1 or P, E] adds to the components [P, R] of its cell, but for the mean over cells."""
    n_cells, width, _ = basis.shape
    n_tokens = n_cells * architecture.pool**2
    order, back = cell_of_token(architecture, n_tokens)
    keys = jnp.broadcast_to(keys, (n_tokens, width))
    by_cell = jnp.einsum("cke,cer->ckr", keys[order].reshape(n_cells, -1, width), basis)
    return by_cell.reshape(n_tokens, -1)[back]


def features_of(basis: Array, keys: Array, mask: Array | None) -> jax.Array:
    """Returns the components [B, R] of images.

    Args:
        basis: [C, E, R].
        keys: [B, C, E].
        mask: [B, C] bool, or None.
    """
    if mask is None:
        return jnp.einsum("bce,cer->br", keys, basis) / keys.shape[1]
    weights = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
    return jnp.einsum("bce,bc,cer->br", keys, weights, basis)
