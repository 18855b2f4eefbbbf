"""The ridge encoder: one linear readout per voxel, its penalty by cross-validation."""

from mine_jax.encoder.ridge.banded import BandedSolution as BandedSolution
from mine_jax.encoder.ridge.banded import random_band_weights as random_band_weights
from mine_jax.encoder.ridge.banded import solve_banded as solve_banded
from mine_jax.encoder.ridge.model import predict_one as predict_one
from mine_jax.encoder.ridge.model import readout_one as readout_one
from mine_jax.encoder.ridge.model import summarize_one as summarize_one
from mine_jax.encoder.ridge.model import token_terms_one as token_terms_one
from mine_jax.encoder.ridge.solve import Solution as Solution
from mine_jax.encoder.ridge.solve import solve as solve
