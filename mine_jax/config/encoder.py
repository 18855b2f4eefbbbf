"""Section [encoder]: how responses are fitted to image-tokens, one model per kind of encoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from mine_jax.config.sections import Count, Exponent, Section, by_kind


class _Encoder(Section):
    """Keys of every kind of encoder; those of penalties also hold for the reference of a query encoder."""

    width: Count = 96
    """Width E of the attention: principal components of the image-tokens that a query sees. [ours; paper: 512]"""
    decoys: Annotated[int, Field(ge=0, le=15)] = 1
    """Voxels with exchanged responses for each voxel, the null of every claim; 0 for none. [ours]"""
    halves: bool = True
    """Fits again on two halves of the training images, for the reliability of profiles. [ours]"""
    pool: Count = 1
    """Side of the windows of image-tokens that are averaged before attention, or before a ridge on the grid. [ours]"""
    selection: Literal["kfold", "gcv", "loo"] = "kfold"
    """How ridge penalties are chosen: K folds, generalised cross-validation, or leaving one image out. [ours]"""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of `selection` "kfold". [ours]"""
    penalties: Annotated[int, Field(ge=3)] = 20
    """Number of ridge penalties that are tried. [ours]"""
    penalty_low: Exponent = -2.0
    """Smallest penalty as log10, in units of images x mean variance of a feature / features. [ours]"""
    penalty_high: Exponent = 6.0
    """Largest penalty, in the same units. [ours]"""

    @pydantic.model_validator(mode="after")
    def _check_penalties(self) -> Self:
        if self.penalty_low >= self.penalty_high:
            raise PydanticCustomError("penalties", "`penalty_low` should be below `penalty_high`")
        return self


class QueryConfig(_Encoder):
    """Encoders with a query per voxel, which attends to image-tokens."""

    kind: Literal["query"] = "query"
    solver: Literal["varpro", "adam"] = "varpro"
    """"varpro" solves the readout in closed form in every epoch, "adam" takes gradient steps. [ours; paper: adam]"""
    trunk: Literal["fixed", "shared"] = "fixed"
    """Projection of image-tokens: fixed components, or trained and shared by all voxels. [ours; parent: shared]"""
    heads: Count = 1
    """Attention heads H of each voxel. [ours; paper: 128]"""
    position_order: Annotated[int, Field(ge=0, le=32)] = 4
    """Cosines per image side in the position term of each voxel and head; 0 for none. [ours]"""
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """Step size of the queries. [ours; paper: 1.5e-5]"""
    batch_size: Count = 64
    """Images of one step. [ours]"""
    epochs: Annotated[int, Field(ge=0)] = 16
    """Passes over the training images, at most. [ours]"""
    patience: Count = 4
    """Epochs without improvement on validation images before a voxel stops. [ours]"""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Restarts of a voxel that diverged, each at half the learning rate. [ours]"""
    resident_bytes: Count = 4_294_967_296
    """Image-tokens of a split up to so many bytes stay on the device; larger ones are streamed. [ours]"""
    storage: Literal["float32", "bfloat16"] = "float32"
    """Type of numbers of image-tokens and their projections on the device during a fit. [ours]"""
    members: Annotated[int, Field(ge=1, le=16)] = 1
    """Queries of each voxel that are averaged, each with validation images of its own. [ours]"""
    linear: bool = False
    """Adds a linear term on the grid of tokens to the voxels whose validation images ask for it. [ours]"""
    linear_width: Count = 256
    """Principal components of the grid that linear terms read, at most. [ours]"""
    reference: bool = True
    """Also fits a ridge on the mean image-token, to compare with. [ours]"""


class RidgeConfig(_Encoder):
    """Linear encoders of image-level features."""

    kind: Literal["ridge"] = "ridge"
    summary: Literal["mean", "grid"] = "mean"
    """Features of an image: its mean image-token, or all of its tokens in their places. [ours]"""
    missing: Literal["exclude", "mask"] = "exclude"
    """Where responses to some images are missing: leaves out those voxels, or only these responses. [ours]"""


EncoderConfig = Annotated[QueryConfig | RidgeConfig, *by_kind(QueryConfig)]
