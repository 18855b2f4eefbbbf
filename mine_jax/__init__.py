"""Describes in words what drives each voxel of visual cortex, and tests it causally.

The stages, in the order data flows: data, features, encoder, attribution, description,
profile, validation, roi, report. They are loaded when first used, so that importing this
package costs nothing and loads none of the heavy libraries.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

STAGES = ("data", "features", "encoder", "attribution", "description", "profile", "validation", "roi", "report")
_MODULES = (*STAGES, "artifacts", "config", "errors", "phantom", "types")


def __getattr__(name: str) -> ModuleType:
    """Loads a stage or module at its first use."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the stages and modules, loaded or not."""
    return sorted({*globals(), *_MODULES})
