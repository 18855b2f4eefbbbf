"""HDF5 files: opened so that what goes wrong is called what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mine_jax._optional import require
from mine_jax.errors import DataError, IntegrityError, MineError, MissingInputError, ResourceError

# A file that declares so many times its own bytes holds no values: compression reaches a thousand.
_MOST_COMPRESSION = 10_000
_MOST_OBJECTS = 100_000


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
        DataError: if values or groups of it lie in other files, or it declares far more than it can hold.
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
        if isinstance(error, MineError):
            raise
        raise IntegrityError(f"{path} is damaged or cut short ({error}). Copy it again.") from error


def numbers(file: Any, name: str, path: str | Path) -> Any:
    """Returns a data set of whole or real numbers of an open file.

    Raises:
        DataError: if there is none of this name, or it holds anything else.
    """
    item = file.get(name)
    if item is None:
        raise DataError(f"{path} must hold a dataset `{name}`, but holds {', '.join(file) or 'nothing'}.")
    kind = getattr(item, "dtype", None)
    if getattr(item, "shape", None) is None or kind is None or kind.kind not in "iuf":
        what = "a group" if kind is None else f"of the type {str(kind)[:100]} and of no shape, or no numbers"
        raise DataError(f"`{name}` of {path} must hold numbers, but is {what}.")
    return item


def _check_inside(h5py: Any, file: Any, path: str | Path) -> None:
    """Refuses what would read other files of this machine, or more than there is.

    That is external storage, virtual data sets, external links, and sizes far beyond that of the file.
    """
    groups, seen, n_bytes = [file], set(), Path(path).stat().st_size
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            item = None if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)) else group[name]
            is_set = isinstance(item, h5py.Dataset)
            if isinstance(link, h5py.ExternalLink) or (is_set and (item.external or item.is_virtual)):
                raise DataError(f"{path} keeps {name!r} in other files, which are not read. Copy the values into it.")
            if is_set and item.nbytes > _MOST_COMPRESSION * n_bytes:
                raise DataError(f"{path} has {n_bytes} bytes, but {name!r} declares {item.nbytes}. Copy it again.")
            if isinstance(item, h5py.Group):
                # groups may lie in each other, and in themselves
                place = h5py.h5o.get_info(item.id).addr
                if place not in seen:
                    seen.add(place)
                    groups.append(item)
        if len(seen) > _MOST_OBJECTS:
            raise DataError(f"{path} has more than {_MOST_OBJECTS} groups.")
