"""Times count up to the point that the check says, and both ways see the same position terms."""

import numpy as np
import pytest

from benchmarks import check_time_to_quality as check


def test_ours_is_the_cheapest_fit_that_reaches_torch_and_torch_is_timed_until_it_stays_near_its_best():
    mine = check.Curve([0, 1, 2, 4], [1.0, 2.0, 3.0, 5.0], [0.1, 0.3, 0.32, 0.33])
    torch = check.Curve([1, 2, 3, 4], [10.0, 20.0, 30.0, 40.0], [0.2, 0.3045, 0.3, 0.305])
    found = check.compared(mine, torch, (6.0, 0.25), cold=10.0)
    # 0.3045 is near .305, but the epoch after it is not
    assert found["epochs_of_torch_until_there"] == 4 and found["epochs_of_ours_until_there"] == 2
    assert found["cpu_of_torch_as_a_multiple_of_ours"] == pytest.approx(40 / 3)
    assert found["cpu_of_torch_as_a_multiple_of_our_16_epochs_cold"] == pytest.approx(4)
    assert found["cpu_of_kernel_ridge_as_a_multiple_of_ours"] == pytest.approx(2)


def test_where_ours_never_reaches_torch_nothing_is_claimed():
    found = check.compared(check.Curve([0], [1.0], [0.1]), check.Curve([1], [2.0], [0.2]), (1.0, 0.1), cold=1.0)
    assert np.isnan(found["cpu_of_torch_as_a_multiple_of_ours"]) and np.isnan(found["r2_of_ours_there"])


def test_position_terms_are_orthogonal_and_never_constant():
    functions = check.cosines(8, 4)
    assert functions.shape == (64, 15)
    np.testing.assert_allclose(functions.sum(0), 0, atol=1e-5)
    products = functions.T @ functions
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-5)
