"""Judges on several devices."""

import numpy as np

from mine_jax import encoder, sharding
from mine_jax.types import ImageTokens, Responses, Split
from mine_jax.validation import evaluators


def split_of(n_images, seed):
    """Images with 4 x 4 tokens, of which 5 voxels read the mean and a part of the grid."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n_images, 16, 6)).astype(np.float32)
    weights = np.random.default_rng(9).standard_normal((6, 5))
    signal = 4 * states.mean(1) @ weights + states[:, 3, :5]
    responses = (signal + 0.3 * rng.standard_normal(signal.shape)).astype(np.float32)
    ids, unknown = np.char.add(f"{seed}-", np.arange(n_images).astype(str)), np.full(5, np.nan)
    counts = (np.ones(n_images, int), np.arange(5), np.full(5, "ok"))
    measured = Responses(responses, ids, *counts, unknown, unknown, np.full(5, ""))
    return Split(ImageTokens(states, ids, None, (4, 4)), measured)


def test_two_devices_fit_and_predict_the_same(monkeypatch):
    """Fit, score and prediction run on the mesh, with the results of one device."""
    unseen, seen, meshes = split_of(60, 0), split_of(30, 1), []
    mesh, exclude = sharding.mesh({"voxel": 2}), ["0-3", "0-50"]
    alone = evaluators.independent_evaluator(unseen, seen, exclude=exclude)
    assert alone is not None and (alone.r2 > 0.1).all()
    expected = alone.predict(seen.tokens)

    def spied(function):
        def called(*arguments, **options):
            meshes.append(options["mesh"])
            return function(*arguments, **options)

        return called

    for name in ("fit", "score", "predict"):
        monkeypatch.setattr(encoder, name, spied(getattr(encoder, name)))
    both = evaluators.independent_evaluator(unseen, seen, exclude=exclude, mesh=mesh)
    assert both is not None
    np.testing.assert_allclose(both.r2, alone.r2, atol=1e-5)
    np.testing.assert_allclose(both.predict(seen.tokens), expected, atol=1e-5 * np.abs(expected).max())
    assert mesh is not None and meshes == [mesh] * 3
