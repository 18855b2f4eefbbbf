"""The generator and editor of a configuration: pipeline directories, the exact ones, or callables."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mine_jax import artifacts
from mine_jax._progress import Progress
from mine_jax.config import ValidationConfig
from mine_jax.errors import ConfigError, MissingInputError
from mine_jax.validation import editing, generation
from mine_jax.validation.makers import diffusion, fill, oracle, pictures, process
from mine_jax.validation.makers.pictures import Item
from mine_jax.validation.makers.protocols import Editor, Generator
from mine_jax.validation.simulated import Truth

ROLES = ("generator", "editor")
NOT_CONFIGURED = "neither a generator nor an editor is configured"
# A pipeline directory may bring its own texts, some of `editing.TEMPLATES` and "generate".
TEMPLATES_FILE = "prompts.json"
# The embedded models know the phantom's words only.
PHANTOM_TEMPLATES = {
    "generate": "{words}",
    "insert": "add {words}",
    "remove": "remove the {words}",
    "noop_without": "background",
    "noop_with": "add {words}",
}
# The phantom's own models were scored with 12 steps (`training.json` beside the weights); with 8 of them the shares of
# edits that move voxels as described differ by one pair in 72 at most.
_PHANTOM_SAMPLING = {"steps": 8, "guidance": 3.0}


@dataclass(frozen=True)
class Model:
    """A generator or editor, loaded here or in a process of its own.

    Attributes:
        name: for tables and for the identity of its images.
        templates: texts by action.
        model: the object with `generate` or `edit`; None for a pipeline.
        loader: arguments of `diffusion.load`, for a pipeline.
        takes_mask: whether it changes what a mask marks.
        true_masks: whether its masks are those of the exact edits, which real data cannot know.
        exact: whether it draws phantom scenes, so that the truth about its images is known.
    """

    name: str
    templates: dict[str, str]
    model: Generator | Editor | None = None
    loader: dict[str, Any] | None = None
    takes_mask: bool = False
    true_masks: bool = False
    exact: bool = False


def choose(
    settings: ValidationConfig, *, generator: Generator | None = None, editor: Editor | None = None
) -> dict[str, Model] | None:
    """Returns the models by role; None where there is none at all.

    Args:
        settings: section [validation].
        generator: takes the place of the configured one.
        editor: takes the place of the configured one.

    Raises:
        ConfigError: for a name that does not fit the role.
        MissingInputError: if a pipeline directory is not there.
    """
    chosen = {}
    for role, instance in zip(ROLES, (generator, editor), strict=True):
        if instance is not None:
            name = f"{type(instance).__module__}.{type(instance).__qualname__}"
            chosen[role] = Model(name, _texts(None, masked=False), model=instance)
        elif getattr(settings, role) != "none":
            chosen[role] = _configured(settings, role)
    return chosen or None


def with_exact(model: Model, role: str, truth: Truth | None) -> tuple[Model, ...]:
    """Returns a model and, where the truth is known, itself with true masks and the exact one as upper bounds.

    Args:
        model: the configured model.
        role: "generator" or "editor".
        truth: of the phantom; None for other data.

    Raises:
        ConfigError: if the model is the exact one, but the data are no phantom.
    """
    if truth is None:
        if model.exact:
            raise ConfigError(
                f'`validation.{role}` "oracle" draws phantom scenes, but the data are no phantom. '
                "Set a pipeline directory."
            )
        return (model,)
    drawer: Generator | Editor = oracle.OracleGenerator() if role == "generator" else oracle.OracleEditor(truth.scenes)
    exact = Model("oracle", _texts(None, masked=False), model=drawer, exact=True)
    if model.exact:
        return (exact,)
    masked = (replace(model, name=f"{model.name} (true masks)", true_masks=True),) if model.takes_mask else ()
    return (model, *masked, exact)


def is_small(model: Model) -> bool:
    """Tells whether a model is a pipeline that works in one core of a process of its own."""
    return model.loader is not None and diffusion.is_small(model.loader["directory"])


def make(
    model: Model, items: Sequence[Item], folder: Path, *, name: str, retries: int, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Makes images with a model, a pipeline in a process of its own; see `pictures` and `process`."""
    if model.loader is not None:
        maker = diffusion.identity(**model.loader)
        return process.make_in_process(
            items, model.loader, folder, name=name, maker=maker, retries=retries, progress=progress
        )
    if model.model is None:
        raise ConfigError(f"{model.name} has no model.")
    return pictures.make_pictures(
        items, model.model, folder, name=name, maker=model.name, retries=retries, progress=progress
    )


def _configured(settings: ValidationConfig, role: str) -> Model:
    value = getattr(settings, role)
    if value == "oracle":
        return Model("oracle", _texts(None, masked=False), exact=True)
    if value == "fill":
        if role == "generator":
            raise ConfigError('`validation.generator` cannot be "fill", which only removes.')
        return Model("fill", _texts(None, masked=True), model=fill.FillEditor(), takes_mask=True)
    if value == "phantom":
        defaults = {name: value for name, value in _PHANTOM_SAMPLING.items() if getattr(settings, name) is None}
        settings = settings.model_copy(update=defaults)
    directory = _embedded(role) if value == "phantom" else Path(value)
    diffusion.check_directory(str(directory), role=role)
    loader = {
        "directory": str(directory),
        "role": role,
        **{name: getattr(settings, name) for name in ("steps", "guidance", "image_guidance", "size")},
    }
    masked = role == "editor" and diffusion.takes_mask(str(directory))
    texts = _texts(directory, masked=masked, defaults=PHANTOM_TEMPLATES if value == "phantom" else {})
    return Model(value, texts, loader=loader, takes_mask=masked)


def _embedded(role: str) -> Path:
    directory = Path(str(importlib.resources.files("mine_jax") / "phantom" / "weights" / role))
    if not directory.is_dir():
        raise MissingInputError(
            f'`validation.{role}` is "phantom", but this installation has no {directory.name} at {directory}. '
            f'Set "oracle" (exact, phantom data only), a pipeline directory, or "none".'
        )
    return directory


def _texts(directory: Path | None, *, masked: bool, defaults: dict[str, str] | None = None) -> dict[str, str]:
    """Texts by action: defaults, then those of the pipeline directory."""
    texts = {"generate": generation.PROMPT, **(editing.INPAINT_TEMPLATES if masked else editing.TEMPLATES)}
    texts |= defaults or {}
    file = None if directory is None else directory / TEMPLATES_FILE
    if file is not None and file.is_file():
        read = artifacts.read_json(file)
        if (
            not isinstance(read, dict)
            or not set(read) <= set(texts)
            or not all(isinstance(t, str) for t in read.values())
        ):
            raise ConfigError(f"{file} must map some of {', '.join(texts)} to texts with {{words}}.")
        texts |= read
    return texts
