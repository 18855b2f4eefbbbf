"""Stage 1: files on disk to responses and images, joined by image id.

A reader is one file or folder (`folder.py`, `nsd/`) and one row of `loading.READERS`; README.md lists the steps.
"""

from mine_jax import _public
from mine_jax.data.checking import check as check
from mine_jax.data.checking import expected_shape as expected_shape
from mine_jax.data.checking import why_not_read as why_not_read
from mine_jax.data.containers.spheres import warning_of_places as warning_of_places
from mine_jax.data.copies import MOST_PHOTOS as MOST_PHOTOS
from mine_jax.data.copies import Thumbnails as Thumbnails
from mine_jax.data.copies import find_copies as find_copies
from mine_jax.data.copies import not_searched as not_searched
from mine_jax.data.copies import warning_of_copies as warning_of_copies
from mine_jax.data.folder import load_folder as load_folder
from mine_jax.data.folder import open_folder_stimuli as open_folder_stimuli
from mine_jax.data.loading import image_inputs as image_inputs
from mine_jax.data.loading import inputs as inputs
from mine_jax.data.loading import load as load
from mine_jax.data.loading import open_stimuli as open_stimuli
from mine_jax.data.masks import mask as mask
from mine_jax.data.masks import unmask as unmask
from mine_jax.data.noise_ceiling import ncsnr as ncsnr
from mine_jax.data.noise_ceiling import with_noise_ceiling as with_noise_ceiling
from mine_jax.data.nsd.load import load_nsd as load_nsd
from mine_jax.data.nsd.load import open_nsd_stimuli as open_nsd_stimuli
from mine_jax.data.splits import align as align
from mine_jax.data.splits import assign_splits as assign_splits
from mine_jax.data.splits import split_rows as split_rows
from mine_jax.data.splits import warning_of_few as warning_of_few
from mine_jax.data.splits import with_low_ceiling as with_low_ceiling
from mine_jax.data.surveys.sizes import published_sizes as published_sizes

__all__ = _public(globals())
