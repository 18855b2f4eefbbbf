"""Anyone's own photos and responses."""

from mine_jax.data.folder.load import expected_shape as expected_shape
from mine_jax.data.folder.load import inputs as inputs
from mine_jax.data.folder.load import load_folder as load_folder
from mine_jax.data.folder.load import open_folder_stimuli as open_folder_stimuli
