"""The parallel efficiency and the equality of results are what the definition says."""

import numpy as np
import pytest

from benchmarks.check_parallel import compared


def test_efficiency_and_error():
    values = np.array([[1.0, -4.0], [2.0, 3.0]])
    one = {"ridge_s": np.array([5.0, 4.0]), "ridge/coef": values, "ridge/zero": np.zeros(3)}
    several = {"ridge_s": np.array([2.5, 9.0]), "ridge/coef": values + 2e-6, "ridge/zero": np.zeros(3)}
    numbers = compared(one, several, n_devices=2)
    # the fastest rounds, 4 and 2.5 s; the error relative to the largest value, 4
    assert numbers == pytest.approx({"ridge_efficiency": 0.8, "ridge_error": 5e-7})
