"""Stage 6: descriptions to functional profiles: what may be claimed of each voxel, and why not more."""

from mine_jax.profile.build import build as build
from mine_jax.profile.build import mean_shares as mean_shares
from mine_jax.profile.build import most_faithful as most_faithful
from mine_jax.profile.build import with_halves as with_halves
from mine_jax.profile.ladder import Evidence as Evidence
from mine_jax.profile.ladder import Limits as Limits
from mine_jax.profile.ladder import Rung as Rung
from mine_jax.profile.ladder import climb as climb
from mine_jax.profile.ladder import climb_decoys as climb_decoys
from mine_jax.profile.ladder import family_q as family_q
from mine_jax.profile.ladder import judge as judge
from mine_jax.profile.localised import LocalisedTest as LocalisedTest
from mine_jax.profile.localised import localised_test as localised_test
from mine_jax.profile.measured import MeasuredTest as MeasuredTest
from mine_jax.profile.measured import measured_test as measured_test
from mine_jax.profile.reliability import agreement as agreement
from mine_jax.profile.reliability import agreement_with_others as agreement_with_others
from mine_jax.profile.reliability import common_profile as common_profile
