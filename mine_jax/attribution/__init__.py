"""Stage 4: which image-tokens drive a voxel, and whether they really do."""

from mine_jax import _public
from mine_jax.attribution.attribute import attribute_and_patch as attribute_and_patch
from mine_jax.attribution.attribute import choose_images as choose_images
from mine_jax.attribution.attribute import faithfulness_of_halves as faithfulness_of_halves
from mine_jax.attribution.critical_tokens import critical_tokens as critical_tokens
from mine_jax.attribution.critical_tokens import find_critical_tokens as find_critical_tokens
from mine_jax.attribution.critical_tokens import n_critical as n_critical
from mine_jax.attribution.critical_tokens import warning_of_many as warning_of_many
from mine_jax.attribution.curves import extent as extent
from mine_jax.attribution.curves import left_without as left_without
from mine_jax.attribution.curves import mean_curves as mean_curves
from mine_jax.attribution.curves import median_faithfulness as median_faithfulness
from mine_jax.attribution.curves import relative_curves as relative_curves
from mine_jax.attribution.integrated_gradients import integrated_gradients as integrated_gradients
from mine_jax.attribution.patching import patch_tokens as patch_tokens

__all__ = _public(globals())
