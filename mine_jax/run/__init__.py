"""The machinery of a run directory: which stage is stale, run, resume, stop."""

from mine_jax.run.execute import Step as Step
from mine_jax.run.execute import execute as execute
from mine_jax.run.execute import plan as plan
from mine_jax.run.execute import stale as stale
