"""Rows of mostly zeros, against dense ones."""

import numpy as np
import pytest

from mine_jax import memory
from mine_jax.memory import concatenated, empty_rows, sparse, sparse_rows


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


def test_rows_that_follow_one_another_are_views():
    table = sparse_rows(rows())
    for chosen in (slice(3, 9), np.arange(3, 9), np.isin(np.arange(20), np.arange(3, 9))):
        part = table.take(chosen)
        np.testing.assert_array_equal(part.dense(), rows()[3:9])
        assert np.shares_memory(part.values, table.values)
    mixed = np.array([5, 3, 3, 19])
    np.testing.assert_array_equal(table.take(mixed).dense(), rows()[mixed])
    assert len(table.take(np.zeros(0, int))) == 0


@pytest.mark.parametrize("in_files", [False, True])
def test_concatenated_rows_are_those_of_all_parts(tmp_path, in_files):
    parts = [empty_rows(0, 30), sparse_rows(rows()[:7].astype(np.float32)), empty_rows(2, 30)]
    parts.append(sparse_rows(rows()[9:].astype(np.float32)))
    together = concatenated(iter(parts), folder=tmp_path / "new" if in_files else None)
    expected = rows().astype(np.float32)
    expected[7:9] = 0
    np.testing.assert_array_equal(together.dense(), expected)
    assert together.values.dtype == np.float32 and together.columns.dtype == np.int32
    assert isinstance(together.values, np.memmap) == in_files
    assert not in_files or not any((tmp_path / "new").iterdir())
    nothing = concatenated([empty_rows(3, 30)], folder=tmp_path if in_files else None)
    np.testing.assert_array_equal(nothing.dense(), np.zeros((3, 30)))


def test_sums_of_columns_go_over_all_blocks(monkeypatch):
    monkeypatch.setattr(sparse, "BLOCK_BYTES", 8 * 30)
    assert len(list(memory.in_blocks(sparse_rows(rows())))) > 3
    np.testing.assert_allclose(memory.column_sums(sparse_rows(rows())), rows().sum(0))
    np.testing.assert_allclose(memory.column_means(sparse_rows(rows())), rows().mean(0))


@pytest.mark.parametrize("in_files", [False, True])
def test_columns_are_copied_in_their_order(tmp_path, monkeypatch, in_files):
    monkeypatch.setattr("mine_jax.memory.rows._COLUMNS_AT_ONCE", 4)
    source, columns = rows(), np.array([29, 0, 7, 7, 3, 12, 28, 1, 2])
    copied = memory.take_columns(source, columns, folder=tmp_path if in_files else None)
    np.testing.assert_array_equal(copied, source[:, columns].astype(np.float32))
    assert isinstance(copied, np.memmap) == in_files and not any(tmp_path.iterdir())
