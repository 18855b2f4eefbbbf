"""Denoising of tokens: each step against a loop over float64 tokens, and what it is fitted on."""

import dataclasses

import numpy as np
import pytest

from mine_jax.config import ClipConfig, from_dict
from mine_jax.errors import CheckpointError, ConfigError, DataError
from mine_jax.features import Backbone, denoise, denoise_like, load_features, reduce_like
from mine_jax.features.dense.denoise import OUTLIER, DenoisedBackbone, TokenStatistics, fitted
from mine_jax.features.ports.clip.backbone import load
from mine_jax.types import Stimuli

GRID = (3, 4)
STEPS = ("register", "position", "neighbors")


def make_tokens(seed=0, n=5, d=6):
    return np.random.default_rng(seed).standard_normal((n, *GRID, d)).reshape(n, -1, d)


def neighborhood(p):
    """Yields (token, rows and columns away) of the window of 3 x 3 around a token of the grid."""
    row, column = divmod(p, GRID[1])
    for i in range(max(0, row - 1), min(GRID[0], row + 2)):
        for j in range(max(0, column - 1), min(GRID[1], column + 2)):
            yield i * GRID[1] + j, abs(i - row) + abs(j - column)


def filled(image, threshold):
    """One image's tokens [P, D], outliers replaced by the mean of their neighbours that are none."""
    is_clean = np.linalg.norm(image, axis=1) <= threshold
    out = image.copy()
    for p in np.flatnonzero(~is_clean):
        near = [q for q, _ in neighborhood(p) if is_clean[q]]
        out[p] = image[near].mean(0) if near else image[p]
    return out


def smoothed(image):
    out = np.empty_like(image)
    for p in range(len(image)):
        weights = {q: 0.5**distance for q, distance in neighborhood(p)}
        out[p] = sum(weight * image[q] for q, weight in weights.items()) / sum(weights.values())
    return out


def test_each_step_matches_a_loop():
    tokens = make_tokens()
    tokens[1, 5] *= 9
    tokens[2] *= 9  # a whole image of outliers: nothing to fill them from
    offset = make_tokens(1, n=1)[0]
    statistics = TokenStatistics(8.0, offset)
    expected = {
        ("register",): np.stack([filled(image, 8.0) for image in tokens]),
        ("position",): tokens - offset,
        ("neighbors",): np.stack([smoothed(image) for image in tokens]),
        STEPS: np.stack([smoothed(filled(image, 8.0) - offset) for image in tokens]),
    }
    assert not np.allclose(expected["register",][1, 5], tokens[1, 5])
    np.testing.assert_array_equal(expected["register",][2], tokens[2])
    for steps, wanted in expected.items():
        ours = denoise(tokens.astype(np.float32), statistics, steps=steps[::-1], grid=GRID)
        np.testing.assert_allclose(ours, wanted, atol=3e-5, err_msg=str(steps))


def test_no_step_changes_nothing_and_an_unknown_one_is_named():
    tokens = make_tokens().astype(np.float16)
    ours = denoise(tokens, TokenStatistics(0.0, None), steps=(), grid=GRID)
    np.testing.assert_array_equal(ours, tokens.astype(np.float32))
    with pytest.raises(ConfigError, match="must be among register, position, neighbors, but names registers"):
        denoise(tokens, TokenStatistics(0.0, None), steps=("registers",), grid=GRID)
    with pytest.raises(ConfigError, match=r"features.denoise.*'register', 'position' or 'neighbors'"):
        from_dict({"features": {"kind": "clip", "denoise": ["registers"]}})


def test_statistics_match_numpy():
    tokens = make_tokens(n=40) + 3 * make_tokens(1, n=1)
    tokens[3, 7] *= 50
    batches = [(0, {2: tokens[:25]}), (25, {2: tokens[25:]})]
    both = fitted(lambda: iter(batches), layers=(2,), steps=("register", "position"), grid=GRID)[2]
    norms = np.linalg.norm(tokens, axis=-1).ravel()
    spread = 1.4826 * np.median(np.abs(norms - np.median(norms)))
    assert both.threshold == pytest.approx(np.median(norms) + OUTLIER * spread, rel=1e-5)
    clean = np.stack([filled(image, both.threshold) for image in tokens]).mean(0)
    np.testing.assert_allclose(both.position, clean - clean.mean(0), atol=1e-5)
    np.testing.assert_allclose(both.position.mean(0), 0, atol=1e-5)
    alone = fitted(lambda: iter(batches), layers=(2,), steps=("position",), grid=GRID)[2]
    assert alone.threshold is None
    np.testing.assert_allclose(alone.position, tokens.mean(0) - tokens.mean((0, 1)), atol=1e-5)
    assert fitted(lambda: iter(batches), layers=(2,), steps=("neighbors",), grid=GRID)[2] == (None, None)


def test_position_removal_recovers_what_was_planted():
    rng = np.random.default_rng(0)
    content, planted = rng.standard_normal((400, 12, 6)), 5 * rng.standard_normal((12, 6))
    planted -= planted.mean(0)
    statistics = fitted(lambda: iter([(0, {1: content + planted})]), layers=(1,), steps=("position",), grid=GRID)[1]
    ours = np.asarray(denoise((content + planted).astype(np.float32), statistics, steps=("position",), grid=GRID))
    assert np.abs(ours - content).max() < 0.25 < np.abs(planted).max()


@pytest.fixture
def stage(checkpoint, words, tmp_path):
    """Runs the features stage on `n` images; returns (tokens, lens, directory)."""
    (tmp_path / "words.txt").write_text("\n".join(words))

    def run(name, stimuli, *, fitted_on=None, **keys):
        config = ClipConfig(
            model=str(checkpoint), words=str(tmp_path / "words.txt"), batch_size=8, dtype="float32", **keys
        )
        return *load_features(config, stimuli, directory=tmp_path / name, fitted_on=fitted_on), tmp_path / name

    return run


def make_stimuli(n=24, changed=()):
    images = np.random.default_rng(0).integers(0, 256, (n, 40, 40, 3), dtype=np.uint8)
    images[list(changed)] = 255 - images[list(changed)]
    ids = np.array([f"im{i}" for i in range(n)])
    lookup = dict(zip(ids.tolist(), images, strict=True))
    return Stimuli(ids, lambda wanted: [lookup[i] for i in wanted], np.array([""] * n), np.zeros(n, bool))


def test_the_stage_denoises_and_new_images_follow(stage, checkpoint):
    stimuli = make_stimuli()
    plain = np.asarray(stage("plain", stimuli)[0].tokens, np.float64)
    tokens, _, directory = stage("both", stimuli, denoise=("neighbors", "position"), more_layers=(1,))
    model = denoise_like(load(checkpoint), directory)
    assert isinstance(model, Backbone) and isinstance(model, DenoisedBackbone)
    offset = plain.mean(0) - plain.mean((0, 1))
    np.testing.assert_allclose(model.statistics[2].position, offset, atol=1e-4)
    wanted = denoise(plain, TokenStatistics(None, offset), steps=("position", "neighbors"), grid=(4, 4))
    np.testing.assert_allclose(tokens.tokens, wanted, atol=1e-4)
    pixels = model.preprocess(stimuli.read(["im3", "im9"]))
    np.testing.assert_allclose(model.encode(pixels)[-1], tokens.tokens[[3, 9]], atol=1e-4)
    assert denoise_like(load(checkpoint), directory.parent / "plain").sha256 == load(checkpoint).sha256
    with pytest.raises(ConfigError, match=r"layers \[0\] cannot be denoised; layers that can: \[1, 2\]"):
        model.encode(pixels, layers=(0,))


def test_only_training_images_decide(stage):
    training = np.array([f"im{i}" for i in range(16)])
    keys = {"denoise": STEPS, "reduce": 5, "fitted_on": training}
    first = stage("first", make_stimuli(), **keys)
    other = stage("other", make_stimuli(changed=range(16, 24)), **keys)
    np.testing.assert_array_equal(other[0].tokens[:16], first[0].tokens[:16])
    assert not np.array_equal(other[0].tokens[16:], first[0].tokens[16:])
    assert first[0].model == other[0].model
    changed = stage("changed", make_stimuli(changed=range(8)), **keys)
    assert not np.allclose(changed[0].tokens[8:16], first[0].tokens[8:16])
    with pytest.raises(DataError, match="none of the images that features are fitted on"):
        stage("none", make_stimuli(), **{**keys, "fitted_on": np.array(["elsewhere"])})


def test_reduced_after_it_and_kept(stage, checkpoint):
    stimuli = make_stimuli()
    tokens, _, directory = stage("kept", stimuli, denoise=STEPS, reduce=4)
    model = reduce_like(denoise_like(load(checkpoint), directory), directory, layer=-1)
    pixels = model.preprocess(stimuli.read(["im3"]))
    np.testing.assert_allclose(model.encode(pixels)[-1], tokens.tokens[[3]], atol=1e-4)
    before = {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    (directory / "tokens-00000.npy").unlink()
    stage("kept", stimuli, denoise=STEPS, reduce=4)
    assert {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    with pytest.raises(CheckpointError, match="different: steps"):
        stage("kept", stimuli, denoise=("position",), reduce=4)
    position = directory / "denoising" / "position-02.npy"
    position.write_bytes(position.read_bytes()[:-4] + b"abcd")
    with pytest.raises(CheckpointError, match="differs from its sha256"):
        denoise_like(load(checkpoint), directory)


def test_identity_depends_on_what_was_fitted(checkpoint):
    model = load(checkpoint)
    statistics = {2: TokenStatistics(5.0, np.zeros((16, 24), np.float32))}
    made = DenoisedBackbone(model, statistics, ("register", "position"))
    moved = DenoisedBackbone(model, {2: TokenStatistics(5.5, statistics[2].position)}, made.steps)
    fewer = dataclasses.replace(made, steps=("position",))
    assert len({backbone.sha256 for backbone in (model, made, moved, fewer)}) == 4
