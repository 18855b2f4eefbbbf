"""Spheres of triangles as FreeSurfer's fsaverage has them: an icosahedron whose triangles are cut in four."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import ConvexHull


def icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [10 * 4**level + 2, 3] at distance 1 from the origin, and triangles [20 * 4**level, 3].

    fsaverage, with 163,842 vertices, is of level 7.
    """
    golden = (1 + 5**0.5) / 2
    corner = np.array([(one, other * golden, 0) for one in (1, -1) for other in (1, -1)])
    at = np.concatenate([np.roll(corner, axis, 1) for axis in range(3)])
    triangles = ConvexHull(at).simplices
    at = at / np.linalg.norm(at, axis=1, keepdims=True)
    for _ in range(level):
        ends, number = np.unique(sides(triangles), axis=0, return_inverse=True)
        middle = at[ends].sum(1)
        first, second, third = number.reshape(3, -1) + len(at)
        a, b, c = triangles.T
        triangles = np.concatenate(
            [np.stack(new, 1) for new in ((a, first, third), (b, second, first), (c, third, second))]
            + [np.stack([first, second, third], 1)]
        )
        at = np.concatenate([at, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
    return at, triangles


def sides(triangles: np.ndarray) -> np.ndarray:
    """Ends [3 T, 2] of the sides of triangles [T, 3], the lower first; first sides of all, then second, then third."""
    return np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)


def averaging(triangles: np.ndarray, chosen: np.ndarray, n_vertices: int) -> csr_array:
    """Matrix [v, v] that averages each of the chosen vertices [v] with its chosen neighbours.

    As a step of smoothing it adds 3 / 7 of the squared distance of neighbours to the variance along each axis.
    """
    row = np.full(n_vertices, -1)
    row[chosen] = np.arange(len(chosen))
    ends = row[np.unique(sides(triangles), axis=0)]
    one, other = ends[(ends >= 0).all(1)].T
    own = np.arange(len(chosen))
    rows, columns = np.concatenate([one, other, own]), np.concatenate([other, one, own])
    count = np.bincount(rows)
    return csr_array((1 / count[rows], (rows, columns)), (len(chosen), len(chosen)))
