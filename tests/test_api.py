"""Habits of the public functions of every stage, checked by introspection."""

import dataclasses
import importlib
import inspect
import pydoc
import re

import pytest

import mine_jax

STAGES = (
    "data", "features", "encoder", "attribution", "description", "profile", "validation", "roi", "report",
    "report.figures", "phantom", "pipeline",
)  # fmt: skip
KEY_NAMES = {"rng", "prng", "prng_key", "rng_key", "random_key", "random_state"}


def public(stage):
    """Returns the functions that a stage re-exports, by name."""
    module = importlib.import_module(f"mine_jax.{stage}")
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(inspect.unwrap(value))
        and value.__module__.startswith("mine_")
    }


FUNCTIONS = [
    pytest.param(function, id=f"{stage}.{name}") for stage in STAGES for name, function in sorted(public(stage).items())
]


def parameters(function):
    return inspect.signature(function).parameters


@pytest.mark.parametrize("function", FUNCTIONS)
def test_defaults_are_keyword_only(function):
    wrong = [
        name
        for name, parameter in parameters(function).items()
        if parameter.default is not parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert not wrong, "everything after the data arguments is keyword-only"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_random_key_is_called_key(function):
    names = parameters(function)
    assert not KEY_NAMES & set(names)
    for name in {"key", "seed"} & set(names):
        assert names[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("function", FUNCTIONS)
def test_everything_is_annotated(function):
    missing = [name for name, parameter in parameters(function).items() if parameter.annotation is parameter.empty]
    assert not missing and inspect.signature(function).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("function", FUNCTIONS)
def test_docstring(function):
    text = inspect.getdoc(function) or ""
    first = text.split("\n", 1)[0]
    assert first.endswith(".") and len(first) <= 80, first
    for name in parameters(function):
        assert re.search(rf"\b{re.escape(name)}\b", text), f"`{name}` is not described"
    assert "Returns:" in text or "Yields:" in text or "eturns" in first or _returns_nothing(function)
    # Arrays are described with their axes: [V, N], [D], [<= n], ...
    if re.search(r"\b(ndarray|Array)\b", str(inspect.signature(function))):
        assert re.search(r"\[[^\]\n]+\]|\bscalar\b", text), "array arguments and results need a shape in brackets"


@pytest.mark.parametrize(
    "package",
    "data features encoder attribution description profile validation roi report phantom pipeline artifacts".split(),
)
def test_help_lists_the_functions_of_a_package_and_no_modules(package):
    module = importlib.import_module(f"mine_jax.{package}")
    text = pydoc.render_doc(module, renderer=pydoc.plaintext)
    for name in public(package):
        assert re.search(rf"^    {name}\(", text, re.MULTILINE), name
        assert name in module.__all__
    assert not any(inspect.ismodule(getattr(module, name)) for name in module.__all__)


def test_dir_lists_what_a_script_uses_and_nothing_of_the_inside():
    names = [name for name in dir(mine_jax) if not name.startswith("__")]
    assert {"data", "encoder", "pipeline", "open_run", "load", "publish"} <= set(names)
    assert not {"Any", "annotations", "importlib"} & set(names) and not any(name.startswith("_") for name in names)
    assert all(getattr(mine_jax, name) is not None for name in names)


def _returns_nothing(function):
    return inspect.signature(function).return_annotation in (None, "None")


def test_types_document_every_field():
    from mine_jax import types

    for name, cls in vars(types).items():
        if dataclasses.is_dataclass(cls) and not name.startswith("_"):
            for field in dataclasses.fields(cls):
                assert re.search(rf"(?i)\b{field.name}\b", cls.__doc__ or ""), f"{name}.{field.name}"


def test_errors_keep_their_builtin_base_and_exit_code():
    from mine_jax import errors

    bases = {
        "ConfigError": (ValueError, 2),
        "MissingExtraError": (ImportError, 2),
        "DataError": (ValueError, 3),
        "AlignmentError": (ValueError, 3),
        "GeometryError": (ValueError, 3),
        "MissingInputError": (FileNotFoundError, 3),
        "GenerationError": (RuntimeError, 3),
        "IntegrityError": (OSError, 4),
        "CheckpointError": (OSError, 4),
        "WeightsError": (ValueError, 4),
        "ResourceError": (RuntimeError, 5),
    }
    for name, (base, code) in bases.items():
        cls = getattr(errors, name)
        assert issubclass(cls, base) and issubclass(cls, errors.MineError) and cls.exit_code == code
