"""What is known of every key: its type, its default, where that is from, and what the key means."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from mine_jax.config.sections import PathKey, Section
from mine_jax.config.whole import Config

TAGS = ("paper", "parent", "ours")
_TAGGED = re.compile(r"(?P<text>.*?)(?: \[(?P<tag>paper|parent|ours)(?:; (?P<instead>[^\]]+))?\])?", re.DOTALL)


@dataclass(frozen=True)
class Key:
    """A key of a section.

    Attributes:
        name: what stands left of the equals sign.
        kinds: the kinds of the section that have it so; () where the section has none, or all have it.
        type: what may stand right of it, for people.
        default: its value where a file does not say it; None where there is none.
        tag: of `TAGS`, where the default is from; "" without a default.
        instead: what the paper or the parent has in its place, such as "paper: 128"; "" where it has the same.
        description: one or two sentences.
    """

    name: str
    kinds: tuple[str, ...]
    type: str
    default: Any
    tag: str
    instead: str
    description: str


def kinds(section: str) -> dict[str, type[Section]]:
    """Returns the models of a section by kind; none where it has no kinds, or is no section."""
    field = Config.model_fields.get(section)
    models = get_args(field.annotation) if field is not None else ()
    return {model.model_fields["kind"].default: model for model in models}


def models(section: str) -> dict[str, type[Section]]:
    """Returns the models of a section by kind; one without kinds under ""."""
    return kinds(section) or {"": type(getattr(Config(), section))}


def takes_list(section: str, name: str) -> bool:
    """Says whether a key holds a list of any length, in any kind of its section."""
    by_kind = models(section) if section in Config.model_fields else {}
    fields = [model.model_fields[name] for model in by_kind.values() if name in model.model_fields]
    return any(get_origin(field.annotation) is tuple and Ellipsis in get_args(field.annotation) for field in fields)


def keys(section: str) -> list[Key]:
    """Returns the keys of a section but `kind`; one that differs between kinds comes once for each way it is."""
    by_kind = models(section)
    having: dict[tuple[str, ...], tuple[Key, list[str]]] = {}
    for kind, model in by_kind.items():
        properties = model.model_json_schema()["properties"]
        for name, field in model.model_fields.items():
            if name != "kind":
                key = _key(name, field, properties[name])
                having.setdefault((name, key.type, repr(key.default), key.description), (key, []))[1].append(kind)
    order = list(dict.fromkeys(name for model in by_kind.values() for name in model.model_fields))
    found = [replace(key, kinds=() if len(those) == len(by_kind) else tuple(those)) for key, those in having.values()]
    return sorted(found, key=lambda key: (bool(key.kinds), order.index(key.name)))


def nearest(name: str, valid: Iterable[str]) -> str:
    """Says which valid names are closest to a wrong one; where none is, lists them all.

    Args:
        name: the wrong name.
        valid: the names that there are.

    Returns:
        A sentence.
    """
    names = sorted(set(valid))
    close = [repr(match) for match in difflib.get_close_matches(name, names, n=3, cutoff=0.6)]
    return f"Did you mean {' or '.join(close)}?" if close else f"Valid: {', '.join(names)}."


def toml(value: Any) -> str:
    """Writes a value of a key as it stands in a file."""
    return json.dumps(value, ensure_ascii=False)


def _key(name: str, field: FieldInfo, schema: Mapping[str, Any]) -> Key:
    parts = _TAGGED.fullmatch(field.description or "")
    text, tag, instead = parts.group("text", "tag", "instead") if parts else ("", None, None)
    mark = next((mark for mark in field.metadata if isinstance(mark, PathKey)), None)
    default = field.get_default(call_default_factory=True)
    return Key(name, (), _type(schema, _text(mark)), default, tag or "", instead or "", " ".join(text.split()))


def _text(mark: PathKey | None) -> str:
    """What a text may be: anything, or names and a path."""
    if mark is None:
        return "text"
    paths = ("clip:path", "siglip:path") if mark.judges else ("path", "OWNER/NAME") if mark.hub else ("path",)
    return " | ".join([*map(toml, sorted(mark.names)), *paths])


def _type(schema: Mapping[str, Any], text: str) -> str:
    """Says in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " | ".join(_type(option, text) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " | ".join(map(toml, schema.get("enum") or [schema["const"]]))
    if "prefixItems" in schema:
        return f"[{', '.join(_type(item, text) for item in schema['prefixItems'])}]"
    kind = schema["type"]
    if kind == "array":
        return f"list of {_type(schema['items'], text)}"
    if kind == "object":
        return f"table of {_type(schema['additionalProperties'], text)}"
    if kind == "string":
        return text
    return "true | false" if kind == "boolean" else _number(schema)


def _number(schema: Mapping[str, Any]) -> str:
    name = "whole number" if schema["type"] == "integer" else "number"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return ", ".join([name, *(f"{sign} {schema[limit]:g}" for limit, sign in signs.items() if limit in schema)])
