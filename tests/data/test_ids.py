"""Ids of images in every form that lists have, and lists that count from different numbers."""

import unicodedata

import numpy as np
import pytest

from mine_jax import data
from mine_jax.config import FolderConfig
from mine_jax.data import ids, tables, trials
from mine_jax.errors import AlignmentError, DataError
from mine_jax.types import ImageTokens, Responses


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a.png", "b.JPG", "sub/c.webp", "d"], ["a", "b", "c", "d"]),
        (["3.0", "4.0", "10."], ["3", "4", "10"]),
        (["3.000000000000000000e+00", "1.200000000000000000e+01"], ["3", "12"]),
        (["3.0.png", "4.png"], ["3.0", "4"]),
        (["3.5", "4.0"], ["3.5", "4.0"]),
        (["007", "8"], ["007", "8"]),
        ([unicodedata.normalize("NFD", "höhle.png")], [unicodedata.normalize("NFC", "höhle")]),
        (["photos\\a.png", " b.png "], ["a", "b"]),
    ],
)
def test_forms_of_one_id(values, expected):
    assert ids.clean(values, "list").tolist() == expected


@pytest.mark.parametrize("values", [["cat/01.png", "dog/01.png"], ["a.png", "a.jpg"]])
def test_two_photos_with_one_id(values):
    with pytest.raises(AlignmentError, match="would both have the id"):
        ids.clean(values, "list")


@pytest.mark.parametrize("value", ["", "nan", "-1", "-1.0", "None"])
def test_no_id(value):
    with pytest.raises(AlignmentError, match="line 2 of list"):
        ids.clean(["a", value], "list")


@pytest.mark.parametrize("values", [[0, 5, 12], [0.0, 5.0, 12.0], ["0", "5", "12"], [b"0", b"5", b"12"]])
def test_ids_of_arrays(tmp_path, values):
    np.save(tmp_path / "ids.npy", np.array(values))
    assert ids.read(tmp_path / "ids.npy").tolist() == ["0", "5", "12"]


def test_lines_end_at_line_feeds_only(tmp_path):
    (tmp_path / "ids.txt").write_bytes("a\u2028b\x0cc.png\r\nd\x85\r\n".encode())
    assert len(ids.read(tmp_path / "ids.txt")) == 2


def joined(response_ids, token_ids, on_missing="error"):
    n = len(response_ids)
    nothing = np.zeros(1)
    values = np.arange(n, dtype=np.float32)[:, None]
    names = np.array(response_ids, str)
    responses = Responses(values, names, np.ones(n, int), nothing.astype(int), nothing.astype(str), nothing, nothing,
                          nothing.astype(str))  # fmt: skip
    tokens = ImageTokens(np.arange(len(token_ids), dtype=np.float32)[:, None, None], np.array(token_ids, str))
    return data.align(responses, tokens, on_missing=on_missing)


@pytest.mark.parametrize("on_missing", ["error", "drop"])
@pytest.mark.parametrize("form", ["{}", "im{:03d}", "im{}_crop", "{:05d}"])
@pytest.mark.parametrize("base", [0, 1])
def test_lists_that_differ_by_one_are_never_joined(on_missing, form, base):
    """F-01: one list counts from 0, the other from 1."""
    one, other = ([form.format(k + b) for k in range(60)] for b in (base, 1 - base))
    with pytest.raises(AlignmentError, match="differ by one"):
        joined(one, other, on_missing)


def test_only_the_first_image_without_tokens_is_said(caplog):
    names = [f"im{k}" for k in range(9)]
    split = joined(names, names[1:], "drop")
    assert len(split.responses.image_ids) == 8 and "only the image im0 is left out" in caplog.text


@pytest.mark.parametrize(
    ("known", "message"),
    [("IM{}", "upper and lower case"), ("a/im{}", "their folder"), ("im{}.npy", "last point"), ('"im{}"', "quotes")],
)
def test_why_no_id_is_found(known, message):
    with pytest.raises(AlignmentError, match=message):
        joined([f"im{k}" for k in range(5)], [known.format(k) for k in range(5)])


@pytest.mark.parametrize("token_base", [None, 0, 1])
def test_one_base_for_all_lists(tmp_path, token_base):
    """Responses, test images and tokens by number, without photos."""
    np.save(tmp_path / "y.npy", np.random.default_rng(0).standard_normal((10, 3)))
    (tmp_path / "ids.txt").write_text("\n".join(str(k + 1) for k in range(10)))
    (tmp_path / "test.txt").write_text("3\n10\n")
    names = {"responses": "y.npy", "image_ids": "ids.txt", "test": "test.txt"}
    config = FolderConfig(**{key: str(tmp_path / name) for key, name in names.items()}, index_base=1)
    responses, stimuli = data.load(config)
    splits = data.assign_splits(responses, stimuli, test=config.test)
    assert responses.image_ids[splits == "test"].tolist() == ["2", "9"]
    numbers = np.arange(10) + (1 if token_base is None else token_base)
    found = stimuli.name(numbers.astype(str), "tokens", index_base=token_base, key="features.index_base", part=False)
    assert found.tolist() == responses.image_ids.tolist()
    with pytest.raises(AlignmentError, match=r"holds the id 0, but `features.index_base` is 1"):
        stimuli.name(np.array(["0", "1"]), "tokens", index_base=1, key="features.index_base")


def write(path, text):
    path.write_text(text)
    return path


def test_tables_with_tabs_at_line_ends(tmp_path):
    path = write(tmp_path / "t.tsv", "image_id\tsession\trun\n7\t1\t1\t\n8\t1\t2\t\n\n9\t2\t1\t\n")
    rows = trials.read_trials(path, zscore="session")
    assert rows.image_ids.tolist() == ["7", "8", "9"] and rows.groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id\tsession\n7\t1\n8\t1\t5\n", "line 3 of .* has 3 fields, but the header has 2"),
        ("image_id\tsession\n7\t1\n\n8\n", "line 4 of .* has 1 fields"),
        ("image_id\tsession\tsession\n7\t1\t1\n", "more than one column 'session'"),
        ("image_id\tsession\n7\t1\n8\tnan\n", "line 3 of .* has no session"),
        ("", "is empty"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        trials.read_trials(write(tmp_path / "t.tsv", text), zscore="session")


def test_quotes_are_characters(tmp_path):
    path = write(tmp_path / "t.tsv", 'image_id\tsession\tnote\na\t1\t"open\nb\t1\tx\nc\t2\t5" screen\n')
    table = tables.read_tsv(path)
    assert table["image_id"].tolist() == ["a", "b", "c"] and table["note"].tolist() == ['"open', "x", '5" screen']
    assert table.index.tolist() == [2, 3, 4]


def test_a_session_of_one_trial_is_left_out(tmp_path, caplog):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((41, 3))
    np.save(tmp_path / "y.npy", values)
    lines = [f"im{k:02d}\t{s}" for s in (1, 2) for k in range(20)] + ["im00\tlate"]
    write(tmp_path / "t.tsv", "image_id\tsession\n" + "\n".join(lines))
    config = FolderConfig(responses=str(tmp_path / "y.npy"), trials=str(tmp_path / "t.tsv"))
    responses, _ = data.load(config)
    scores = [(part - part.mean(0)) / part.std(0) for part in (values[:20], values[20:40])]
    np.testing.assert_allclose(responses.responses, np.mean(scores, 0), atol=1e-6)
    assert set(responses.status) == {"ok"} and "sessions late do not vary" in caplog.text


def test_numbers_of_a_data_set_that_counts_from_zero(nsd):
    """NSD has 500 images here: 0 to 499. A list that holds 500 counts from 1 (F-01)."""
    _, stimuli = data.load_nsd(nsd.root)
    with pytest.raises(AlignmentError, match=r"the id 500, but .* 500 images.*set `features.index_base` to 1"):
        stimuli.name(np.array(["1", "500"]), "tokens", key="features.index_base")
    assert stimuli.name(np.array(["1", "500"]), "tokens", index_base=1).tolist() == ["0", "499"]


def test_one_session_written_in_several_ways(tmp_path):
    path = write(tmp_path / "t.tsv", "image_id\tsession\na\t1\nb\t 1\nc\t1.0\nd\t2\n")
    rows = trials.read_trials(path, zscore="session")
    assert rows.names == ("1", "2") and rows.groups.tolist() == [0, 0, 0, 1]
