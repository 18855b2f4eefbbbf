"""Single-trial betas in a folder of BIDS derivatives: GLMsingle, or any GLM after fMRIPrep."""

from mine_jax.data.bids.load import expected_shape as expected_shape
from mine_jax.data.bids.load import inputs as inputs
from mine_jax.data.bids.load import load_bids as load_bids
from mine_jax.data.bids.load import open_bids_stimuli as open_bids_stimuli
from mine_jax.data.bids.load import probe as probe
