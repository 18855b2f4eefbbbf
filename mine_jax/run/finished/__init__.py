"""A finished run from Python: its tables, its encoders on new photos, and a folder of them to give away."""

from mine_jax.run.finished.model import FittedModel as FittedModel
from mine_jax.run.finished.open_run import Run as Run
from mine_jax.run.finished.open_run import open_run as open_run
from mine_jax.run.finished.publish import Published as Published
from mine_jax.run.finished.publish import load as load
from mine_jax.run.finished.publish import publish as publish
