import numpy as np
import pytest

from mine_jax.config import ClipConfig
from mine_jax.errors import CheckpointError, ConfigError, DataError
from mine_jax.features import (
    Backbone,
    lens_scores,
    load_features,
    open_store,
    project_tokens,
    reduce_like,
    reduced_lens,
)
from mine_jax.features.dense.reduce import ReducedBackbone, reduced
from mine_jax.features.ports.clip.backbone import load
from mine_jax.types import Lens, Stimuli


def make_stimuli(n, *, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, 40, 40, 3), dtype=np.uint8)
    ids = np.array([f"im{i}" for i in range(n)])
    lookup = dict(zip(ids.tolist(), images, strict=True))
    return Stimuli(ids, lambda wanted: [lookup[i] for i in wanted], np.array([""] * n), np.zeros(n, bool))


@pytest.fixture
def stage(checkpoint, words, tmp_path):
    """Runs the features stage with some keys set; returns (tokens, lens, directory)."""
    (tmp_path / "words.txt").write_text("\n".join(words))

    def run(name="features", n=24, **keys):
        config = ClipConfig(
            model=str(checkpoint), words=str(tmp_path / "words.txt"), batch_size=8, dtype="float32", **keys
        )
        return *load_features(config, make_stimuli(n), directory=tmp_path / name), tmp_path / name

    return run


def test_matches_numpy(stage):
    full = np.asarray(stage("full")[0].tokens, np.float64)
    tokens, _, directory = stage(reduce=5)
    flat = full.reshape(-1, 24)
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False, bias=True))
    basis = vectors[:, ::-1][:, :5]
    expected = (flat - flat.mean(0)) @ basis
    ours = np.asarray(tokens.tokens, np.float64).reshape(-1, 5)
    signs = np.sign((ours * expected).sum(0))
    np.testing.assert_allclose(ours, expected * signs, atol=1e-4)
    model = reduce_like(load(directory.parent / "tiny-clip"), directory, layer=-1)
    assert model.reductions[2].explained == pytest.approx(values[::-1][:5].sum() / values.sum(), rel=1e-5)


def test_all_dimensions_change_no_score(stage):
    tokens, lens, _ = stage("full")
    rotated, lifted, directory = stage(reduce=24)
    np.testing.assert_allclose(lens_scores(lifted, rotated.tokens), lens_scores(lens, tokens.tokens), atol=2e-4)
    assert open_store(directory).tokens.shape == (24, 16, 24)


def test_lens_reads_the_lifted_token():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 3)))[0]
    mean, x = rng.standard_normal(6), rng.standard_normal((4, 6)).astype(np.float32)
    lens = Lens(np.array(["a", "b"]), np.eye(2, 6, dtype=np.float32), np.zeros(2, np.float32), norm="rms")
    z = (x - mean) @ basis
    kept = (mean + z @ basis.T).astype(np.float32)
    lifted = reduced_lens(lens, mean, basis)
    np.testing.assert_allclose(project_tokens(lifted, z), project_tokens(lens, kept), atol=1e-5)
    with pytest.raises(DataError, match="must have width D = 3"):
        lens_scores(lifted, x)


def test_further_layers_and_new_images(stage, checkpoint):
    tokens, _, directory = stage(reduce=4, more_layers=(0, 1), layer=-1)
    first = open_store(directory / "layer-00")
    assert (first.layer, first.tokens.shape) == (0, (24, 16, 4))
    assert open_store(directory / "layer-01").layer == 1
    model = reduce_like(load(checkpoint), directory, layer=-1)
    assert isinstance(model, Backbone) and isinstance(model, ReducedBackbone)
    images = make_stimuli(24).read([f"im{i}" for i in range(8)])
    found = model.encode(model.preprocess(images), layers=(0, 2))
    np.testing.assert_allclose(found[2], tokens.tokens[:8], atol=1e-5)
    np.testing.assert_allclose(found[0], first.tokens[:8], atol=1e-5)
    narrow, _, other = stage("narrow", reduce=4)
    assert narrow.model != tokens.model
    with pytest.raises(ConfigError, match=r"layers \[1\] have no reduction"):
        reduce_like(load(checkpoint), other, layer=-1).encode(model.preprocess(images), layers=(1,))


def test_resumed_with_the_saved_projection(stage, tmp_path):
    _, _, directory = stage(reduce=4)
    before = {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    (directory / "tokens-00000.npy").unlink()
    stage(reduce=4)
    assert {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    with pytest.raises(CheckpointError, match="different: dimensions"):
        stage(reduce=3)
    basis = directory / "reduction" / "basis-02.npy"
    basis.write_bytes(basis.read_bytes()[:-4] + b"abcd")
    with pytest.raises(CheckpointError, match="differs from its sha256"):
        stage(reduce=4)


def test_messages(stage, checkpoint):
    with pytest.raises(ConfigError, match="at most the token width 24, but is 25"):
        stage(reduce=25)
    sample = [(0, {2: np.zeros((1, 3, 24), np.float32)})]
    with pytest.raises(DataError, match="needs more than 3 tokens"):
        reduced(load(checkpoint), 4, main=2, batches=sample)
    assert reduce_like(load(checkpoint), checkpoint, layer=-1).width == 24
