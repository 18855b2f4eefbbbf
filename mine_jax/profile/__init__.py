"""Stage 6: descriptions to functional profiles: what may be claimed of each voxel, and why not more."""

from mine_jax import _public
from mine_jax.description.presence import Seen as Seen
from mine_jax.profile.build import build as build
from mine_jax.profile.build import mean_shares as mean_shares
from mine_jax.profile.build import most_faithful as most_faithful
from mine_jax.profile.build import sentences as sentences
from mine_jax.profile.build import with_halves as with_halves
from mine_jax.profile.conjunctions import Conjunctions as Conjunctions
from mine_jax.profile.conjunctions import conjunctions as conjunctions
from mine_jax.profile.drivers import Drivers as Drivers
from mine_jax.profile.drivers import drivers as drivers
from mine_jax.profile.drivers import word_correlations as word_correlations
from mine_jax.profile.field import Fields as Fields
from mine_jax.profile.field import field_test as field_test
from mine_jax.profile.field import fields as fields
from mine_jax.profile.ladder import Evidence as Evidence
from mine_jax.profile.ladder import Limits as Limits
from mine_jax.profile.ladder import Rung as Rung
from mine_jax.profile.ladder import climb as climb
from mine_jax.profile.ladder import climb_decoys as climb_decoys
from mine_jax.profile.ladder import family_q as family_q
from mine_jax.profile.ladder import judge as judge
from mine_jax.profile.ledger import Ledger as Ledger
from mine_jax.profile.ledger import ledger as ledger
from mine_jax.profile.localised import LocalisedTest as LocalisedTest
from mine_jax.profile.localised import WholeImages as WholeImages
from mine_jax.profile.localised import localised_test as localised_test
from mine_jax.profile.localised import word_entropy as word_entropy
from mine_jax.profile.measured import MeasuredTest as MeasuredTest
from mine_jax.profile.measured import measured_test as measured_test
from mine_jax.profile.measured import word_weights as word_weights
from mine_jax.profile.reliability import agreement as agreement
from mine_jax.profile.reliability import agreement_with_others as agreement_with_others
from mine_jax.profile.reliability import common_profile as common_profile

__all__ = _public(globals())
