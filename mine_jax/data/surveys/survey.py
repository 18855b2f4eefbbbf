"""One way in: a kind of data set and the files that a user has -> what is known of [data]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mine_jax.data.surveys import own, published
from mine_jax.data.surveys.found import Found
from mine_jax.errors import ConfigError, MissingInputError

# kind of data -> its survey; a phantom is written, not found
SURVEYS: dict[str, Callable[[Sequence[Path]], Found]] = {
    "folder": own.folder,
    "nsd": published.nsd,
    "bids": published.bids,
    "laion_fmri": published.laion_fmri,
    "things": published.things,
    "algonauts2023": published.algonauts2023,
    "bold5000": published.bold5000,
}


def survey(kind: str, paths: Sequence[Path]) -> Found:
    """Looks at the names and headers of files.

    Args:
        kind: of `SURVEYS`.
        paths: files and folders; none for a configuration to fill in.

    Returns:
        Found: what is known of the section [data].

    Raises:
        ConfigError: for another kind, or files that cannot be told apart.
        MissingInputError: if a path is not there, or is no data set of this kind.
    """
    if kind not in SURVEYS:
        raise ConfigError(f"there is no kind {kind!r} of data to start from. Kinds: {', '.join(SURVEYS)}.")
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise MissingInputError(
            f"no file or folder {', '.join(missing)}. What is not there yet, such as a checkpoint, can be left out and "
            "written into the file later."
        )
    return SURVEYS[kind]([path.resolve() for path in paths]) if paths else Found({}, {})
