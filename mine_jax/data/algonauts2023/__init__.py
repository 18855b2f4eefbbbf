"""The Algonauts 2023 challenge, in its own file layout."""

from mine_jax.data.algonauts2023.load import expected_shape as expected_shape
from mine_jax.data.algonauts2023.load import images_of as images_of
from mine_jax.data.algonauts2023.load import inputs as inputs
from mine_jax.data.algonauts2023.load import load_algonauts as load_algonauts
from mine_jax.data.algonauts2023.load import open_algonauts_stimuli as open_algonauts_stimuli
from mine_jax.data.algonauts2023.load import probe as probe
