"""Fits beside the fits: decoys, whose responses belong to other images, and halves of the training images."""

from mine_jax.encoder.controls.decoys import add_decoys as add_decoys
from mine_jax.encoder.controls.decoys import is_decoy as is_decoy
from mine_jax.encoder.controls.decoys import n_copies as n_copies
from mine_jax.encoder.controls.decoys import together as together
from mine_jax.encoder.controls.halves import Half as Half
from mine_jax.encoder.controls.halves import halves as halves
