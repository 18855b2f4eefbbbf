"""Rows of arrays in files: chosen without reading, read like NumPy reads the rows themselves."""

import numpy as np
import pytest

from mine_jax import data, memory
from mine_jax.memory import rows
from mine_jax.memory.rows import ChosenRows, is_in_memory, read_columns, take_rows
from mine_jax.types import ImageTokens, Responses

VALUES = np.arange(60, dtype=np.float32).reshape(10, 6)
ROWS = np.array([7, 2, 2, 9, 0])


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "values.npy", VALUES)
    return np.load(tmp_path / "values.npy", mmap_mode="r")


KEYS = [
    2,
    -1,
    slice(None),
    slice(1, 4),
    np.array([3, 0]),
    np.array([True, False, True, False, False]),
    ...,
    (2, 3),
    (slice(1, 4), slice(2, 5)),
    (slice(None), 1),
    (slice(None), np.array([5, 1, 5])),
    (slice(1, 4), np.arange(6) % 2 == 0),
    (np.array([3, 0]), slice(2, 5)),
    (np.array([3, 0]), np.array([1, 2])),
    (1, np.array([4, 0])),
    (..., 0),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indices_are_those_of_numpy(mapped, monkeypatch, key):
    monkeypatch.setattr(rows, "PART_BYTES", 50)  # two rows at a time
    got = ChosenRows(mapped, ROWS)[key]
    np.testing.assert_array_equal(got, VALUES[ROWS][key], strict=True)
    assert not isinstance(got, np.memmap)


def test_chosen_rows_look_like_the_array(mapped):
    chosen = ChosenRows(mapped, ROWS)
    assert (chosen.shape, chosen.dtype, chosen.ndim, chosen.nbytes, len(chosen)) == ((5, 6), np.float32, 2, 120, 5)
    np.testing.assert_array_equal(np.asarray(chosen, np.float64), VALUES[ROWS])
    assert np.array(chosen).sum() == VALUES[ROWS].sum() and "5, 6" in repr(chosen)
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(chosen, copy=False)


def test_choosing_again_reads_the_same_file(mapped):
    once = take_rows(mapped, np.arange(10) % 2 == 1)
    twice = take_rows(once, np.array([3, 0]))
    assert twice.source is mapped
    np.testing.assert_array_equal(twice, VALUES[[7, 1]])


def test_arrays_in_memory_are_copied(mapped):
    assert isinstance(take_rows(VALUES, ROWS), np.ndarray) and isinstance(take_rows(mapped, ROWS), ChosenRows)
    assert rows.is_in_memory(ChosenRows(VALUES, ROWS)) and not rows.is_in_memory(ChosenRows(mapped, ROWS))


@pytest.mark.parametrize("kind", ["memory", "file", "rows"])
def test_columns_are_read_in_parts(mapped, monkeypatch, kind):
    source, expected = {
        "memory": (VALUES, VALUES),
        "file": (mapped, VALUES),
        "rows": (ChosenRows(mapped, ROWS), VALUES[ROWS]),
    }[kind]
    monkeypatch.setattr(rows, "PART_BYTES", 40)
    monkeypatch.setattr(rows, "AROUND_BYTES", 16)
    for columns in (slice(1, 4), slice(4, 9)):
        np.testing.assert_array_equal(read_columns(source, columns), expected[:, columns], strict=True)


def test_align_and_split_read_no_responses(mapped):
    """Rows of a file stay there through `align`, with images dropped, and `split_rows`."""
    unknown, ids = np.full(6, np.nan), np.array([f"i{i}" for i in range(10)])
    responses = Responses(
        mapped, ids, np.ones(10, int), np.arange(6), np.array(["ok"] * 6), unknown, unknown, np.full(6, "")
    )
    tokens = ImageTokens(np.zeros((8, 2, 3), np.float32), ids[[9, 7, 5, 3, 1, 8, 6, 4]])
    aligned = data.align(responses, tokens, on_missing="drop")
    part = data.split_rows(aligned, np.array(["train", "test"] * 4), names="test").responses
    assert isinstance(part.responses, ChosenRows) and part.responses.source is mapped
    np.testing.assert_array_equal(part.image_ids, ids[[3, 5, 7, 9]])
    np.testing.assert_array_equal(part.responses, VALUES[[3, 5, 7, 9]])
    np.testing.assert_array_equal(part.take(np.array([4, 0])).responses, VALUES[[3, 5, 7, 9]][:, [4, 0]])
    assert "float32[4,6]" in repr(part)


def test_arrays_side_by_side_read_like_one(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((30, 4)), rng.standard_normal((30, 9))
    np.save(tmp_path / "right.npy", right)
    mapped = np.load(tmp_path / "right.npy", mmap_mode="r")
    rows = rng.permutation(30)
    joined = memory.SideBySide((left, slice(0, 4)), (memory.ChosenRows(mapped, rows), slice(2, 7)))
    whole = np.concatenate([left, right[rows][:, 2:7]], 1)
    assert joined.shape == whole.shape and joined.dtype == whole.dtype
    np.testing.assert_array_equal(joined[:], whole)
    np.testing.assert_array_equal(joined[3:20, 2:6], whole[3:20, 2:6])
    np.testing.assert_array_equal(joined[np.array([5, 1])], whole[[5, 1]])
    np.testing.assert_array_equal(joined[whole[:, 0] > 0, [7, 0]], whole[whole[:, 0] > 0][:, [7, 0]])
    chosen = memory.take_rows(joined, np.array([4, 9, 2]))
    np.testing.assert_array_equal(np.asarray(chosen), whole[[4, 9, 2]])
    np.testing.assert_array_equal(memory.read_columns(chosen, slice(3, 8)), whole[[4, 9, 2], 3:8])
    assert not is_in_memory(joined) and is_in_memory(memory.SideBySide((left, slice(0, 2))))
