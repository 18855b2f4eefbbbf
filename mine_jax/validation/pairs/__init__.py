"""What is tested: pairs of voxel and image, their words, and the words of controls."""

from mine_jax.validation.pairs.choose import Pair as Pair
from mine_jax.validation.pairs.choose import choose_pairs as choose_pairs
from mine_jax.validation.pairs.choose import leading_words as leading_words
from mine_jax.validation.pairs.choose import stable_seed as stable_seed
from mine_jax.validation.pairs.controls import with_control_words as with_control_words
from mine_jax.validation.pairs.controls import with_distractors as with_distractors
from mine_jax.validation.pairs.controls import with_partners as with_partners
