"""Shape and value checks with one kind of message: name, rule, what was given, likely cause."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from mine_jax._progress import shown
from mine_jax.errors import DataError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def takes(remedy: str, **types: type) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Makes a function check the types of its data before Python matches the rest of the call.

    So bare arrays are answered with what to call instead, also where there are too many or a keyword is missing.
    A function with `progress` then takes True, which shows a bar on a terminal, and False as well.

    Args:
        remedy: what to do, a sentence.
        **types: name and type of each data argument, in order.

    Returns:
        A decorator; the function raises DataError for another type.
    """

    def decorated(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def checked(*args: Parameters.args, **keywords: Parameters.kwargs) -> Result:
            given = dict(zip(types, args, strict=False)) | keywords
            for name, wanted in types.items():
                if name in given:
                    check_type(name, given[name], wanted, remedy=remedy)
            progress = keywords.get("progress")
            if not isinstance(progress, bool):
                return function(*args, **keywords)
            with shown(getattr(function, "__name__", "work").replace("_", " "), progress) as callback:
                return cast(Any, function)(*args, **{**keywords, "progress": callback})

        return checked

    return decorated


def check_type(name: str, value: Any, wanted: type, *, remedy: str) -> None:
    """Checks that an argument is one of our types and no bare array.

    Args:
        name: argument name for the message.
        value: what was given.
        wanted: the type.
        remedy: what to do, a sentence.

    Raises:
        DataError: if it is another type.
    """
    if not isinstance(value, wanted):
        raise DataError(f"`{name}` must be {wanted.__name__}, but is {type(value).__name__}. {remedy}")


def check_shape(name: str, array: Any, axes: str, *, hint: str = "", **sizes: int) -> None:
    """Checks that an array has the named axes; works on tracers, so it is free inside jit.

    Args:
        name: argument name for the message.
        array: anything with `.shape`.
        axes: one letter or word per axis, for instance `"N P D"`.
        hint: likely cause, appended to the message.
        **sizes: required length of named axes, for instance `D=512`.

    Raises:
        DataError: if the number of axes or a named length differs.
    """
    letters = axes.split()
    shape = tuple(array.shape)
    fits = len(shape) == len(letters) and all(
        sizes.get(letter, length) == length for letter, length in zip(letters, shape, strict=True)
    )
    if fits:
        return
    known = ", ".join(f"{letter} = {sizes[letter]}" for letter in letters if letter in sizes)
    rule = f"[{', '.join(letters)}]" + (f" with {known}" if known else "")
    raise DataError(f"`{name}` must have shape {rule}, but has shape {shape}.{' ' + hint if hint else ''}")
