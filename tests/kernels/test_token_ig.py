import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.token_ig.specs import SPECS, Spec

SMALL = {name: spec for name, spec in SPECS.items() if np.prod(spec) < 1e5}
SMALL["one_token"] = Spec(voxels=3, images=2, tokens=1, heads=2, steps=8)
NAMES = ("logits_0", "logits_1", "scalars_0", "scalars_1", "position")


def case(spec, *, dtype=np.float32, n_cells=None, gain=1.0, seed=0):
    """Arguments with leading axes [V, I]; with `n_cells`, tokens are averaged to cells, the last one empty."""
    rng = np.random.default_rng(seed)
    lead = (spec.voxels, spec.images, spec.heads)
    arrays = {name: rng.standard_normal((*lead, spec.tokens)).astype(dtype) for name in NAMES}
    for name in ("logits_0", "logits_1"):
        arrays[name] *= dtype(gain)
    nodes, weights = np.polynomial.legendre.leggauss(spec.steps)
    cells = None
    if n_cells is not None:
        cells = np.zeros((n_cells, spec.tokens))
        cells[np.arange(spec.tokens) % max(n_cells - 1, 1), np.arange(spec.tokens)] = 1
        cells = (cells / np.maximum(cells.sum(1, keepdims=True), 1)).astype(dtype)
        arrays["position"] = rng.standard_normal((*lead, n_cells)).astype(dtype)
    return arrays, ((nodes + 1) / 2).astype(dtype), (weights / 2).astype(dtype), cells


def attribute(arrays, nodes, weights, cells, **options):
    compute = jax.jit(lambda *given: mine_kernels.token_ig(*given[:-1], cells=given[-1], **options))
    return compute(*(arrays[name] for name in NAMES), nodes, weights, cells)


def float64_prediction(logits, scalars, position, cells):
    """Prediction [...] of token terms [..., H, P] by plain NumPy."""
    if cells is not None:
        real = cells.sum(1) > 0
        logits, scalars, position = logits @ cells[real].T, scalars @ cells[real].T, position[..., real]
    logits = logits + position
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) * scalars).sum((-1, -2))


def change(arrays, cells):
    a = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
    return float64_prediction(a["logits_1"], a["scalars_1"], a["position"], cells) - float64_prediction(
        a["logits_0"], a["scalars_0"], a["position"], cells
    )


@pytest.mark.parametrize("n_cells", [None, 4])
@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_xla_matches_reference(spec, n_cells):
    arguments = case(spec, n_cells=n_cells)
    expected = attribute(*arguments, implementation="reference")
    assert expected.shape == (spec.voxels, spec.images, spec.tokens)
    np.testing.assert_allclose(attribute(*arguments, implementation="xla"), expected, atol=1e-6)
    np.testing.assert_array_equal(attribute(*arguments), attribute(*arguments, implementation="xla"))


@pytest.mark.parametrize("n_cells", [None, 4])
def test_xla_matches_reference_in_float64(n_cells):
    arguments = case(SPECS["smoke"], dtype=np.float64, n_cells=n_cells)
    with jax.enable_x64(True):
        expected = attribute(*arguments, implementation="reference")
        got = attribute(*arguments, implementation="xla")
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("n_cells", [None, 4])
def test_gradient_along_the_path_matches_float64_numpy(n_cells, implementation):
    """Each token moves alone by a small step at every node: finite differences of the prediction."""
    arrays, nodes, weights, cells = case(SPECS["smoke"], dtype=np.float64, n_cells=n_cells)
    step, expected = 1e-5, np.zeros((*arrays["logits_0"].shape[:2], arrays["logits_0"].shape[-1]))
    for node, weight in zip(nodes, weights, strict=True):
        for token in range(expected.shape[-1]):
            sides = []
            for sign in (1, -1):
                share = np.full(expected.shape[-1], node)
                share[token] += sign * step
                logits, scalars = (
                    arrays[f"{kind}_0"] + share * (arrays[f"{kind}_1"] - arrays[f"{kind}_0"])
                    for kind in ("logits", "scalars")
                )
                sides.append(float64_prediction(logits, scalars, arrays["position"], cells))
            expected[..., token] += weight * (sides[0] - sides[1]) / (2 * step)
    with jax.enable_x64(True):
        got = np.asarray(attribute(arrays, nodes, weights, cells, implementation=implementation))
    np.testing.assert_allclose(got, expected, atol=1e-8)


@pytest.mark.parametrize("n_cells", [None, 4])
def test_completeness(n_cells):
    arrays, nodes, weights, cells = case(Spec(5, 2, 9, 2, 32), n_cells=n_cells)
    got = np.asarray(attribute(arrays, nodes, weights, cells), np.float64).sum(-1)
    np.testing.assert_allclose(got, change(arrays, cells), atol=5e-6)


def test_one_token_takes_it_all():
    arrays, nodes, weights, _ = case(SMALL["one_token"])
    expected = (arrays["scalars_1"] - arrays["scalars_0"]).sum(2)
    np.testing.assert_allclose(attribute(arrays, nodes, weights, None), expected, atol=1e-5)


@pytest.mark.parametrize("n_cells", [None, 4])
def test_sharp_attention_is_finite_and_complete(n_cells):
    """Logits of size 30: the winner changes along the path, where one bound for the whole path underflows."""
    arrays, nodes, weights, cells = case(Spec(5, 2, 9, 2, 256), n_cells=n_cells, gain=30.0)
    got = np.asarray(attribute(arrays, nodes, weights, cells), np.float64)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(-1), change(arrays, cells), atol=2e-3)


def test_matches_loop_over_leading_axes():
    arrays, nodes, weights, cells = case(SPECS["smoke"], n_cells=4)
    got = attribute(arrays, nodes, weights, cells)
    for v in range(got.shape[0]):
        one = attribute({name: value[v, 1] for name, value in arrays.items()}, nodes, weights, cells)
        assert one.shape == got.shape[2:]
        np.testing.assert_allclose(got[v, 1], one, atol=1e-6)


def test_no_real_cell_gives_zero():
    arrays, nodes, weights, cells = case(SPECS["smoke"], n_cells=4)
    for implementation in ("reference", "xla"):
        got = attribute(arrays, nodes, weights, np.zeros_like(cells), implementation=implementation)
        assert not np.asarray(got).any()


def test_message_unknown_implementation():
    with pytest.raises(NotImplementedError, match=r"`implementation` must be one of .*'cuda'"):
        attribute(*case(SPECS["smoke"]), implementation="cuda")


@pytest.mark.parametrize("n_cells", [None, 4])
def test_message_shapes(n_cells):
    arrays, nodes, weights, cells = case(SPECS["smoke"], n_cells=n_cells)
    with pytest.raises(ValueError, match="`position` must end in"):
        attribute(arrays | {"position": arrays["position"][..., :2]}, nodes, weights, cells)
    with pytest.raises(ValueError, match=r"`cells` in 9 tokens"):
        attribute(arrays, nodes, weights, np.ones((9, 3), np.float32))
