"""HDF5 files: opened so that what goes wrong is called what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mine_jax._optional import require
from mine_jax.errors import DataError, IntegrityError, MissingInputError, ResourceError


@contextlib.contextmanager
def opened(path: str | Path, *, why: str = "read HDF5 files") -> Generator[Any]:
    """Opens an HDF5 file for reading; errors of reading inside the block are named too.

    Args:
        path: the file.
        why: what it is needed for, where h5py is missing.

    Yields:
        The open `h5py.File`.

    Raises:
        MissingInputError: if it is not there.
        ResourceError: if another process holds it, or it must not be read.
        IntegrityError: if it is damaged.
        DataError: if values or groups of it lie in other files.
    """
    h5py = require("h5py", extra="nsd", why=why)
    try:
        with h5py.File(path, "r") as file:
            _check_inside(h5py, file, path)
            yield file
    except FileNotFoundError as error:
        raise MissingInputError(f"no file at {path}.") from error
    except BlockingIOError as error:
        raise ResourceError(
            f"{path} is in use: another process holds it open for writing. Wait until it is closed."
        ) from error
    except PermissionError as error:
        raise ResourceError(f"{path} may not be read by this user ({error}).") from error
    except (OSError, KeyError, RuntimeError) as error:
        if isinstance(error, (IntegrityError, MissingInputError, ResourceError)):
            raise
        raise IntegrityError(f"{path} is damaged or cut short ({error}). Copy it again.") from error


def _check_inside(h5py: Any, group: Any, path: str | Path) -> None:
    """Refuses what would read other files of this machine: external storage, virtual data sets, external links."""
    for name in group:
        link = group.get(name, getlink=True)
        item = None if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)) else group[name]
        if isinstance(link, h5py.ExternalLink) or (
            isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        ):
            raise DataError(f"{path} keeps {name!r} in other files, which are not read. Copy the values into it.")
        if isinstance(item, h5py.Group):
            _check_inside(h5py, item, path)
