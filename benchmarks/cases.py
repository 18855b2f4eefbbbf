"""Sizes of the benchmarks, from a laptop check to a whole brain."""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """Sizes of one case.

    Attributes:
        voxels: V.
        images: N.
        tokens: P.
        width: E, attention width; also the number of ridge features.
        heads: H.
        batch: images of one training step.
        ig_voxels: voxels attributed.
        ig_images: images attributed for each of them.
        penalties: ridge grid.
        folds: of the cross-validation.
        models: shapes of frozen models, see `bench_features`.
        feature_batch: images that a frozen model takes at once.
        product: side of the square matrices that measure the device's rates, see `peaks`.
        decoder_layers: of a language model; 0 for all, on a CPU one.
    """

    voxels: int
    images: int
    tokens: int
    width: int
    heads: int
    batch: int
    ig_voxels: int
    ig_images: int
    penalties: int = 20
    folds: int = 5
    models: tuple[str, ...] = ("vit_b32",)
    feature_batch: int = 8
    product: int = 2048
    decoder_layers: int = 0


_LARGE: dict[str, Any] = {"models": ("vit_b32", "vit_l14_336", "llava_7b"), "product": 8192}
CASES = {
    "smoke": Case(200, 600, 36, 32, 2, 4, 16, 2, models=("tiny", "llava_tiny"), product=256),
    # the sizes for which performance goals on two CPU cores are stated
    "cpu": Case(8_000, 5_000, 196, 512, 8, 32, 256, 8),
    "roi": Case(1_000, 5_000, 196, 512, 8, 32, 256, 8),
    "subject": Case(15_000, 10_000, 256, 512, 8, 32, 15_000, 100, **_LARGE),
    "whole_brain": Case(300_000, 10_000, 256, 512, 8, 32, 15_000, 100, **_LARGE),
}
