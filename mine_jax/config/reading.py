"""A TOML file or a dictionary -> a checked configuration, or one error that lists every problem."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pydantic

from mine_jax._numbers import count
from mine_jax.config.keys import kinds, models, nearest, takes_list
from mine_jax.config.sections import Section
from mine_jax.config.whole import Config, hub_id, paths
from mine_jax.errors import ConfigError, MissingInputError

MAX_CONFIG_BYTES = 1 << 20


def read(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file, applies `section.key=value` overrides, resolves paths.

    Args:
        path: the TOML file, at most 1 MiB.
        overrides: values in TOML syntax; a bare word is taken as a string, one value for a list as a list of one.

    Returns:
        The checked configuration.

    Raises:
        MissingInputError: if the file is not there.
        ConfigError: with every unknown key (and the nearest valid one), wrong type and
            value out of range, all at once.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(
            f"no configuration file at {path}. Write one, or start from configs/ in the repository."
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes; a configuration is a few hundred.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply(values, override)
    return from_dict(values, base=path.resolve().parent, source=str(path))


def from_dict(values: dict[str, Any], *, base: Path | None = None, source: str = "configuration") -> Config:
    """Checks a nested dictionary and resolves its relative paths against `base`.

    Raises:
        ConfigError: with all problems at once.
    """
    config, problems = None, _with_nul(values)
    try:
        config = Config.model_validate(values)
    except pydantic.ValidationError as error:
        problems += [_problem(detail) for detail in error.errors()] + _behind_kinds(values, error)
    except RecursionError:
        problems += ["values are nested too deeply."]
    if config is None or problems:
        shown = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{source} has {count(len(problems), 'problem')}:\n{shown}")
    return config if base is None else _resolved(config, base)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or len(parts) != 2 or not all(parts):
        raise ConfigError(f"an override must read section.key=value, but is {override!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except RecursionError:
        raise ConfigError(f"--set {key.strip()} holds a value that is nested too deeply.") from None
    except ValueError as error:
        raise ConfigError(f"--set {key.strip()} holds a value that cannot be read ({error}).") from None
    section = values.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise ConfigError(f"[{parts[0]}] must be a section, but is {section!r}.")
    is_one = takes_list(*parts) and not isinstance(value, list)
    section[parts[1]] = [value] if is_one else value


def _with_nul(values: dict[str, Any]) -> list[str]:
    """Names the keys whose text holds a NUL character, which no path can."""
    return [
        f"{name}.{key}: must not hold a NUL character."
        for name, held in values.items()
        if isinstance(held, dict)
        for key, value in held.items()
        if any(isinstance(text, str) and "\0" in text for text in (value if isinstance(value, list) else [value]))
    ]


def _behind_kinds(values: dict[str, Any], error: pydantic.ValidationError) -> list[str]:
    """Says what else is wrong with sections of an unknown kind, taken as of the kind whose name is nearest."""
    problems = []
    for detail in error.errors():
        if detail["type"] != "union_tag_invalid":
            continue
        name = str(detail["loc"][0])
        taken_as = difflib.get_close_matches(str(detail["ctx"]["tag"]), kinds(name), n=1, cutoff=0.0)[0]
        try:
            Config.model_validate({name: {**values[name], "kind": taken_as}})
        except pydantic.ValidationError as behind:
            problems += [f'{_problem(other)} (taken as kind "{taken_as}")' for other in behind.errors()]
    return problems


def _problem(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    by_kind = kinds(location[0]) if location else {}
    if detail["type"] == "union_tag_invalid":
        return f"{location[0]}.kind: must be {_listed(by_kind, 'or')}, but is {detail['ctx']['tag']!r}."
    # pydantic puts the kind between the section and the key
    kind = location.pop(1) if by_kind and len(location) > 1 else None
    name = ".".join(location)
    if detail["type"] != "extra_forbidden":
        return f"{name}: {detail['msg'].lower()}, but is {detail['input']!r}."
    having = [other for other, model in by_kind.items() if location[-1] in model.model_fields]
    if kind is not None and having:
        plural = "kinds" if len(having) > 1 else "kind"
        return f'{name}: kind "{kind}" has no such key; it belongs to {plural} {_listed(having, "and")}.'
    model = Config if len(location) == 1 else models(location[0])[kind or ""]
    command = f"mine-jax config {location[0]}" if len(location) > 1 else "mine-jax config"
    return f"{name}: unknown key. {nearest(location[-1], model.model_fields)} `{command}` explains them."


def _listed(names: Iterable[str], word: str) -> str:
    *first, last = [f'"{name}"' for name in names]
    return f"{', '.join(first)} {word} {last}" if first else last


def _check_model(section: Section, name: str, base: Path) -> None:
    """Raises if a model is written as an id of the hub, but is none, and no folder either."""
    model = getattr(section, "model", None)
    if model and getattr(section, "revision", None) and len(model.split("/")) == 2 and not (base / model).is_dir():
        raise ConfigError(
            f"{name}.model: {model!r} is no folder, and cannot be an id OWNER/NAME of the Hugging Face hub: each part "
            'is 1 to 96 of A-Z, a-z, 0-9, "_", "-" and ".", with no "-" or "." at an end, "--", ".." or final ".git".'
        )


def _resolved(config: Config, base: Path) -> Config:
    sections = {}
    for name in Config.model_fields:
        section: Section = getattr(config, name)
        update, of_hub = {}, hub_id(section)
        if of_hub and (base / of_hub).is_dir():
            update["model"] = str((base / of_hub).resolve())
        elif of_hub is None:
            _check_model(section, name, base)
        for key, value in paths(section).items():
            prefix = getattr(section, key).removesuffix(value)  # "clip:" of an evaluator
            update[key] = f"{prefix}{(base / value).resolve()}"
        sections[name] = section.model_copy(update=update)
    return config.model_copy(update=sections)
