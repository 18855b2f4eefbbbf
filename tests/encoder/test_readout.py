import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax.encoder.query import readout


def case(*, n_images=40, n_voxels=3, heads=1, groups=1, cells=5, width=4, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "query": rng.standard_normal((n_voxels, heads, width)),
        "position": rng.standard_normal((n_voxels, heads, cells)),
        "keys": rng.standard_normal((n_images, cells, groups, width)),
    }
    mask = None
    if masked:
        mask = rng.random((n_images, cells)) < 0.6
        mask[:, 0] = True
    attended = attended_tokens(**arrays, mask=mask)
    coef = rng.standard_normal((n_voxels, heads * width))
    # from almost no noise to almost nothing else
    noise = rng.standard_normal((n_images, n_voxels)) * np.logspace(-1, 0.7, n_voxels)
    arrays["responses"] = np.einsum("nvi,vi->nv", attended, coef) + noise + 0.5
    return {name: value.astype(np.float32) for name, value in arrays.items()}, mask


def attended_tokens(query, position, keys, mask):
    """Attended tokens [N, V, H E] in float64 NumPy."""
    query, position, keys = (np.asarray(x, np.float64) for x in (query, position, keys))
    keys = np.broadcast_to(keys, (*keys.shape[:2], query.shape[1], keys.shape[3]))
    logits = np.einsum("vhe,nche->nvhc", query, keys) + position
    if mask is not None:
        logits = np.where(mask[:, None, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("nvhc,nche->nvhe", weights, keys).reshape(*logits.shape[:2], -1)


def ridge_gcv(features, y):
    """Coefficients, intercept and penalty by generalised cross-validation, from the hat matrix."""
    n = len(y)
    x, target = features - features.mean(0), y - y.mean()
    best = (np.inf,)
    for penalty in readout.PENALTIES:
        inverse = np.linalg.inv(x.T @ x + penalty * np.eye(x.shape[1]))
        hat = x @ inverse @ x.T
        error = ((target - hat @ target) ** 2).sum() / (1 - np.trace(hat) / n) ** 2
        if error < best[0]:
            coef = inverse @ x.T @ target
            best = (error, coef, y.mean() - features.mean(0) @ coef, penalty)
    return best[1:]


def solve(*, query, image_chunk=128, method="eigenvalues", **arrays):
    sums = readout.add(None, query, **arrays, image_chunk=image_chunk)
    return readout.finish(sums, heads=query.shape[1], method=method)


@pytest.mark.parametrize("method", ["eigenvalues", "cholesky"])
@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"heads": 2, "groups": 2}, {"masked": True}], ids=str)
def test_matches_float64_numpy(options, method):
    arrays, mask = case(**options)
    given = None if mask is None else jnp.asarray(mask)
    got = solve(**arrays, weights=jnp.ones(40), mask=given, method=method)
    features = attended_tokens(arrays["query"], arrays["position"], arrays["keys"], mask)
    for v in range(3):
        coef, intercept, penalty = ridge_gcv(features[:, v], arrays["responses"][:, v].astype(np.float64))
        np.testing.assert_allclose(got[2][v], penalty, rtol=1e-5)
        np.testing.assert_allclose(np.ravel(got[0][v]), coef, atol=1e-4 * max(1, np.abs(coef).max()))
        np.testing.assert_allclose(got[1][v], intercept, atol=1e-3)


def test_accelerators_find_no_eigenvalues():
    """The form for accelerators is compiled for CUDA without a solver of eigenvalues, the other one with it."""
    arrays, _ = case()
    sums = readout.add(None, arrays.pop("query"), **arrays, weights=jnp.ones(40))
    text = {
        method: readout.finish.trace(sums, heads=1, method=method).lower(lowering_platforms=("cuda",)).as_text()
        for method in ("eigenvalues", "cholesky")
    }
    assert "syevd" in text["eigenvalues"] and "syevd" not in text["cholesky"]


def test_weight_zero_leaves_images_out():
    arrays, _ = case()
    some = {name: value[:30] if len(value) == 40 else value for name, value in arrays.items()}
    expected = solve(**some, weights=jnp.ones(30))
    arrays["responses"][30:] = 99
    got = solve(**arrays, weights=jnp.arange(40) < 30)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("image_chunk", [1, 7, 1000])
def test_chunking_changes_nothing(image_chunk):
    arrays, _ = case()
    expected = solve(**arrays, weights=jnp.ones(40))
    for a, b in zip(solve(**arrays, weights=jnp.ones(40), image_chunk=image_chunk), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"heads": 2, "groups": 2}, {"masked": True}], ids=str)
def test_tiles_and_parts_that_do_not_divide_change_nothing(options, monkeypatch):
    """67 voxels in three tiles, 41 images in parts of six: every sum as of float64 NumPy."""
    monkeypatch.setattr(readout, "_LOGITS", {"cpu": 1500})
    monkeypatch.setattr(readout, "_LEAST_VOXELS", 24)
    arrays, mask = case(n_images=41, n_voxels=67, **options)
    weights = np.arange(41) % 5 > 0
    heads = arrays["query"].shape[1]
    assert readout.tile(67, 41, 5 * heads) == (23, 12 // heads)
    got = readout.add(None, **arrays, weights=weights, mask=None if mask is None else jnp.asarray(mask))
    got = readout.add(got, **arrays, weights=weights, mask=None if mask is None else jnp.asarray(mask))
    attended = attended_tokens(arrays["query"], arrays["position"], arrays["keys"], mask)[weights]
    y = arrays["responses"][weights].astype(np.float64)
    expected = {
        "gram": np.einsum("nvi,nvj->vij", attended, attended),
        "cross": np.einsum("nvi,nv->vi", attended, y),
        "total": attended.sum(0),
        "y_total": y.sum(0),
        "y_square": (y**2).sum(0),
        "count": len(y),
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], 2 * np.asarray(value), rtol=1e-5, atol=1e-4, err_msg=name)


def test_constant_response_gives_zero():
    arrays, _ = case()
    arrays["responses"][:] = 2
    coef, intercept, _ = solve(**arrays, weights=jnp.ones(40))
    np.testing.assert_allclose(coef, 0, atol=1e-5)
    np.testing.assert_allclose(intercept, 2, atol=1e-5)
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), coef))
