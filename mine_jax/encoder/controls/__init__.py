"""Fits beside the fits: decoys with other images, halves, a rival that knows no words; and a look for shifted rows."""

from mine_jax.encoder.controls.decoys import add_decoys as add_decoys
from mine_jax.encoder.controls.decoys import is_decoy as is_decoy
from mine_jax.encoder.controls.decoys import n_copies as n_copies
from mine_jax.encoder.controls.decoys import together as together
from mine_jax.encoder.controls.halves import Half as Half
from mine_jax.encoder.controls.halves import halves as halves
from mine_jax.encoder.controls.lags import MOST_IMAGES as MOST_IMAGES
from mine_jax.encoder.controls.lags import Lags as Lags
from mine_jax.encoder.controls.lags import compare_lags as compare_lags
from mine_jax.encoder.controls.rival import Rival as Rival
from mine_jax.encoder.controls.rival import fit_rival as fit_rival
