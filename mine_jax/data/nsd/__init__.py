"""The Natural Scenes Dataset, in its own file layout."""

from mine_jax.data.nsd.layout import inputs as inputs
from mine_jax.data.nsd.layout import stimuli_file as stimuli_file
from mine_jax.data.nsd.load import load_nsd as load_nsd
from mine_jax.data.nsd.load import open_nsd_stimuli as open_nsd_stimuli
