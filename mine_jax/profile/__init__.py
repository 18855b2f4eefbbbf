"""Stage 6: descriptions to functional profiles, with uncertainty, a null and abstention."""

from mine_jax.profile.build import build as build
from mine_jax.profile.build import judge as judge
from mine_jax.profile.null import NullTest as NullTest
from mine_jax.profile.null import measured_correlation as measured_correlation
