"""The embedded default: scenes, a cortex with planted selectivity and its small models."""

from mine_jax import _public
from mine_jax.phantom.write_nsd import is_phantom as is_phantom
from mine_jax.phantom.write_nsd import read_cortex as read_cortex
from mine_jax.phantom.write_nsd import read_scenes as read_scenes
from mine_jax.phantom.write_nsd import read_truth as read_truth
from mine_jax.phantom.write_nsd import write_phantom as write_phantom

__all__ = _public(globals())
