"""BOLD5000, both releases."""

from mine_jax.data.bold5000.load import expected_shape as expected_shape
from mine_jax.data.bold5000.load import inputs as inputs
from mine_jax.data.bold5000.load import load_bold5000 as load_bold5000
from mine_jax.data.bold5000.load import open_bold5000_stimuli as open_bold5000_stimuli
from mine_jax.data.bold5000.load import probe as probe
