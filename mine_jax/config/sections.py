"""What sections of the configuration are made of: their base, types of keys, and the choice by kind.

A key is documented by the text below it: what it says, with its unit or shape, and in brackets where the default is
from: `paper` (stated in MINE, arXiv 2605.16468), `parent` (a method it builds on does it so), `ours`. After a
semicolon stands what the paper or the parent has instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

# `features.model` of the models in the package -> what follows the kind in the name of their folder: the image-tokens
# of the first were trained to name what they show, those of the second, as everywhere else, were not
EMBEDDED_MODELS = {"phantom": "", "phantom-captions": "-captions"}
DENOISING_STEPS = ("register", "position", "neighbors")
# Kinds of features whose models may judge, before the colon of `validation.evaluator`.
JUDGING_KINDS = ("clip", "siglip")


# The largest whole number that a float holds exactly, as all below it.
MAX_WHOLE = 2**53


class Section(BaseModel):
    """A section of the configuration: frozen, unknown keys forbidden, no type coercion."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*")
    @classmethod
    def _is_within_reach(cls, value: Any) -> Any:
        """Refuses whole numbers that no count is, and that arrays cannot hold."""
        within = list(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
        if any(isinstance(number, int) and abs(number) > MAX_WHOLE for number in within):
            raise PydanticCustomError("whole_number", f"whole numbers should be at most {MAX_WHOLE}")
        return value


@dataclass(frozen=True)
class PathKey:
    """Marks a key that holds a path; a relative one is relative to the TOML file.

    Attributes:
        names: values that are names, not paths.
        judges: whether a kind and a colon may stand before the path.
        hub: whether it may be an id of the Hugging Face hub, with `revision` beside it.
    """

    names: frozenset[str] = frozenset()
    judges: bool = False
    hub: bool = False


def by_kind(default: type[Section]) -> tuple[Any, BeforeValidator]:
    """Makes a union of sections choose by `kind`; a section that names none is of the default's kind.

    Args:
        default: the model of sections without `kind`.

    Returns:
        What annotates the union.
    """
    kind = default.model_fields["kind"].default

    def fill_in(value: Any) -> Any:
        return {"kind": kind, **value} if isinstance(value, dict) else value

    return Field(discriminator="kind"), BeforeValidator(fill_in)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _count_or_share(value: Any, validated: ValidatorFunctionWrapHandler) -> int | float:
    """Says what is wrong once, where a union says it of every part."""
    try:
        return validated(value)
    except ValidationError:
        raise PydanticCustomError(
            "count_or_share", "input should be a number of at least 1, or a share between 0 and 1"
        ) from None


def _test_images(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"0?\.\d+", value):
        raise PydanticCustomError("test_images", "input should be a share without quotes, or the name of a file")
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    if not isinstance(value, str) and not is_share:
        raise PydanticCustomError("test_images", "input should be a share between 0 and 1, or the name of a file")
    return value


def _commit(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9a-f]{40}", value):
        raise PydanticCustomError("commit", "input should be the 40 hex digits of a commit; branches and tags move")
    return value


def _with_revision(value: bool, info: ValidationInfo) -> bool:
    # a revision that is wrong has an error of its own
    if value and "revision" in info.data and info.data["revision"] is None:
        raise PydanticCustomError("revision", "input should be true only beside `revision`, the commit that is fetched")
    return value


def _judge(value: Any) -> Any:
    kind, _, model = value.partition(":") if isinstance(value, str) else ("", "", "")
    if value in ("ridge", "none") or (kind in JUDGING_KINDS and model):
        return value
    raise PydanticCustomError("judge", 'input should be "ridge", "none", or "clip:" or "siglip:" and a model directory')


Layers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Fractions = Annotated[tuple[Fraction, ...], BeforeValidator(_as_tuple)]
Count = Annotated[int, Field(ge=1)]
Grid = Annotated[tuple[Count, Count], BeforeValidator(_as_tuple)]
Shape = Annotated[tuple[Count, Count, Count], BeforeValidator(_as_tuple)]
Exponent = Annotated[float, Field(ge=-30, le=30)]
Share = Annotated[float, Field(gt=0, lt=1)]
UnitName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z -]{0,22}[A-Za-z]$")]
CountOrShare = Annotated[Count | Share, WrapValidator(_count_or_share)]
File = Annotated[str | None, PathKey()]
Checkpoint = Annotated[str | None, PathKey(frozenset(EMBEDDED_MODELS), hub=True)]
Commit = Annotated[str | None, AfterValidator(_commit)]
Download = Annotated[bool, AfterValidator(_with_revision)]
Denoising = Annotated[tuple[Literal["register", "position", "neighbors"], ...], BeforeValidator(_as_tuple)]
TestImages = Annotated[Share | str, BeforeValidator(_test_images), PathKey(frozenset({"shared"}))]
Maker = Annotated[str, PathKey(frozenset({"phantom", "oracle", "fill", "none"}))]
Judge = Annotated[
    str,
    PlainValidator(_judge),
    PathKey(frozenset({"ridge", "none"}), judges=True),
    WithJsonSchema({"type": "string"}),
]
