"""A finished run from Python: its tables, and its encoders on new photos."""

from mine_jax.run.finished.open_run import Run as Run
from mine_jax.run.finished.open_run import open_run as open_run
