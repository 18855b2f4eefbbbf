"""What the fits hold in memory, counted from sizes, and the voxels to fit at once.

The counts are upper bounds of what the compiled programs need, within a factor of two.
"""

from __future__ import annotations

from mine_jax import sharding
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder.linear.banded import N_CANDIDATES
from mine_jax.encoder.linear.components import MOST_IMAGES
from mine_jax.encoder.query.images import IMAGE_CHUNK
from mine_jax.encoder.query.readout import logits_at_once, tile
from mine_jax.memory.chunks import voxels_at_once
from mine_jax.memory.plan import Need, Plan, plan_chunk

_FLOAT = 4


def plan_query(
    config: QueryConfig,
    *,
    n_images: int,
    n_voxels: int,
    token_shape: tuple[int, int],
    wanted: int | None = None,
    available: int | None = None,
) -> Plan:
    """Plans the fit of query encoders.

    Args:
        config: settings.
        n_images: images of training and validation together.
        n_voxels: voxels of one device.
        token_shape: P and D.
        wanted: voxels that the user wants to be fitted at once; None to choose.
        available: free bytes of a device; None to look.

    Returns:
        Voxels fitted at once on each device (all of them with a shared trunk), and the bytes held.
    """
    need = query_need(config, n_images=n_images, token_shape=token_shape)
    wanted = n_voxels if config.trunk == "shared" else wanted
    return _planned(need, n_voxels, wanted, available)


def plan_ridge(
    config: RidgeConfig,
    *,
    n_images: int,
    n_voxels: int,
    token_shape: tuple[int, int],
    wanted: int | None = None,
    available: int | None = None,
) -> Plan:
    """Plans the fit of ridge encoders; arguments as for `plan_query`.

    Args:
        config: settings.
        n_images: images of training and validation together.
        n_voxels: voxels of one device.
        token_shape: P and D.
        wanted: voxels that the user wants to be fitted at once; None to choose.
        available: free bytes of a device; None to look.

    Returns:
        Voxels fitted at once on each device, and the bytes held.
    """
    return _planned(ridge_need(config, n_images=n_images, token_shape=token_shape), n_voxels, wanted, available)


def query_need(config: QueryConfig, *, n_images: int, token_shape: tuple[int, int]) -> Need:
    """Counts the bytes of the fit of query encoders: of a readout or a training step, whichever is larger.

    Args:
        config: settings.
        n_images: images of training and validation together.
        token_shape: P and D.

    Returns:
        Bytes in all, and for each voxel.
    """
    n_tokens, token_width = token_shape
    n_cells, n_heads = n_tokens // config.pool**2, config.heads
    width = min(config.width, token_width)
    if config.trunk == "shared":
        n_inputs, size = token_width, width  # heads have slices of the width
    else:
        n_inputs, size = width, n_heads * width
    functions = n_heads * min(config.position_order**2, n_cells)
    parameters = 2 * size + functions + 1
    moving = parameters if config.solver == "adam" else size + functions
    # state, best state, gradients, update; Adam's moments, the fresh ones, and the old while new ones are made
    kept = 4 * parameters + 6 * moving + 2 * n_heads * n_cells + n_images
    # sums and what one part of the images adds to them; eigenvectors and the work space of their solver
    grams = 4 * size**2
    read_at_once = _readout_need(size, n_heads * n_cells, is_shared=config.trunk == "shared")
    tokens = n_images * n_cells * n_inputs * (2 if config.storage == "bfloat16" else _FLOAT)
    linear = _linear_need(config, n_images, n_cells * n_inputs, size)
    # members have copies of their own
    fixed = config.members * min(tokens, config.resident_bytes) + read_at_once.fixed
    return Need(fixed + linear.fixed, _FLOAT * (kept + grams) + read_at_once.each + linear.each)


def _readout_need(size: int, n_logits: int, *, is_shared: bool) -> Need:
    """Counts the bytes of what a readout reads at once: attended tokens, and logits with what they become."""
    if is_shared:  # of all voxels together: as few images, or voxels, as keep the logits below a constant
        return Need(_FLOAT * 3 * logits_at_once(), _FLOAT * 2 * size)
    images = tile(voxels_at_once(), IMAGE_CHUNK, n_logits).images
    return Need(0, _FLOAT * images * (2 * size + 3 * n_logits))


def _linear_need(config: QueryConfig, n_images: int, n_columns: int, size: int) -> Need:
    """Counts the bytes of linear terms: of their components, and of the sums and candidates of each voxel."""
    if not config.linear:
        return Need(0, 0)
    width = min(config.linear_width, max(1, n_images), n_columns)
    # the grids of the images that are decomposed, and their products with each other in float64
    decomposed = min(n_images, MOST_IMAGES)
    fixed = decomposed * (2 * n_columns + 6 * decomposed) + config.members * width * (n_columns + 3 * n_images)
    candidates = N_CANDIDATES * (size + width + 1)
    predicted = 2 * IMAGE_CHUNK * N_CANDIDATES
    return Need(_FLOAT * fixed, _FLOAT * (3 * width * size + 2 * candidates + 3 * size**2 + predicted))


def ridge_need(config: RidgeConfig, *, n_images: int, token_shape: tuple[int, int]) -> Need:
    """Counts the bytes of the K-fold ridge.

    Args:
        config: settings.
        n_images: images of training and validation together.
        token_shape: P and D.

    Returns:
        Bytes of the part that all voxels share, and for each voxel.
    """
    n_tokens, token_width = token_shape
    n_cells = n_tokens // config.pool**2
    n_features = n_cells * min(config.width, token_width) if config.summary == "grid" else token_width
    folds, penalties = config.folds, config.penalties
    shared = n_images * n_features + (2 * folds + 2) * n_features**2 + penalties * folds * n_features
    # responses as read, centred and cut into folds; the rotated products of every fold; error curves
    each = 3 * n_images + (6 * folds + 4) * n_features + 4 * penalties
    return Need(_FLOAT * shared, _FLOAT * each)


def _planned(need: Need, n_voxels: int, wanted: int | None, available: int | None) -> Plan:
    return plan_chunk(
        need,
        n_voxels,
        available=sharding.free_bytes() if available is None else available,
        wanted=wanted,
        largest=voxels_at_once(),
    )
