"""LAION-fMRI, in its own file layout."""

from mine_jax.data.laion_fmri.load import expected_shape as expected_shape
from mine_jax.data.laion_fmri.load import images_of as images_of
from mine_jax.data.laion_fmri.load import inputs as inputs
from mine_jax.data.laion_fmri.load import load_laion as load_laion
from mine_jax.data.laion_fmri.load import open_laion_stimuli as open_laion_stimuli
from mine_jax.data.laion_fmri.load import probe as probe
