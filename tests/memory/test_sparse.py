"""Rows of mostly zeros, against dense ones."""

import numpy as np

from mine_jax.memory import sparse_rows


def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((20, 30)) * (rng.random((20, 30)) < 0.3) * (np.arange(20) != 4)[:, None]


def test_positive_leaves_what_is_above_zero():
    kept = sparse_rows(rows()).positive()
    np.testing.assert_array_equal(kept.dense(), np.maximum(rows(), 0))
    assert (kept.values > 0).all() and len(kept.values) == (rows() > 0).sum()
    np.testing.assert_array_equal(kept.take(slice(3, 6)).dense(), np.maximum(rows(), 0)[3:6])


def test_tables_for_products_have_one_type_of_index():
    table = sparse_rows(rows()).csr()
    assert table.indptr.dtype == table.indices.dtype == np.int32
    np.testing.assert_allclose((table @ table.T).toarray(), rows() @ rows().T, atol=1e-12)
