"""Photos that are copies of others: the same picture, mirrored, resized, compressed again, or a crop of it."""

from mine_jax.data.copies.find import MOST_PHOTOS as MOST_PHOTOS
from mine_jax.data.copies.find import find_copies as find_copies
from mine_jax.data.copies.find import not_searched as not_searched
from mine_jax.data.copies.find import warning_of_copies as warning_of_copies
from mine_jax.data.copies.thumbnails import Thumbnails as Thumbnails
