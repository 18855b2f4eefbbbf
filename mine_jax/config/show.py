"""Keys of the configuration as text for people, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mine_jax.config import keys as known
from mine_jax.config.keys import Key, nearest
from mine_jax.config.whole import Config
from mine_jax.errors import ConfigError

COLUMNS = 80
SOURCES = {"paper": "the paper", "parent": "a method that the paper builds on", "ours": "ours"}


def show(name: str | None = None) -> Iterator[str]:
    """Explains the configuration, a section of it, or a key.

    Args:
        name: "SECTION" or "SECTION.KEY"; None for a list of the sections.

    Yields:
        Lines: for each key its default, its type, where the default is from, and what the key means.

    Raises:
        ConfigError: if there is no such section or key; it names those with the nearest names.
    """
    section, _, key = (name or "").partition(".")
    if not section:
        yield from _sections()
        return
    if section not in Config.model_fields:
        raise ConfigError(f"there is no section {section!r}. {nearest(section, Config.model_fields)}")
    described = known.keys(section)
    if key in ("", "kind"):
        yield from _header(section)
    elif key not in {one.name for one in described}:
        raise ConfigError(f"[{section}] has no key {key!r}. {nearest(key, [one.name for one in described])}")
    for one in described:
        if key in ("", one.name):
            yield from _key(one)
            yield ""


def _sections() -> Iterator[str]:
    yield "A configuration is a TOML file with these sections; all are optional:"
    yield ""
    for section, field in Config.model_fields.items():
        yield from _wrapped(f"[{section}]".ljust(15) + (field.description or ""), " " * 15)
    yield ""
    yield "mine-jax config SECTION explains its keys, mine-jax config SECTION.KEY one of them."


def _header(section: str) -> Iterator[str]:
    yield from _wrapped(f"[{section}]  {Config.model_fields[section].description}")
    by_kind = known.kinds(section)
    if by_kind:
        yield ""
        yield f"kind = {known.toml(next(iter(by_kind)))}"
        for kind, model in by_kind.items():
            yield from _wrapped(f"    {known.toml(kind):<16} {model.__doc__}", " " * 21)
    yield ""


def _key(key: Key) -> Iterator[str]:
    if key.default is None:
        yield key.name
        yield from _wrapped(f"    {key.type}; not set", "    ")
    else:
        yield from _wrapped(f"{key.name} = {known.toml(key.default)}", "    ")
        yield from _wrapped(f"    {key.type}; default: {_source(key)}", "    ")
    if key.kinds:
        yield from _wrapped(f"    only kind {', '.join(map(known.toml, key.kinds))}", "    ")
    yield from _wrapped(f"    {key.description}", "    ")


def _source(key: Key) -> str:
    tag, _, value = key.instead.partition(": ")
    return SOURCES[key.tag] + (f" ({SOURCES[tag]}: {value})" if value else "")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
