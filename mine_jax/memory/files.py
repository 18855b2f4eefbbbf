"""Arrays in files: of a known shape, or growing part by part; their pages are the system's, not the process's."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def scratch(shape: tuple[int, ...], dtype: Any, folder: Path) -> np.ndarray:
    """Makes an array in a file without a name: however the process ends, nothing is left behind.

    Args:
        shape: of the array.
        dtype: of the array.
        folder: where the file is; made if needed.

    Returns:
        The array, memory-mapped, zeros.

    Raises:
        OSError: if the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        array = np.memmap(file, dtype, "w+", shape=shape)
        _reserve(file.fileno())
        return array


def mapped_npy(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """Makes an array in a new .npy file.

    Args:
        path: of the file.
        shape: of the array.
        dtype: of the array.

    Returns:
        The array, memory-mapped, zeros.

    Raises:
        OSError: if the disk refuses.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("rb+") as file:
        _reserve(file.fileno())
    return array


def _reserve(descriptor: int) -> None:
    """Takes the space of a new file: a disk that is full only when values are written to memory kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, max(1, os.fstat(descriptor).st_size))
    except OSError as error:
        # file systems that cannot
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


class Growing:
    """A one-dimensional array in a file without a name, to which parts are added; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Makes the file in a folder, which is made if needed."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file: Any = tempfile.TemporaryFile(dir=folder)
        self._dtype: Any = None

    def __enter__(self) -> Growing:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file; what was mapped stays."""
        self._file.close()

    def append(self, part: np.ndarray) -> None:
        """Adds numbers [n], of the type of the first part.

        Raises:
            OSError: if the disk refuses.
        """
        self._dtype = self._dtype or part.dtype
        # not `tofile`, whose error of a full disk has no number
        self._file.write(np.ascontiguousarray(part, self._dtype).view(np.uint8).data)

    def array(self) -> np.ndarray:
        """Returns all that was added, memory-mapped."""
        self._file.flush()
        if not os.fstat(self._file.fileno()).st_size:  # files cannot be mapped empty
            return np.zeros(0, self._dtype)
        return np.memmap(self._file, self._dtype, "r+")
