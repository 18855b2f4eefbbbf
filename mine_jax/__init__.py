"""Describes in words what drives each voxel of visual cortex, and tests it causally.

The stages, in the order data flows: data, features, encoder, attribution, description,
profile, validation, roi, report. They are loaded when first used, so that importing this
package costs nothing and loads none of the heavy libraries.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# What each stage does, in the order data flows; the only place that says the order.
STAGES = {
    "data": "Reads responses and images, checks and aligns them.",
    "features": "Turns images into image-tokens.",
    "encoder": "Fits one encoder per voxel, all at once, and scores them.",
    "attribution": "Finds the image-tokens that drive each voxel.",
    "description": "Turns critical image-tokens into words.",
    "profile": "Builds the functional profile of each voxel.",
    "validation": "Predicts responses to generated and edited images.",
    "roi": "Relates profiles to areas, and draws maps.",
    "report": "Writes report.html.",
}
_MODULES = (*STAGES, "artifacts", "config", "errors", "estimators", "phantom", "pipeline", "types")

# What stands above the stages -> where it is.
_NAMES = {
    **dict.fromkeys(("load", "open_run", "publish"), "mine_jax.run.finished"),
    "VoxelEncoder": "mine_jax.estimators",
}


def __getattr__(name: str) -> Any:
    """Loads a stage, module, function or class at its first use."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the stages, modules, functions and classes, loaded or not."""
    return sorted({"STAGES", *(name for name in globals() if name.startswith("__")), *_MODULES, *_NAMES})


def _public(names: dict[str, Any]) -> list[str]:
    """Lists what a package has from its modules, for its `__all__`: without it, `help` shows no function."""
    return [name for name, value in names.items() if not name.startswith("_") and not isinstance(value, ModuleType)]
