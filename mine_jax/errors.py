"""The named errors: what went wrong, in which file, row or voxel, and what to do.

Each subclasses a builtin, so callers who know nothing of this package can still catch
it, and carries the exit code that the command line returns for it.
"""

from __future__ import annotations

import errno
import signal

EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_INTEGRITY = 4
EXIT_RESOURCES = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
# What the operating system says of paths that cannot be, and of rights, space and limits.
_PATHS = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_RESOURCES = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_RESOURCES |= {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ETXTBSY, errno.ESTALE, errno.ENXIO}


class MineError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = EXIT_DATA


class ConfigError(MineError, ValueError):
    """A configuration or command line that cannot be run as written."""

    exit_code = EXIT_USAGE


class DataError(MineError, ValueError):
    """Input values that cannot be used: wrong dtype, range, shape or content."""

    exit_code = EXIT_DATA


class AlignmentError(DataError):
    """Images, tokens and responses that do not belong together row by row."""


class GeometryError(DataError):
    """Volumes, masks or surfaces whose shape or affine differ."""


class MissingInputError(MineError, FileNotFoundError):
    """An input file or folder that is not there."""

    exit_code = EXIT_DATA


class IntegrityError(MineError, OSError):
    """A damaged file: truncated, corrupted, or not what its name says."""

    exit_code = EXIT_INTEGRITY


class WeightsError(MineError, ValueError):
    """Model weights that are missing, unexpected, non-finite or of another shape."""

    exit_code = EXIT_INTEGRITY


class CheckpointError(MineError, OSError):
    """A run directory or checkpoint that cannot be resumed or trusted."""

    exit_code = EXIT_INTEGRITY


class ResourceError(MineError, RuntimeError):
    """Not enough memory or disk, or an output directory in use by another process."""

    exit_code = EXIT_RESOURCES


class GenerationError(MineError, RuntimeError):
    """A generator or editor that returned no usable image."""

    exit_code = EXIT_DATA


class MissingExtraError(MineError, ImportError):
    """An optional dependency that is not installed."""

    exit_code = EXIT_USAGE


def of_system(error: OSError) -> MineError | None:
    """Says what an error of the operating system is called here.

    Args:
        error: what a call of it raised.

    Returns:
        The named error; None for one that no path, right or space explains.
    """
    said = f"{error.strerror or error}" + (f": {error.filename}" if error.filename is not None else "")
    if error.errno == errno.ENOENT:
        return MissingInputError(f"{said}. Is the path right?")
    if error.errno in _PATHS:
        return ConfigError(f"{said}. Is the path right?")
    if error.errno in _RESOURCES:
        return ResourceError(f"{said}. Free space, or choose a path that this user may use.")
    return None


class Stopped(BaseException):
    """The work was stopped by a signal; not an `Exception`, so that retry loops let it pass.

    Attributes:
        signal: number of the signal.
        exit_code: 130 for Ctrl-C, otherwise 143.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signal = signum
        self.exit_code = EXIT_INTERRUPTED if signum == signal.SIGINT else EXIT_TERMINATED
