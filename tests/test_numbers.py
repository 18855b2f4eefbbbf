"""Each kind of number has one form: fixed decimals, no exponent, no sign of zero, nothing that only programs say."""

import re

import numpy as np
import pytest

from mine_jax import _numbers as numbers
from mine_jax._numbers import count, decimal, duration, interval, p_value, prefixed, share, signed, size


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (decimal(0.8), "0.80"),
        (decimal(1), "1.00"),
        (decimal(0.793), "0.79"),
        (decimal(-0.004), "0.00"),
        (decimal(-0.02), "-0.02"),
        (decimal(12345.678), "12,345.68"),
        (decimal(0.0126, 3), "0.013"),
        (decimal(np.float32(0.5)), "0.50"),
        (signed(1.5), "+1.50"),
        (signed(-0.001), "+0.00"),
        (signed(-0.4), "-0.40"),
        (interval(-0.1, 0.25), "-0.10 to 0.25"),
        (interval(None, 0.25), "not known"),
        (size(0.05), "0.050"),
        (size(0.0692), "0.069"),
        (size(6770.0), "6,800"),
        (size(0.0996), "0.10"),
        (size(9.96), "10"),
        (size(-31.9), "-32"),
        (size(0), "0"),
        (prefixed(6.9e9, "FLOP"), "6.9 GFLOP"),
        (prefixed(2.34e13, "FLOP"), "23 TFLOP"),
        (prefixed(12, "FLOP"), "12 FLOP"),
        (count(1, "voxel"), "1 voxel"),
        (count(12345, "voxel"), "12,345 voxels"),
        (count(2, "vertex", "vertices"), "2 vertices"),
        (count(9027.0), "9,027"),
        (share(0.424), "42%"),
        (share(0), "0%"),
        (share(1), "100%"),
        (share(0.0004), "< 1%"),
        (share(0.9996), "> 99%"),
        (p_value(0.77), "0.770"),
        (p_value(0.0023), "0.002"),
        (p_value(6.8e-5), "< 0.001"),
        (duration(42.4), "42 s"),
        (duration(0.53, 1), "0.5 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(76), "1 min 16 s"),
        (duration(7500), "2 h 5 min"),
    ],
)
def test_written_as_a_person_would(shown, expected):
    assert shown == expected


@pytest.mark.parametrize("write", [decimal, signed, size, share, p_value])
def test_what_is_not_known_is_said(write):
    assert {write(value) for value in (None, float("nan"), float("inf"), np.float32("nan"))} == {"not known"}


@pytest.mark.parametrize("name", ["decimal", "signed", "size", "share", "p_value"])
def test_no_exponent_and_no_sign_of_zero(name):
    for value in (*10.0 ** np.arange(-12, 12), *-(10.0 ** np.arange(-12, 12))):
        shown = getattr(numbers, name)(value)
        assert re.fullmatch(r"[<>]? ?[+-]?[\d,]+(\.\d+)?%?", shown), shown
        assert not re.fullmatch(r"-[0.,]+%?", shown), shown
