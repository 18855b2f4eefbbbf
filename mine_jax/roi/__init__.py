"""Stage 8: what category-selective areas prefer, what is inside them, queries, and maps."""

from mine_jax import _public
from mine_jax.roi.categories import CATEGORIES as CATEGORIES
from mine_jax.roi.contrasts import across_subjects as across_subjects
from mine_jax.roi.contrasts import contrasts as contrasts
from mine_jax.roi.labels import map_labels as map_labels
from mine_jax.roi.maps import write_maps as write_maps
from mine_jax.roi.query import Answer as Answer
from mine_jax.roi.query import passed_over as passed_over
from mine_jax.roi.query import query as query
from mine_jax.roi.query import words_of as words_of
from mine_jax.roi.selectivity import category_shares as category_shares
from mine_jax.roi.selectivity import memberships as memberships
from mine_jax.roi.selectivity import selectivity as selectivity
from mine_jax.roi.structure import structure as structure

__all__ = _public(globals())
