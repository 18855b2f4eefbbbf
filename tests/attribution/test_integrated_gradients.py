import dataclasses
import warnings

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.attribution import integrated_gradients
from mine_jax.encoder.query import model as query
from mine_jax.errors import DataError
from mine_jax.types import Architecture, Encoders, ImageTokens

QUERY_KINDS = ("query", "query_pool", "query_heads", "query_shared", "query_linear", "query_linear_pool")
KINDS = (*QUERY_KINDS, "ridge_mean", "ridge_grid", "ridge_grid_pool")


def nodes_and_weights(n_steps):
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    return (nodes + 1) / 2, weights / 2


@pytest.mark.parametrize(
    ("kind", "masked"), [*((kind, True) for kind in KINDS), ("query", False), ("ridge_grid_pool", False)]
)
def test_exact_matches_autodiff(make, kind, masked):
    """Exact scores of all kinds without a mask are compared with captum, and in float64."""
    encoders, tokens = make.encoders(kind), make.tokens(3, masked=masked)
    exact = integrated_gradients(encoders, tokens, n_steps=32, max_steps=32)
    autodiff = integrated_gradients(encoders, tokens, n_steps=32, max_steps=32, method="autodiff")
    assert exact.scores.shape == (5, 3, 16) and exact.scores.dtype == np.float32
    scale = np.abs(autodiff.scores).max()
    # float32 sums over 16 tokens and 32 steps
    np.testing.assert_allclose(exact.scores, autodiff.scores, atol=1e-6 * scale)
    np.testing.assert_allclose(exact.predicted, autodiff.predicted, atol=1e-5)
    np.testing.assert_allclose(exact.predicted_baseline, autodiff.predicted_baseline, atol=1e-5)
    if masked:
        assert not exact.scores[:, ~tokens.mask].any()


@pytest.mark.parametrize(("kind", "masked"), [*((kind, "pool" in kind) for kind in QUERY_KINDS), ("query", True)])
def test_exact_matches_autodiff_in_float64(make, kind, masked):
    encoders, tokens = make.encoders(kind), make.tokens(1, masked=masked)
    nodes, weights = nodes_and_weights(9)
    with jax.enable_x64(True):
        shared = {name: jnp.asarray(value, jnp.float64) for name, value in encoders.shared.items()}
        voxel = {name: jnp.asarray(value[2], jnp.float64) for name, value in encoders.per_voxel.items()}
        states = jnp.asarray(np.nan_to_num(tokens.tokens[0]), jnp.float64)
        start = jnp.broadcast_to(jnp.asarray(encoders.baseline, jnp.float64), states.shape)
        mask = None if tokens.mask is None else jnp.asarray(tokens.mask[0])
        cells = query.cells(encoders.architecture, len(states), mask)
        terms = [query.token_terms_one(shared, voxel, x, cells, encoders.architecture) for x in (start, states)]
        (logits_0, scalars_0), (logits_1, scalars_1) = terms
        # a linear term is one more head that has no places
        position = jnp.pad(voxel["position"], ((0, len(logits_0) - len(voxel["position"])), (0, 0)))
        exact = mine_kernels.token_ig(logits_0, logits_1, scalars_0, scalars_1, position, nodes, weights, cells=cells)
        gradient = jax.jit(jax.grad(lambda x: encoder.predict_one(shared, voxel, x, mask, encoders.architecture)))
        expected = sum(w * gradient(start + a * (states - start)) for a, w in zip(nodes, weights, strict=True))
        np.testing.assert_allclose(exact, (expected * (states - start)).sum(-1), atol=1e-12, rtol=0)


def test_completeness(encoders, make):
    """F-60: the scores add up to the change."""
    tokens = make.tokens(3, masked=True)
    got = integrated_gradients(encoders, tokens)
    expected = encoder.predict(encoders, tokens)
    np.testing.assert_allclose(got.predicted, expected.T, atol=2e-5)
    states = np.broadcast_to(encoders.baseline, tokens.tokens.shape)
    at_baseline = encoder.predict(encoders, dataclasses.replace(tokens, tokens=states))
    np.testing.assert_allclose(got.predicted_baseline, at_baseline.T, atol=2e-5)
    gap = got.predicted - got.predicted_baseline - got.scores.sum(-1)
    np.testing.assert_allclose(got.completeness_gap, gap, atol=1e-5)
    spread = np.ptp(np.concatenate([got.predicted, got.predicted_baseline], 1), axis=1)
    assert (np.abs(got.completeness_gap) <= 1e-3 * spread[:, None]).all()


@pytest.mark.parametrize("method", ["exact", "autodiff"])
def test_linear_encoder_is_exact_at_one_step(make, method):
    """F-60: one step."""
    encoders, tokens = make.encoders("ridge_mean"), make.tokens(3)
    got = integrated_gradients(encoders, tokens, n_steps=1, max_steps=1, method=method)
    change = (tokens.tokens - encoders.baseline).astype(np.float64)
    expected = np.einsum("npd,vd->vnp", change, encoders.per_voxel["coef"]) / change.shape[1]
    np.testing.assert_allclose(got.scores, expected, atol=1e-6)
    np.testing.assert_allclose(got.completeness_gap, 0, atol=5e-6)


@pytest.mark.parametrize(("kind", "window"), [("query_linear", 1), ("query_linear_pool", 4)])
def test_linear_term_is_exact_at_one_step(make, kind, window):
    """The scores of a linear term are w . (x - x'), whatever the number of steps."""
    encoders, tokens = make.encoders(kind), make.tokens(3)
    silent_query = encoders.per_voxel | {"readout": np.zeros_like(encoders.per_voxel["readout"])}
    encoders = encoders.replace(per_voxel=silent_query)
    got = integrated_gradients(encoders, tokens, n_steps=1, max_steps=1)
    row, column = np.divmod(np.arange(16), 4)
    cell = np.arange(16) if window == 1 else row // 2 * 2 + column // 2
    shared, weights = encoders.shared, np.einsum("cer,vr->vce", encoders.shared["linear_basis"], silent_query["linear"])
    change = (tokens.tokens - encoders.baseline).astype(np.float64) @ shared["key_weight"][:, 0]
    # a cell is the mean of its tokens, and the term the mean over cells
    expected = np.einsum("npe,vpe->vnp", change, weights[:, cell]) / 16
    np.testing.assert_allclose(got.scores, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(got.completeness_gap, 0, atol=2e-6 * np.abs(expected).sum(-1).max())


@pytest.mark.torch
@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_matches_captum(make, kind):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of captum about its own imports
        from captum.attr import IntegratedGradients

    encoders, tokens = make.encoders(kind), make.tokens(3)
    shared, voxels = (
        {name: torch.tensor(np.asarray(value)) for name, value in part.items()}
        for part in (encoders.shared, encoders.per_voxel)
    )
    width = encoders.per_voxel["query"].shape[-1]

    def predict(states, v):
        if encoders.architecture.pool == 2:
            grid = states.reshape(len(states), 4, 4, -1).permute(0, 3, 1, 2)
            states = torch.nn.functional.avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
        keys = torch.einsum("npd,dge->ngpe", states, shared["key_weight"]) + shared["key_bias"][:, None]
        values = keys
        if "value_weight" in shared:
            values = torch.einsum("npd,dge->ngpe", states, shared["value_weight"]) + shared["value_bias"][:, None]
        logits = (keys * voxels["query"][v][None, :, None]).sum(-1) / width**0.5 + voxels["position"][v]
        scalars = (values * voxels["readout"][v][None, :, None]).sum(-1)
        predicted = (torch.softmax(logits, -1) * scalars).sum((1, 2)) + voxels["intercept"][v]
        if "linear" in voxels:
            weights = shared["linear_basis"] @ voxels["linear"][v]
            predicted = predicted + (keys[:, 0] * weights).sum(-1).mean(-1)
        return predicted

    states = torch.tensor(tokens.tokens)
    start = torch.tensor(encoders.baseline).expand(states.shape)
    got = integrated_gradients(encoders, tokens, n_steps=32, max_steps=32)
    for v in range(2):
        attributor = IntegratedGradients(lambda x, v=v: predict(x, v))
        expected = attributor.attribute(states, baselines=start, n_steps=32, method="gausslegendre")
        np.testing.assert_allclose(got.scores[v], expected.sum(-1).detach().numpy(), atol=1e-5)


def test_more_steps_for_sharp_pairs(make):
    """F-61: pairs that do not add up get more steps, and none is dropped."""
    encoders, tokens = make.encoders("query"), make.tokens(6)
    sharp = encoders.replace(per_voxel=encoders.per_voxel | {"query": 8 * encoders.per_voxel["query"]})
    few = integrated_gradients(sharp, tokens, n_steps=6, max_steps=6)
    more = integrated_gradients(sharp, tokens, n_steps=6, max_steps=256)
    spread = np.ptp(np.concatenate([few.predicted, few.predicted_baseline], 1), axis=1)[:, None]
    late = np.abs(few.completeness_gap) > 1e-3 * spread
    assert late.any() and not late.all()
    assert (np.abs(more.completeness_gap) <= 1e-3 * spread).all()
    assert (np.abs(more.completeness_gap) < np.abs(few.completeness_gap))[late].all()
    np.testing.assert_array_equal(more.scores[~late], few.scores[~late])
    many = integrated_gradients(sharp, tokens, n_steps=256, max_steps=256)
    # a small gap bounds the sum of the errors of a pair, not each of them
    errors = [np.abs(attributions.scores - many.scores)[late].max() for attributions in (more, few)]
    assert errors[0] < errors[1] / 5


def test_chosen_images_match_all_images(make):
    encoders, tokens = make.encoders("query_heads"), make.tokens(3, masked=True)
    every = integrated_gradients(encoders, tokens)
    rows = np.array([[2, 0], [1, 1], [2, 1], [0, 2], [0, 1]])
    some = integrated_gradients(encoders, tokens, image_ids=tokens.image_ids[rows])
    np.testing.assert_array_equal(some.image_ids, tokens.image_ids[rows])
    np.testing.assert_array_equal(every.image_ids, np.tile(tokens.image_ids, (5, 1)))
    for name in ("scores", "predicted", "predicted_baseline", "completeness_gap"):
        expected = np.take_along_axis(
            getattr(every, name), rows.reshape(5, 2, *[1] * (getattr(every, name).ndim - 2)), 1
        )
        np.testing.assert_allclose(getattr(some, name), expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("voxel_chunk", "image_chunk"), [(1, 1), (2, 3), (64, 64)])
def test_chunking_changes_nothing(make, voxel_chunk, image_chunk):
    encoders, tokens = make.encoders("query_pool"), make.tokens(3, masked=True)
    expected = integrated_gradients(encoders, tokens)
    done = []
    got = integrated_gradients(
        encoders,
        tokens,
        voxel_chunk=voxel_chunk,
        image_chunk=image_chunk,
        progress=lambda *counts: done.append(counts),
    )
    np.testing.assert_allclose(got.scores, expected.scores, atol=2e-6 * np.abs(expected.scores).max())
    assert done[-1] == (5, 5)


def test_taken_voxels_match_all_voxels(make):
    """The call of the public example: `integrated_gradients(encoders.take(voxels), tokens)`."""
    encoders, tokens = make.encoders("query"), make.tokens(3)
    every = integrated_gradients(encoders, tokens)
    for voxels in (np.array([4, 1]), np.array([False, True, False, False, True])):
        some = integrated_gradients(encoders.take(voxels), tokens)
        np.testing.assert_array_equal(some.voxel_ids, encoders.voxel_ids[voxels])
        np.testing.assert_allclose(some.scores, every.scores[voxels], atol=1e-5)


def test_baselines(make):
    encoders, tokens = make.encoders("query"), make.tokens(3)
    default = integrated_gradients(encoders, tokens)
    np.testing.assert_array_equal(integrated_gradients(encoders, tokens, baseline="mean").scores, default.scores)
    zero = integrated_gradients(encoders, tokens, baseline="zero")
    for given in (np.zeros(6), np.zeros((16, 6), np.float32)):
        np.testing.assert_array_equal(integrated_gradients(encoders, tokens, baseline=given).scores, zero.scores)
    own = integrated_gradients(encoders, tokens, baseline=tokens.tokens[1])
    np.testing.assert_allclose(own.scores[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(own.predicted_baseline[:, 0], default.predicted[:, 1], atol=1e-5)


def test_midpoint_approaches_gauss_legendre(make):
    encoders, tokens = make.encoders("query"), make.tokens(3)
    expected = integrated_gradients(encoders, tokens).scores
    errors = [
        np.abs(integrated_gradients(encoders, tokens, n_steps=n, max_steps=n, quadrature="midpoint").scores - expected)
        for n in (4, 128)
    ]
    assert errors[1].max() < 1e-3 < errors[0].max()


def test_absolute_sum_bounds_the_signed_one(make):
    encoders, tokens = make.encoders("query"), make.tokens(3)
    signed = integrated_gradients(encoders, tokens, method="autodiff").scores
    absolute = integrated_gradients(encoders, tokens, method="autodiff", reduce="abs").scores
    assert (absolute >= np.abs(signed) - 1e-6).all() and (absolute > np.abs(signed) + 1e-3).any()


def test_messages(make):
    encoders, tokens = make.encoders("query"), make.tokens(3)
    with pytest.raises(ValueError, match="use exact with sum, or autodiff"):
        integrated_gradients(encoders, tokens, reduce="abs")
    with pytest.raises(ValueError, match="'guess'"):
        integrated_gradients(encoders, tokens, method="guess")
    with pytest.raises(ValueError, match="'median'"):
        integrated_gradients(encoders, tokens, baseline="median")
    with pytest.raises(DataError, match="`baseline` must have shape"):
        integrated_gradients(encoders, tokens, baseline=np.zeros((7, 6)))
    with pytest.raises(DataError, match="image 'x' has no tokens"):
        integrated_gradients(encoders, tokens, image_ids=np.array([["0", "x"]] * 5))
    with pytest.raises(DataError, match="`image_ids` must have shape"):
        integrated_gradients(encoders, tokens, image_ids=np.array(["0", "1"]))
    with pytest.raises(DataError, match="backbone or layer"):
        integrated_gradients(encoders, make.tokens(2, width=5))


def _own(shared, voxel, tokens, mask, architecture):
    """An encoder of a user: two layers on every token, the strongest tokens count most."""
    hidden = jnp.tanh(tokens @ shared["weight"])
    return jax.nn.softmax(hidden @ voxel["gate"]) @ (hidden @ voxel["readout"])


@pytest.fixture
def own():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Encoders(
        shared={"weight": normal(6, 5)},
        per_voxel={"gate": normal(3, 5), "readout": normal(3, 5)},
        baseline=normal(6),
        voxel_ids=np.arange(3),
        status=np.zeros(3, np.int8),
        architecture=Architecture("own", own=_own),
    ), ImageTokens(normal(2, 7, 6), np.array(["0", "1"]))


@pytest.mark.torch
def test_an_encoder_of_ones_own_matches_captum(own):
    torch, captum = pytest.importorskip("torch"), pytest.importorskip("captum.attr")
    encoders, tokens = own
    made = integrated_gradients(encoders, tokens, n_steps=16, max_steps=16, method="autodiff")
    images = torch.from_numpy(tokens.tokens)
    start = torch.from_numpy(encoders.baseline).expand_as(images)
    for voxel in range(3):
        gate, readout = (torch.from_numpy(encoders.per_voxel[name][voxel]) for name in ("gate", "readout"))

        def predict(x, gate=gate, readout=readout):
            hidden = torch.tanh(x @ torch.from_numpy(encoders.shared["weight"]))
            return (torch.softmax(hidden @ gate, -1) * (hidden @ readout)).sum(-1)

        expected = captum.IntegratedGradients(predict).attribute(images, start, n_steps=16, method="gausslegendre")
        np.testing.assert_allclose(made.scores[voxel], expected.sum(-1), atol=1e-5)
        np.testing.assert_allclose(encoder.predict(encoders, tokens)[:, voxel], predict(images), atol=1e-5)


def test_an_encoder_of_ones_own_has_no_exact_form(own):
    with pytest.raises(ValueError, match="autodiff"):
        integrated_gradients(*own)
    with pytest.raises(ValueError, match="own"):
        encoder.predict(own[0].replace(architecture=Architecture("own")), own[1])
