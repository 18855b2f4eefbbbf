"""THINGS-fMRI, as tables or as volumes."""

from mine_jax.data.things.load import expected_shape as expected_shape
from mine_jax.data.things.load import inputs as inputs
from mine_jax.data.things.load import load_things as load_things
from mine_jax.data.things.load import open_things_stimuli as open_things_stimuli
from mine_jax.data.things.load import probe as probe
