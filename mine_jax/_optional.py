"""One place, one message for optional dependencies."""

from __future__ import annotations

import importlib
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
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"`{module}` is needed to {why}, but is not installed. Install it with: pip install 'mine_jax[{extra}]'"
        ) from error
