"""The stages as a graph, in the order of the package; each stage's file says what it needs and owns."""

from __future__ import annotations

import importlib

import mine_jax
from mine_jax.run.execute import Step

STEPS: dict[str, Step] = {name: importlib.import_module(f"mine_jax.run.stages.{name}").STEP for name in mine_jax.STAGES}
