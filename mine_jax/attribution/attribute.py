"""Attribution, critical tokens and patching in one pass over the voxels.

Scores of all tokens exist for some voxels at a time; what stays is small: K tokens, a few
numbers and the curves of every pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.attribution.critical_tokens import critical_tokens
from mine_jax.attribution.integrated_gradients import integrated_gradients
from mine_jax.attribution.patching import patch_tokens
from mine_jax.memory.chunks import chunk_size
from mine_jax.types import Attributions, CriticalTokens, Encoders, Faithfulness, ImageTokens

# Scores held at once, 256 MiB of float32.
_HELD_SCORES = 1 << 26


def attribute_and_patch(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray | None = None,
    baseline: Any = None,
    k: int = 50,
    sufficiency: float = 0.9,
    n_random: int = 5,
    seed: int = 0,
    keep: Callable[[slice, np.ndarray], None] | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **options: Any,
) -> tuple[Attributions, CriticalTokens, Faithfulness]:
    """Attributes pairs, finds critical tokens and patches them, slab by slab.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        image_ids: [V, I] images of each voxel; None for all images.
        baseline: start of the path, as for `integrated_gradients`.
        k: critical tokens kept.
        sufficiency: as for `patch_tokens`.
        n_random: as for `patch_tokens`.
        seed: as for `patch_tokens`.
        keep: called with a slice of voxels and their scores [v, I, P], for who wants to write them.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) voxels.
        **options: further ones of `integrated_gradients`.

    Returns:
        Attributions without scores ([V, I, 0]), critical tokens [V, I, K] and faithfulness [V, I].

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.

    Source: MINE, K = 50 and activation patching.
    """
    n_voxels, n_tokens = len(encoders.voxel_ids), tokens.tokens.shape[1]
    n_images = len(tokens.image_ids) if image_ids is None else np.shape(image_ids)[1]
    size = chunk_size(n_voxels, max(1, _HELD_SCORES // max(1, n_images * n_tokens)))
    chunks: dict[str, Any] = {"baseline": baseline, "voxel_chunk": voxel_chunk, "image_chunk": image_chunk}
    chunks["mesh"] = mesh
    parts = []
    for start in range(0, n_voxels, size):
        voxels = slice(start, min(start + size, n_voxels))
        some = encoders.take(np.arange(voxels.start, voxels.stop))
        chosen = None if image_ids is None else image_ids[voxels]
        done = _shifted(progress, 2 * start, 2 * n_voxels)
        attributions = integrated_gradients(some, tokens, image_ids=chosen, progress=done, **chunks, **options)
        done = _shifted(progress, start + voxels.stop, 2 * n_voxels)
        faithful = patch_tokens(
            some,
            tokens,
            attributions,
            k=k,
            sufficiency=sufficiency,
            n_random=n_random,
            seed=seed,
            progress=done,
            **chunks,
        )
        if keep is not None:
            keep(voxels, attributions.scores)
        critical = critical_tokens(attributions, k=k)
        none = np.zeros((*attributions.scores.shape[:2], 0), np.float32)
        parts.append((dataclasses.replace(attributions, scores=none), critical, faithful))
    attributions, critical, faithful = (_joined(list(part)) for part in zip(*parts, strict=True))
    return attributions, critical, faithful


def _shifted(progress: Progress, offset: int, total: int) -> Progress:
    return lambda done, _: progress(offset + done, total)


def _joined(parts: list[Any]) -> Any:
    """Joins the voxels of equal dataclasses; `k_values` has no voxel axis."""
    fields = {}
    for field in dataclasses.fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "k_values":
            fields[field.name] = values[0]
        elif isinstance(values[0], dict):
            fields[field.name] = {name: np.concatenate([value[name] for value in values]) for name in values[0]}
        else:
            fields[field.name] = np.concatenate(values)
    return type(parts[0])(**fields)
