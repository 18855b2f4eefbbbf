"""One place, one message for optional dependencies."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from mine_jax.errors import MissingExtraError


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Imports an optional dependency, or says which extra brings it.

    Args:
        module: dotted name to import, for instance `"h5py"`.
        extra: extra of this package that installs it.
        why: what it is needed for, as the end of "needed to ...".

    Returns:
        The imported module.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return _imported(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"`{module}` is needed to {why}, but is not installed. Install it with: pip install 'mine_jax[{extra}]'"
        ) from error


def _imported(module: str) -> ModuleType:
    """Imports a module; matplotlib also where MPLBACKEND, as notebooks export it, names a module that is not here."""
    backend = os.environ.get("MPLBACKEND", "")
    if module.split(".")[0] != "matplotlib" or _is_there(backend.removeprefix("module://")):
        return importlib.import_module(module)
    # pictures are drawn without a backend
    del os.environ["MPLBACKEND"]
    try:
        return importlib.import_module(module)
    finally:
        os.environ["MPLBACKEND"] = backend


def _is_there(backend: str) -> bool:
    """Whether a backend can be found; names without a dot are matplotlib's own."""
    if "." not in backend:
        return True
    try:
        return importlib.util.find_spec(backend) is not None
    except ImportError:
        return False
