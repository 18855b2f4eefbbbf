"""Encoders with the interface of scikit-learn: arrays in, arrays out."""

from mine_jax import _public
from mine_jax.estimators.voxel_encoder import VoxelEncoder as VoxelEncoder

__all__ = _public(globals())
