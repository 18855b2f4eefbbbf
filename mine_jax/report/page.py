"""The parts a page is made of, and their way to HTML: sections, pictures, tables, bars.

Everything that reaches the page goes through one environment with autoescape; text is
also stripped of control characters, absolute paths and secrets on its way out.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from mine_jax import _optional
from mine_jax._numbers import count as count
from mine_jax._numbers import decimal as decimal
from mine_jax._numbers import duration as duration
from mine_jax._numbers import interval as interval
from mine_jax._numbers import p_value as p_value
from mine_jax._numbers import plural
from mine_jax._numbers import share as share
from mine_jax._numbers import signed as signed
from mine_jax._numbers import size as size

_NUMBER = re.compile(r"(?:[<>=≤≥]*\s*-?[\d.,]+(?:e[+-]?\d+)?%?(?: to -?[\d.,]+(?:e[+-]?\d+)?)?|not known|)")


class Uri(str):
    """A picture or file that is embedded in the page; never shortened or redacted."""

    __slots__ = ()


class Json(str):
    """Plain values for the script of a page, safe inside a script element."""

    __slots__ = ()

    def __html__(self) -> str:
        """Returns the text with no character that could end the element."""
        return self.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


class Script(str):
    """Code of the package that runs on a page; never escaped or shortened."""

    __slots__ = ()

    def __html__(self) -> str:
        """Returns the code as it is."""
        return str(self)

    @property
    def sha256(self) -> str:
        """Its hash, as a content security policy names it."""
        return base64.b64encode(hashlib.sha256(self.encode()).digest()).decode("ascii")


def script(*names: str) -> Script:
    """Reads script files beside the templates and joins them."""
    folder = resources.files("mine_jax.report") / "templates"
    return Script("\n" + "".join((folder / name).read_text(encoding="utf-8") for name in names))


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows in words, a caption that names the voxels it covers, and its width and height."""

    uri: Uri
    alt: str
    caption: str = ""
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Table:
    """A table: headings, rows of the same length, and a caption."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def is_number(self, column: int) -> bool:
        """Tells whether all cells of a column read as numbers, so that they align to the right."""
        cells = [str(row[column]) for row in self.rows]
        return column > 0 and any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


@dataclass(frozen=True)
class Bar:
    """One labelled value with its interval; `low` and `high` are None where unknown."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars on one scale that always holds 0.

    Attributes:
        label: what the bars are, for people who cannot see them.
        items: the bars, first on top.
        lowest: left end of the scale; None for the smallest value, or 0.
        highest: right end of the scale; None for the largest value.
    """

    label: str
    items: Sequence[Bar]
    lowest: float | None = None
    highest: float | None = None

    def span(self) -> tuple[float, float]:
        """Returns both ends of the scale."""
        values = [v for b in self.items for v in (b.value, b.low, b.high) if v is not None and np.isfinite(v)]
        low = min([0.0, *values]) if self.lowest is None else self.lowest
        high = max([0.0, *values]) if self.highest is None else self.highest
        return low, high if high > low else low + 1.0

    def place(self, value: float) -> float:
        """Returns the position of a value on the scale, in percent of the width."""
        low, high = self.span()
        return round(float(np.clip(100 * (value - low) / (high - low), 0, 100)), 2)


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        anchor: id of the heading.
        title: heading.
        content: what the template `sections/<anchor>.html.j2` shows.
        missing: one sentence that says why there is no content; such a section is only listed.
        is_detail: whether the section is closed until a reader opens it.
    """

    anchor: str
    title: str
    content: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    is_detail: bool = False


def render(template: str, **context: Any) -> str:
    """Fills a template of the package.

    Args:
        template: name below `mine_jax/report/templates`.
        **context: its variables; text is escaped, and redacted with `redact`.

    Returns:
        The HTML text.

    Raises:
        MissingExtraError: if jinja2 is not installed.
    """
    jinja2 = _optional.require("jinja2", extra="report", why="write the HTML report")
    return _environment(jinja2).get_template(template).render(**context)


@functools.cache
def _environment(jinja2: Any) -> Any:
    """Returns what fills templates; it compiles each of them once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mine_jax.report", "templates"),
        autoescape=True,
        finalize=clean,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        decimal=decimal, signed=signed, size=size, count=count, share=share, p_value=p_value, capital=capital
    )
    return environment


@dataclass(frozen=True)
class Unit:
    """What a run calls one column of its responses, for instance a neuron; written as it is, it is the singular."""

    one: str = "voxel"

    def __str__(self) -> str:
        """Returns the singular."""
        return self.one

    @property
    def many(self) -> str:
        """The word for several: voxels, vertices."""
        return plural(self.one)

    def count(self, value: int) -> str:
        """Writes a number of units: 1 voxel, 2 voxels."""
        return count(value, self.one, self.many)


def capital(text: Any) -> str:
    """Returns a text with a capital first letter, for the start of a sentence or a heading."""
    return str(text)[:1].upper() + str(text)[1:]


_R2 = re.compile(r"\bR2\b")


def squared(text: Any) -> str:
    """Returns a text in which R2, as terminals and tables write it, is R²."""
    return _R2.sub("R²", str(text))


# A path of at least two parts that starts at a root; not a fraction, an URL or a relative path.
_PART = r"[^\s/\\\"'<>|;,()\[\]{}]"
_PATH = re.compile(rf"(?<![\w.:/~…<])(?:file:)?(?:~[\w.-]*|[A-Za-z]:)?[/\\](?:{_PART}+[/\\])+({_PART}*)")
_HOME = re.compile(rf"(?<![\w.:/…<])(?:(?:/home|/Users|[A-Za-z]:\\Users)[/\\]{_PART}+|/root(?![\w-]))")
_SECRET = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,})")
_NAMED_SECRET = re.compile(
    r"(?i:\b([\w-]*(?:secret|password|passwd|api[_-]?key))(\s*[=:]\s*)|\b([\w-]*token)(\s*=\s*|:(?=\S)|:\s+(?=\S*\d)))"
    r"[^\s,;]+"
)
SECRET_KEY = re.compile(r"(?i)(^|_)(token|secret|password|passwd|api_?key)$")


def redact(text: str) -> str:
    """Removes homes, absolute folders and secrets from a text; the last part of a path stays."""
    if "/" in text or "\\" in text:
        text = _PATH.sub(lambda match: _shortened(match.group(0), match.group(1)), text)
        text = _HOME.sub("~", text)
    text = _SECRET.sub("[redacted]", text)
    # a colon after "token" ends a sentence more often than it begins a secret, which has digits
    return _NAMED_SECRET.sub(r"\1\2\3\4[redacted]", text)


def _shortened(path: str, last: str) -> str:
    return "~" if _HOME.fullmatch(path.rstrip("/\\")) or not last else f"…/{last}"


def clean(value: Any) -> Any:
    """Makes text fit to be shown; numbers, embedded pictures and finished HTML pass."""
    if not isinstance(value, str) or isinstance(value, Uri) or hasattr(value, "__html__"):
        return value
    shown = "".join(c for c in value if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Cf", "Co", "Cn"))
    return redact(shown)
