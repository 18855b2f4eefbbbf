"""A commented configuration for the files that a user has, for `mine-jax new`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mine_jax import features, phantom
from mine_jax.config import Config, keys
from mine_jax.config.keys import Key
from mine_jax.data import surveys
from mine_jax.features.backbone import FETCH
from mine_jax.features.store import memory_map

_COLUMNS = 100
# The model that the package carries.
EMBEDDED = "phantom"


def new(kind: str, paths: Sequence[Path]) -> Iterator[str]:
    """Writes a configuration: what can be known is filled in, the rest stands in comments.

    Args:
        kind: of data.
        paths: files and folders of the data set; a folder with a checkpoint among them is the model, or "phantom" the
            embedded one, and a .npy of three axes holds image-tokens.

    Yields:
        Lines of TOML.

    Raises:
        MineError: as `surveys.survey`.
    """
    wants_phantom = [path for path in paths if str(path) == EMBEDDED and not path.exists()]
    paths = [path for path in paths if path not in wants_phantom]
    families = {path: features.family_of(path) for path in paths}
    models = [path for path in paths if families[path]]
    tokens = [path for path in paths if _holds_tokens(path)]
    found = surveys.survey(kind, [path for path in paths if path not in (*models, *tokens)])
    family, model = "clip", None
    if models:
        family, model = str(families[models[0]]), str(models[0].resolve())
    elif tokens:
        family = "precomputed"
    elif wants_phantom or ("root" in found.values and phantom.is_phantom(found.values["root"])):
        model = EMBEDDED
    yield f"# Written by `mine-jax new {kind}`. Relative paths belong to the folder of this file. Commented keys show"
    yield "# their defaults, or what they hold; `mine-jax config` explains those of the other sections."
    yield "#"
    yield "#   mine-jax check my.toml"
    yield "#   mine-jax run my.toml --out runs/my"
    yield ""
    yield from _section("data", kind, found.values, found.notes)
    known = {} if model is None else {"model": model}
    if family == "precomputed":
        known = _of_tokens(tokens[0], paths)
    yield from _section(
        "features", family, known, {} if known else {"model": f"NEEDED: a folder that you have, or: {FETCH}."}
    )
    for section in Config.model_fields:
        if section not in ("data", "features"):
            yield f"# [{section}]  {Config.model_fields[section].description}"


def _holds_tokens(path: Path) -> bool:
    return path.suffix == ".npy" and path.is_file() and memory_map(path).ndim == 3


def _of_tokens(tokens: Path, paths: Sequence[Path]) -> dict[str, str]:
    """The keys of image-tokens [N, P, D], with a list of N ids where one is given."""
    n_images = len(memory_map(tokens))
    lists = [path for path in paths if path.suffix == ".txt" and len(surveys.lines_of(path)) == n_images]
    ids = {"token_image_ids": str(lists[-1].resolve())} if lists else {}
    return {"tokens": str(tokens.resolve()), **ids}


def _section(section: str, kind: str, values: Mapping[str, Any], notes: Mapping[str, str]) -> Iterator[str]:
    yield f"[{section}]"
    yield f"kind = {keys.toml(kind)}"
    yield ""
    own = [key for key in keys.keys(section) if kind in (key.kinds or (kind,))]
    for key in sorted(own, key=lambda key: key.name not in values and key.name not in notes):
        yield from _key(key, values, notes.get(key.name))
        yield ""


def _key(key: Key, values: Mapping[str, Any], note: str | None) -> Iterator[str]:
    for text in (key.description, note):
        yield from textwrap.wrap(
            text or "", _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
    if key.name in values:
        yield f"{key.name} = {keys.toml(values[key.name])}"
    else:
        yield f"# {key.name} = {f'<{key.type}>' if key.default is None else keys.toml(key.default)}"
