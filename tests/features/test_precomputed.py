import ml_dtypes
import numpy as np
import pytest

from mine_jax.config import PrecomputedConfig
from mine_jax.errors import AlignmentError, CheckpointError, ConfigError, DataError, IntegrityError, MissingInputError
from mine_jax.features import lens_scores, load_features, load_precomputed, open_store

N, P, D, W = 6, 4, 5, 3
VALUES = np.random.default_rng(0).standard_normal((N, P, D)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    """Writes the files and returns their paths; a keyword replaces the content of one."""

    def write(**changes):
        rng = np.random.default_rng(1)
        contents = {
            "tokens": VALUES,
            "ids": "".join(f"im{i}\n" for i in range(N)),
            "mask": np.ones((N, P), bool),
            "unembedding": rng.standard_normal((W, D)).astype(np.float32),
            "bias": rng.standard_normal(W).astype(np.float32),
            "words": "cat\n\ncat\n",
            **changes,
        }
        paths = {}
        for name, content in contents.items():
            paths[name] = tmp_path / f"{name}.{'txt' if isinstance(content, str) else 'npy'}"
            if isinstance(content, str):
                paths[name].write_text(content, encoding="utf-8")
            else:
                np.save(paths[name], content, allow_pickle=content.dtype == object)
        return paths

    return write


def read(paths, **options):
    return load_precomputed(paths["tokens"], paths["ids"], **options)


def test_tokens_and_lens(files):
    paths, calls = files(), []
    tokens, lens = load_precomputed(
        paths["tokens"],
        paths["ids"],
        mask=paths["mask"],
        unembedding=paths["unembedding"],
        unembedding_bias=paths["bias"],
        words=paths["words"],
        grid=(2, 2),
        progress=lambda *state: calls.append(state),
    )
    np.testing.assert_array_equal(np.asarray(tokens.tokens), VALUES)
    assert (tokens.grid, tokens.mask.shape, tokens.image_ids.tolist()[-1]) == ((2, 2), (N, P), "im5")
    # lines match rows: repeated and empty words stay
    assert lens.words.tolist() == ["cat", "", "cat"]
    expected = VALUES @ np.load(paths["unembedding"]).T + np.load(paths["bias"])
    np.testing.assert_allclose(lens_scores(lens, tokens.tokens[:]), expected, rtol=1e-5, atol=1e-5)
    assert calls == [(N, N)]
    assert read(paths)[1] is None


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ">f4", "fortran"])
def test_other_layouts_read_equal(dtype, files):
    values = np.asfortranarray(VALUES) if dtype == "fortran" else VALUES.astype(dtype)
    tokens, _ = read(files(tokens=values))
    np.testing.assert_array_equal(np.asarray(tokens.tokens), values)
    assert tokens.tokens.dtype.isnative


def test_integer_ids(files):
    tokens, _ = read(files(ids=np.arange(N) + 72_990))
    assert tokens.image_ids.tolist()[-1] == "72995"


@pytest.mark.parametrize("dtype", [object, complex, np.float64, np.int32, "U3"])
def test_dtypes_that_are_refused(dtype, files):
    values = np.zeros((N, P, D)).astype(dtype)
    error = IntegrityError if dtype is object else DataError
    with pytest.raises(error, match=r"tokens\.npy"):
        read(files(tokens=values))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_first_image_with_nonfinite_values_is_named(value, files, monkeypatch):
    """F-24: infinity and NaN in tokens."""
    monkeypatch.setattr("mine_jax.features.precomputed.BLOCK_BYTES", 2 * P * D * 4)
    values = VALUES.copy()
    values[[3, 5], 1, 2] = value
    with pytest.raises(DataError, match=r"first in image 'im3' \(row 3\)"):
        read(files(tokens=values))


def test_shapes(files):
    with pytest.raises(DataError, match=r"\[N, P, D\].*save \[N, 1, D\]"):
        read(files(tokens=VALUES[:, 0]))
    with pytest.raises(DataError, match="there are no tokens in it"):
        read(files(tokens=VALUES[:, :0]))
    with pytest.raises(DataError, match=r"\[2, 3\] has 6 positions, but .* holds 4"):
        read(files(), grid=(2, 3))
    paths = files(mask=np.ones((N, P + 1), bool))
    with pytest.raises(DataError, match=r"`features.mask` must have shape \[N, P\]"):
        read(paths, mask=paths["mask"])
    paths = files(mask=np.ones((N, P)))
    with pytest.raises(DataError, match="must be bool"):
        read(paths, mask=paths["mask"])


def test_ids(files):
    with pytest.raises(AlignmentError, match=r"tokens of 6 images, but .* lists 5 ids"):
        read(files(ids="a\nb\nc\nd\ne\n"))
    with pytest.raises(DataError, match=r"line 2 of .*image id ''"):
        read(files(ids="a\n\nc\nd\ne\nf\n"))
    with pytest.raises(DataError, match="integers or strings"):
        read(files(ids=np.zeros((N, 1))))
    paths = files()
    paths["ids"].unlink()
    with pytest.raises(MissingInputError, match=r"no file at .*ids"):
        read(paths)


def test_repeated_ids(files, caplog):
    """F-06: equal duplicates are one image, others an error."""
    ids = "a\nb\na\nc\nd\nb\n"
    with pytest.raises(AlignmentError, match="image 'a' has different tokens in rows 0 and 2"):
        read(files(ids=ids))
    values = VALUES.copy()
    values[2], values[5] = values[0], values[1]
    paths = files(ids=ids, tokens=values)
    tokens, _ = read(paths, mask=paths["mask"])
    assert tokens.image_ids.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(np.asarray(tokens.tokens), values[[0, 1, 3, 4]])
    assert tokens.mask.shape == (4, P)
    assert "2 repeated rows" in caplog.text
    mask = np.ones((N, P), bool)
    mask[2, 0] = False
    paths = files(ids=ids, tokens=values, mask=mask)
    with pytest.raises(AlignmentError, match="different tokens"):
        read(paths, mask=paths["mask"])


def test_image_without_a_real_token(files):
    """F-58: an image of padding alone."""
    mask = np.ones((N, P), bool)
    mask[4] = False
    paths = files(mask=mask)
    with pytest.raises(DataError, match=r"every token of 1 image, first 'im4'"):
        read(paths, mask=paths["mask"])


def test_lens_files(files):
    paths = files()
    with pytest.raises(DataError, match=r"needs `features.words`"):
        read(paths, unembedding=paths["unembedding"])
    paths = files(words="a\nb\n")
    with pytest.raises(DataError, match=r"W = 2, D = 5, but has shape \(3, 5\)"):
        read(paths, unembedding=paths["unembedding"], words=paths["words"])
    paths = files(unembedding=np.full((W, D), 1e300))
    with pytest.raises(DataError, match="NaN or infinity in float32, first in row 0"):
        read(paths, unembedding=paths["unembedding"], words=paths["words"])
    paths = files(unembedding=np.ones((W, D), int))
    with pytest.raises(DataError, match="must be float16, float32 or float64"):
        read(paths, unembedding=paths["unembedding"], words=paths["words"])


def test_stage_refers_to_the_file(files, tmp_path):
    values = VALUES.astype(np.float16)
    values[5] = values[0]
    paths = files(ids="a\nb\nc\nd\ne\na\n", tokens=values)
    config = PrecomputedConfig(
        tokens=str(paths["tokens"]),
        token_image_ids=str(paths["ids"]),
        mask=str(paths["mask"]),
        unembedding=str(paths["unembedding"]),
        words=str(paths["words"]),
        grid=(2, 2),
        layer=7,
    )
    directory = tmp_path / "run" / "features"
    tokens, lens = load_features(config, None, directory=directory)
    again = open_store(directory)
    np.testing.assert_array_equal(np.asarray(again.tokens), np.asarray(tokens.tokens))
    assert again.image_ids.tolist() == list("abcde")
    assert (again.mask.shape, again.grid, again.layer) == ((5, P), (2, 2), 7)
    assert sum(path.stat().st_size for path in directory.glob("*.npy")) < paths["tokens"].stat().st_size
    assert (directory / "lens" / "meta.json").is_file()
    assert lens.norm == "none"
    np.save(paths["tokens"], values + 1)
    with pytest.raises(CheckpointError, match=r"tokens.npy is not the file that"):
        open_store(directory)
    paths["tokens"].unlink()
    with pytest.raises(MissingInputError, match="which is not there"):
        open_store(directory)
    with pytest.raises(ConfigError, match=r"needs `features.tokens`"):
        load_features(PrecomputedConfig(), None)
