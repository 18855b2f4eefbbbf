"""Compiled programs that outlive the process: jax's persistent cache, on by default for commands.

Only the command line, whose process is its own, sets up jax; whoever uses the package from Python does so.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

DEFAULT, NONE = "default", "none"
# Programs that compile faster than this, in seconds, are not worth a file; bytes of all files, the oldest go first.
_LIMITS = {"jax_persistent_cache_min_compile_time_secs": 0.1, "jax_compilation_cache_max_size": 2 << 30}
logger = logging.getLogger("mine_jax")


def keep_programs(directory: str = DEFAULT) -> Path | None:
    """Lets the next process find the programs that this one compiles.

    Args:
        directory: where they are kept; "default" for the user's cache directory, "none" to compile always.

    Returns:
        The directory; None where nothing is kept: it cannot be written, or jax's own variables say where.
    """
    import jax

    if directory == NONE or getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    path = user_cache() if directory == DEFAULT else Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(path, os.W_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        logger.info("compiled programs are not kept: %s cannot be written", path)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    for name, value in _LIMITS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    return path


def user_cache() -> Path:
    """Returns the folder for compiled programs among the caches of this user."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mine_jax" / "programs"
