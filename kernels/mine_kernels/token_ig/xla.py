"""The closed form: no backward pass, no gradient tensor, O(P H) per voxel, image and step.

With the attention A(a), the value scalars U(a) and the prediction of a head Y = sum A U at
share a of the path, the score of a token in cell c is
    w_c,p sum_h [ du_p int A_c da + dl_p int A_c (U_c - Y) da ],
since logits and value scalars are linear in a (dl, du: their changes over the path).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from mine_kernels.masked_softmax import masked_softmax


def token_ig(logits_0, logits_1, scalars_0, scalars_1, position, cells, nodes, weights):
    """Computes the scores of the reference; leading axes [..., H, P] are batched.

    The maximum is taken at every step: one bound for the whole path underflows when
    attention is sharp, since the true maximum can sag in the middle of the path.
    """
    d_logits, d_scalars = logits_1 - logits_0, scalars_1 - scalars_0
    pooled = cells is not None
    to_cells = (lambda x: x @ cells.T) if pooled else (lambda x: x)
    start_l, delta_l = to_cells(logits_0) + position, to_cells(d_logits)
    start_u, delta_u = to_cells(scalars_0), to_cells(d_scalars)
    real = cells.sum(1) > 0 if pooled else None

    def step(sums, node):
        share, weight = node
        attention = masked_softmax(start_l + share * delta_l, real)
        scalars = start_u + share * delta_u
        head = (attention * scalars).sum(-1, keepdims=True)
        attention = attention * weight
        return (sums[0] + attention, sums[1] + attention * (scalars - head)), None

    zeros = jnp.zeros(jnp.broadcast_shapes(start_l.shape, delta_l.shape), start_l.dtype)
    (mass, slope), _ = lax.scan(step, (zeros, zeros), (nodes, weights))
    if pooled:
        mass, slope = mass @ cells, slope @ cells
    return (d_scalars * mass + d_logits * slope).sum(-2)
