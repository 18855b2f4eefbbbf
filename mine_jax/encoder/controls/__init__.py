"""Fits beside the fits: decoys with responses to other images, halves of the images, a rival that knows no words."""

from mine_jax.encoder.controls.decoys import add_decoys as add_decoys
from mine_jax.encoder.controls.decoys import is_decoy as is_decoy
from mine_jax.encoder.controls.decoys import n_copies as n_copies
from mine_jax.encoder.controls.decoys import together as together
from mine_jax.encoder.controls.halves import Half as Half
from mine_jax.encoder.controls.halves import halves as halves
from mine_jax.encoder.controls.rival import Rival as Rival
from mine_jax.encoder.controls.rival import fit_rival as fit_rival
