"""Settings of the path and of patching: defaults in one place, and messages for what is wrong."""

import dataclasses

import numpy as np
import pytest

from mine_jax import description
from mine_jax.attribution import (
    attribute_and_patch,
    critical_tokens,
    find_critical_tokens,
    integrated_gradients,
    patch_tokens,
)
from mine_jax.attribution.methods import METHODS
from mine_jax.attribution.patching import Patching, PatchSettings
from mine_jax.attribution.path import Path, PathSettings
from mine_jax.config import AttributionConfig
from mine_jax.errors import DataError


@pytest.mark.parametrize("kind", [Path, Patching])
def test_defaults_are_those_of_the_configuration(kind):
    settings = {field.name: field.default for field in dataclasses.fields(kind) if field.name != "seed"}
    assert settings == {name: getattr(AttributionConfig(), name) for name in settings}


@pytest.mark.parametrize(("kind", "keywords"), [(Path, PathSettings), (Patching, PatchSettings)])
def test_keywords_are_the_fields(kind, keywords):
    assert [field.name for field in dataclasses.fields(kind)] == list(keywords.__annotations__)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "guess"}, "`method` 'guess'"),
        ({"reduce": "abs"}, "use exact with sum, or autodiff"),
        ({"reduce": "max", "method": "autodiff"}, "`reduce` 'max'"),
        ({"quadrature": "simpson"}, "`quadrature` must be one of"),
        ({"n_steps": 0}, "`n_steps` must be at least 1"),
        ({"baseline": "median"}, "`baseline` must be"),
    ],
)
def test_a_path_checks_itself(settings, message):
    with pytest.raises(ValueError, match=message):
        Path(**settings)


def test_unknown_keywords_are_named_with_the_valid_ones(make):
    encoders, tokens = make.encoders("query"), make.tokens(2)
    for function in (integrated_gradients, find_critical_tokens, attribute_and_patch):
        with pytest.raises(TypeError, match="`steps`; the settings are baseline, n_steps, max_steps"):
            function(encoders, tokens, steps=3)
    with pytest.raises(TypeError, match="`steps`; the settings are k, sufficiency"):
        patch_tokens(encoders, tokens, None, steps=3)


def test_steps_follow_the_quadrature():
    # room for as many as there may be; those beyond have no weight
    steps = Path(quadrature="midpoint", max_steps=5).steps(None, 2)
    np.testing.assert_array_equal(steps.nodes[:2], np.array([0.25, 0.75], np.float32))
    np.testing.assert_array_equal(steps.weights, np.array([0.5, 0.5, 0, 0, 0], np.float32))
    assert Path(max_steps=2).steps(None, 4).weights.shape == (4,)


@pytest.mark.parametrize("method", ["exact", "autodiff"])
def test_any_number_of_steps_is_one_program(make, method):
    encoders, tokens = make.encoders("query"), make.tokens(3)
    compiled, found = METHODS[method]._cache_size(), []
    for n_steps in (2, 7, 16):
        found.append(
            integrated_gradients(encoders, tokens, n_steps=n_steps, max_steps=16, tolerance=9.0, method=method)
        )
    assert METHODS[method]._cache_size() - compiled == 1
    gaps = [np.abs(one.completeness_gap).max() for one in found]
    assert gaps[0] > 10 * gaps[1] and gaps[2] < 1e-5


def test_bare_arrays_are_answered_with_what_to_call(make):
    encoders, array = make.encoders("query"), np.zeros((2, 9, 4), np.float32)
    for function in (integrated_gradients, find_critical_tokens, attribute_and_patch, patch_tokens):
        with pytest.raises(DataError, match=r"ImageTokens\.from_array"):
            function(encoders, array)
        with pytest.raises(DataError, match=r"mine_jax.encoder.fit"):
            function(array, make.tokens(2))
    with pytest.raises(DataError, match=r"integrated_gradients\(encoders, tokens\) makes them"):
        critical_tokens(array)
    with pytest.raises(DataError, match="Lens"):
        description.top_words(array, make.tokens(2))
    with pytest.raises(DataError, match="critical_tokens"):
        description.describe(array, array, corpus=np.ones(3))
