"""Sections of the stages after the fit: [attribution], [description], [profile], [validation] and [roi]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mine_jax.config.sections import Count, CountOrShare, Fraction, Fractions, Judge, Maker, Names, Section


class AttributionConfig(Section):
    """Which image-tokens drive a voxel: integrated gradients and patching."""

    method: Literal["exact", "autodiff"] = "exact"
    """"exact" uses that keys and values are linear in a token; "autodiff" takes any encoder. [ours]"""
    n_steps: Count = 32
    """Points of the quadrature along the path from baseline to image. [ours; parent: 50]"""
    max_steps: Count = 256
    """Most points for pairs of voxel and image whose completeness gap exceeds `tolerance`. [ours]"""
    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest completeness gap, as a share of the range of a voxel's predictions. [ours]"""
    quadrature: Literal["gausslegendre", "midpoint"] = "gausslegendre"
    """Rule of the quadrature. [ours]"""
    baseline: Literal["mean", "zero"] = "mean"
    """Start of the path: the mean training token, or zeros. [parent]"""
    reduce: Literal["sum", "abs"] = "sum"
    """How a token's score sums over its width D: signed, or absolute values ("autodiff" only). [ours; parent: abs]"""
    k: CountOrShare = 50
    """Critical image-tokens K of each image: fewer than it has tokens, or a share of them below 1. [paper]"""
    n_images: Count = 48
    """Images that are attributed for each voxel. [ours]"""
    images: Literal["top", "random"] = "top"
    """Which: those with the highest predicted responses, or random ones. [ours]"""
    split: Literal["all", "train", "test"] = "all"
    """Images to choose from; "train" are those used for the fit. [ours]"""
    min_r2: Annotated[float, Field(le=1)] = 0.0
    """Voxels whose R2 on the images that chose their encoder is lower are not attributed. [ours]"""
    sufficiency: Fraction = 0.9
    """Share of the predicted response that the fewest sufficient tokens restore (`k_adaptive`). [ours]"""
    n_random: Count = 5
    """Random orders of tokens that are averaged in the curves. [ours]"""
    keep_scores: bool = True
    """Also writes the scores of all tokens (heat.npy), for heat maps and controls. [ours]"""


class DescriptionConfig(Section):
    """Critical tokens to words."""

    m: Count = 10
    """Words M that the lens reads from each critical image-token. [paper]"""
    n_words: Count = 20
    """Words kept in the description of an image. [ours]"""


class ProfileConfig(Section):
    """Descriptions of images to one functional profile per voxel."""

    faithfulness_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Images whose faithfulness is above this quantile of their voxel make its profile. [ours; paper: 0.75]"""
    min_images: Count = 6
    """Images that make a profile, at least, where the voxel has them. [ours]"""
    n_words: Count = 20
    """Words kept in a profile. [ours]"""
    n_bootstrap: Count = 200
    """Draws of images for the intervals of words. [ours]"""
    n_permutations: Count = 2000
    """Permutations of each test at most; a test ends once 100 of them reach what was observed. [ours]"""
    max_q: Fraction = 0.05
    """Largest q (false discovery rate) of every claim. [ours]"""
    min_share: Fraction = 0.2
    """Smallest r of the words beyond low-level features, as a share of the encoder's, for claim "words". [ours]"""
    max_rank: Fraction = 0.2
    """Largest share of other voxels' words that predict the voxel no worse, for claim "words". [ours]"""


class ValidationConfig(Section):
    """Generated and edited images: does the response move as described?"""

    generator: Maker = "none"
    """What draws images: a diffusers pipeline directory, "phantom", "oracle" (phantom data only) or "none". [ours]"""
    editor: Maker = "none"
    """What changes images: as `generator`, or "fill" for removals without a generative model. [ours]"""
    conditions: Names = ("description", "random", "lowest")
    """What prompts are made from: the description, and the controls random and lowest-scoring tokens. [paper]"""
    n_pairs: Count = 72
    """Pairs of voxel and image that are tested. [ours]"""
    n_images: Count = 6
    """Images of each voxel among them. [ours]"""
    n_seeds: Count = 1
    """Images that are drawn for each pair and condition. [ours]"""
    n_words: Count = 3
    """Most words in a prompt or an edit. [ours]"""
    min_weight: Fraction = 0.25
    """Smallest weight of a word in a prompt or an edit, relative to the first word. [ours]"""
    strengths: Fractions = ()
    """Doses of an insertion besides the full one. [ours]"""
    steps: Count | None = None
    """Denoising steps; without it the pipeline's default."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance by the prompt; without it the pipeline's default."""
    image_guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance of an edit by its image; without it the pipeline's default."""
    size: Count | None = None
    """Side of generated images in pixels (edited ones are scaled to it and back); without it the default."""
    evaluator: Judge = "ridge"
    """Independent judge: "ridge" on other images, "clip:DIR" or "siglip:DIR" on another model, or "none". [ours]"""
    retries: Annotated[int, Field(ge=0)] = 2
    """Retries of an image whose generator raised. [ours]"""
    n_permutations: Count = 10_000
    """Permutations of each test. [ours]"""
    n_bootstrap: Count = 2000
    """Draws for the intervals. [ours]"""
    max_q: Fraction = 0.05
    """Largest q of a voxel that its words move: the claim "causal". [ours]"""


class RoiConfig(Section):
    """Areas of the brain: what they prefer, and whether their voxels differ."""

    categories: dict[str, Names] = Field(default_factory=dict)
    """Words of each category, as [roi.categories]; without it the built-in lists. [ours]"""
    min_voxels: Count = 5
    """Fitted voxels that an area must have to be tested. [ours]"""
    min_enrichment: Fraction = 0.1
    """Smallest difference of shares, area against the rest, that is a preference. [ours]"""
    min_worded: Fraction = 0.2
    """Share of an area's fitted voxels that must reach the claim "words". [ours]"""
    max_q: Fraction = 0.05
    """Largest q of preferences, structure and contrasts. [ours]"""
    n_surrogates: Count = 500
    """Random maps at most, as smooth as the measured ones, the null of a preference. [ours]"""
    n_permutations: Count = 2000
    """Permutations of each test at most; a test ends once 100 of them reach what was observed. [ours]"""
    n_bootstrap: Count = 200
    """Draws of voxels for the intervals. [ours]"""
