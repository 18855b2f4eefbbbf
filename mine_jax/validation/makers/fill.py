"""Removal without a generative model: a masked region is filled smoothly from around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mine_jax.validation.makers.protocols import Instruction, NotApplicableError

# Sweeps per level of the pyramid; the coarsest level has one pixel, so few are enough.
_SWEEPS = 24
_EDGE = 2


class FillEditor:
    """Removes what lies under a mask; inserts nothing."""

    def edit(
        self,
        images: Sequence[np.ndarray],
        instructions: Sequence[str],
        *,
        seeds: Sequence[int],
        masks: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """Returns the images with their masks filled.

        Args:
            images: N images uint8 [h, w, 3].
            instructions: N texts; only "insert" instructions matter, they cannot be done.
            seeds: not used.
            masks: N masks bool [h, w], True where the object is.

        Raises:
            NotApplicableError: for an insertion, or without masks.
        """
        del seeds
        if masks is None:
            raise NotApplicableError("the fill needs a mask of what shall go.")
        edited = []
        for image, instruction, mask in zip(images, instructions, masks, strict=True):
            action = instruction.action if isinstance(instruction, Instruction) else "remove"
            if action == "insert":
                raise NotApplicableError("the fill can remove, but not insert.")
            edited.append(image.copy() if action == "noop" else fill(image, mask))
        return edited


def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills a region with a smooth continuation of its surroundings.

    Solves Laplace's equation inside the mask with the pixels around it as boundary, from
    coarse to fine; texture is not continued.

    Args:
        image: uint8 [h, w, 3].
        mask: [h, w] bool, True where to fill.

    Returns:
        uint8 [h, w, 3]; equal to `image` outside the mask (grown by two pixels).

    Source: diffusion inpainting, Bertalmio et al. 2000, in its isotropic form.
    """
    grown = _grow(mask, _EDGE)
    if grown.all():
        mean = image.reshape(-1, image.shape[2]).mean(0)
        return np.broadcast_to(np.rint(mean), image.shape).astype(np.uint8)
    filled = _solve(np.where(grown[..., None], 0.0, image.astype(np.float64)), ~grown)
    return np.where(grown[..., None], np.rint(np.clip(filled, 0, 255)), image).astype(np.uint8)


def _solve(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fills unknown pixels [h, w] of values [h, w, 3]."""
    if known.all() or min(known.shape) == 1:
        mean = values[known].mean(0) if known.any() else np.zeros(values.shape[2])
        return np.where(known[..., None], values, mean)
    coarse, coarse_known = _halved(values, known)
    guess = _solve(coarse, coarse_known).repeat(2, 0).repeat(2, 1)[: known.shape[0], : known.shape[1]]
    values = np.where(known[..., None], values, guess)
    for _ in range(_SWEEPS):
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        values = np.where(known[..., None], values, around)
    return values


def _halved(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the known pixels of 2 x 2 blocks, and which blocks have any."""
    odd = ((0, known.shape[0] % 2), (0, known.shape[1] % 2))
    weight = np.pad(known.astype(float), odd)
    total = np.pad(values * known[..., None], (*odd, (0, 0)))
    shape = (weight.shape[0] // 2, 2, weight.shape[1] // 2, 2)
    count = weight.reshape(shape).sum((1, 3))
    means = total.reshape(*shape, -1).sum((1, 3)) / np.maximum(count, 1)[..., None]
    return means, count > 0


def _grow(mask: np.ndarray, n: int) -> np.ndarray:
    for _ in range(n):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask
