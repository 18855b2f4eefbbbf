"""The chain of the method from arrays to verdicts; the stages of a run call the same functions."""

from mine_jax import _public
from mine_jax.pipeline.describe import describe as describe
from mine_jax.pipeline.verdicts import Verdicts as Verdicts

__all__ = _public(globals())
