"""One suite for all implementations of token-level integrated gradients: a new one is tested without a new test."""

import functools

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.token_ig.op import IMPLEMENTATIONS, TOP_K_IMPLEMENTATIONS
from mine_kernels.token_ig.specs import BLOCKS, SPECS, Blocks, Spec

SMALL = {name: spec for name, spec in SPECS.items() if np.prod(spec) < 1e5}
SMALL["one_token"] = Spec(voxels=3, images=2, tokens=1, heads=2, steps=8)
# neither heads nor tokens are powers of two
SMALL["ragged"] = Spec(voxels=2, images=2, tokens=9, heads=3, steps=4)
SMALL["aligned"] = Spec(voxels=2, images=1, tokens=8, heads=2, steps=3)
NAMES = ("logits_0", "logits_1", "scalars_0", "scalars_1", "position")
# What an implementation needs to run here, and what it says that it cannot do.
OPTIONS = {"pallas": {"interpret": True, "blocks": Blocks(gpu=16)}}
LACKS_CELLS = {"pallas"}
FAST = [implementation for implementation in IMPLEMENTATIONS if implementation != "reference"]
CELLS = (None, 4)
# sums over heads in another order than the reference's
ATOL = {"pallas": 2e-6}


def each(implementations):
    """Parametrises over implementations, with cells where they have them."""
    return pytest.mark.parametrize(
        ("implementation", "n_cells"),
        [(name, n) for name in implementations for n in CELLS if n is None or name not in LACKS_CELLS],
    )


def case(spec, *, dtype=np.float32, n_cells=None, gain=1.0, equal_start=False, seed=0):
    """Arguments with leading axes [V, I]; with `n_cells`, tokens are averaged to cells, the last one empty."""
    rng = np.random.default_rng(seed)
    lead = (spec.voxels, spec.images, spec.heads)
    arrays = {name: rng.standard_normal((*lead, spec.tokens)).astype(dtype) for name in NAMES}
    for name in ("logits_0", "logits_1"):
        arrays[name] *= dtype(gain)
    if equal_start:
        arrays |= {name: arrays[name][:, :1, :, :1] for name in ("logits_0", "scalars_0")}
    nodes, weights = np.polynomial.legendre.leggauss(spec.steps)
    cells = None
    if n_cells is not None:
        cells = np.zeros((n_cells, spec.tokens))
        cells[np.arange(spec.tokens) % max(n_cells - 1, 1), np.arange(spec.tokens)] = 1
        cells = (cells / np.maximum(cells.sum(1, keepdims=True), 1)).astype(dtype)
        arrays["position"] = rng.standard_normal((*lead, n_cells)).astype(dtype)
    return arrays, ((nodes + 1) / 2).astype(dtype), (weights / 2).astype(dtype), cells


@functools.lru_cache
def compiled(implementation, interpret):
    options = {} if interpret is None else {"interpret": interpret}
    options = {"implementation": implementation, **OPTIONS.get(implementation, {}), **options}
    return jax.jit(lambda *given: mine_kernels.token_ig(*given[:-1], cells=given[-1], **options))


def attribute(arrays, nodes, weights, cells, *, implementation=None, interpret=None):
    compute = compiled(implementation, interpret)
    return compute(*(arrays[name] for name in NAMES), nodes, weights, cells)


def best(arrays, nodes, weights, cells, *, k, implementation=None):
    options = {"implementation": implementation, **OPTIONS.get(implementation, {})}
    return mine_kernels.token_ig_top_k(*(arrays[name] for name in NAMES), nodes, weights, cells=cells, k=k, **options)


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


TOKENS = [*((name, False) for name in SMALL), *((name, True) for name in ("ragged", "aligned", "one"))]
TOKENS_IN_CELLS = [("smoke", False), ("one_token", False), ("ragged", True)]


@pytest.mark.parametrize(
    ("implementation", "n_cells", "name", "equal_start"),
    [
        *((implementation, None, *of) for implementation in FAST for of in TOKENS),
        *(
            (implementation, 4, *of)
            for implementation in FAST
            if implementation not in LACKS_CELLS
            for of in TOKENS_IN_CELLS
        ),
    ],
)
def test_matches_reference(implementation, n_cells, name, equal_start):
    spec = SMALL[name]
    arguments = case(spec, n_cells=n_cells, equal_start=equal_start)
    expected = attribute(*arguments, implementation="reference")
    got = attribute(*arguments, implementation=implementation)
    assert got.shape == expected.shape == (spec.voxels, spec.images, spec.tokens)
    np.testing.assert_allclose(got, expected, atol=ATOL.get(implementation, 1e-6))


@pytest.mark.parametrize(("name", "n_cells"), [("smoke", 4), ("one_token", None)])
def test_none_takes_xla(name, n_cells):
    arguments = case(SMALL[name], n_cells=n_cells)
    np.testing.assert_array_equal(attribute(*arguments), attribute(*arguments, implementation="xla"))


@each(FAST)
def test_matches_reference_in_float64(implementation, n_cells):
    arguments = case(SPECS["smoke"], dtype=np.float64, n_cells=n_cells)
    with jax.enable_x64(True):
        expected = attribute(*arguments, implementation="reference")
        got = attribute(*arguments, implementation=implementation)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected, atol=1e-12, rtol=0)


@each(IMPLEMENTATIONS)
def test_gradient_along_the_path_matches_float64_numpy(implementation, n_cells):
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


@each(IMPLEMENTATIONS)
def test_completeness(implementation, n_cells):
    arrays, nodes, weights, cells = case(Spec(5, 2, 9, 2, 32), n_cells=n_cells)
    got = np.asarray(attribute(arrays, nodes, weights, cells, implementation=implementation), np.float64).sum(-1)
    np.testing.assert_allclose(got, change(arrays, cells), atol=5e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_token_takes_it_all(implementation):
    arrays, nodes, weights, _ = case(SMALL["one_token"])
    expected = (arrays["scalars_1"] - arrays["scalars_0"]).sum(2)
    got = attribute(arrays, nodes, weights, None, implementation=implementation)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@each(IMPLEMENTATIONS)
def test_sharp_attention_is_finite_and_complete(implementation, n_cells):
    """Logits of size 30: the winner changes along the path, where one bound for the whole path underflows (F-60)."""
    arrays, nodes, weights, cells = case(Spec(5, 2, 9, 2, 256), n_cells=n_cells, gain=30.0)
    got = np.asarray(attribute(arrays, nodes, weights, cells, implementation=implementation), np.float64)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(-1), change(arrays, cells), atol=2e-3)


@each(IMPLEMENTATIONS)
def test_matches_loop_over_leading_axes(implementation, n_cells):
    arrays, nodes, weights, cells = case(SPECS["smoke"], n_cells=n_cells)
    got = attribute(arrays, nodes, weights, cells, implementation=implementation)
    for v in range(got.shape[0]):
        pair = {name: value[v, 1] for name, value in arrays.items()}
        one = attribute(pair, nodes, weights, cells, implementation=implementation)
        assert one.shape == got.shape[2:]
        np.testing.assert_allclose(got[v, 1], one, atol=1e-6)


@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name not in LACKS_CELLS])
def test_no_real_cell_gives_zero(implementation):
    arrays, nodes, weights, cells = case(SPECS["smoke"], n_cells=4)
    got = attribute(arrays, nodes, weights, np.zeros_like(cells), implementation=implementation)
    assert not np.asarray(got).any()


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("k", [1, 5, 9])
def test_top_k_matches_reference(k, implementation):
    arrays, *rest = case(SMALL["ragged"], seed=9)
    for array in arrays.values():
        array[..., 3:6] = array[..., 3:4]  # equal tokens have equal scores
    expected = best(arrays, *rest, k=k, implementation="reference")
    got = best(arrays, *rest, k=k, implementation=implementation)
    assert got.indices.shape == (2, 2, k) and got.indices.dtype == jnp.int32
    np.testing.assert_array_equal(got.indices, expected.indices)
    np.testing.assert_allclose(got.scores, expected.scores, atol=3e-6)
    np.testing.assert_allclose(got.total, expected.total, atol=3e-6)


@pytest.mark.parametrize("implementation", TOP_K_IMPLEMENTATIONS)
def test_top_k_of_special_numbers(implementation):
    scores = jnp.array([[0.0, -0.0, jnp.nan, -jnp.inf, 2.0, jnp.nan, jnp.inf, 2.0, -0.0, -1.0]])
    expected = np.argsort(-np.asarray(scores), kind="stable")
    np.testing.assert_array_equal(mine_kernels.top_k(scores, k=10, implementation=implementation), expected)


@pytest.mark.parametrize("n_cells", CELLS)
def test_steps_without_weight_are_not_taken(n_cells):
    arrays, nodes, weights, cells = case(SMALL["ragged"], n_cells=n_cells)
    expected = attribute(arrays, nodes, weights, cells)
    # a step that is taken would spoil everything
    room = np.pad(nodes, (0, 5), constant_values=np.nan), np.pad(weights, (0, 5))
    np.testing.assert_array_equal(attribute(arrays, *room, cells), expected)


def test_kernel_is_in_the_program():
    arrays, nodes, weights, _ = case(SMALL["aligned"])

    def program(implementation):
        return str(jax.make_jaxpr(lambda a: attribute(a, nodes, weights, None, implementation=implementation))(arrays))

    assert "pallas_call" in program("pallas")
    assert "pallas_call" not in program(None)


def test_kernel_lowers_for_gpus():
    """Triton takes blocks of powers of two only; this needs no GPU."""
    arrays, nodes, weights, _ = case(SMALL["ragged"])
    arguments = [jnp.asarray(x) for x in (*(arrays[name] for name in NAMES), nodes, weights)]
    from mine_kernels.token_ig import pallas

    for launch in (pallas.token_ig, lambda *given, **options: pallas.token_ig_top_k(*given, k=5, **options)):
        compute = jax.jit(lambda *given, f=launch: f(*given, blocks=BLOCKS, interpret=False))
        lowered = compute.trace(*arguments).lower(lowering_platforms=("cuda",))
        assert "xla.gpu.triton" in lowered.as_text()


def test_message_unknown_implementation():
    arguments = case(SPECS["smoke"])
    with pytest.raises(NotImplementedError, match=r"`implementation` must be one of .*'cuda'"):
        attribute(*arguments, implementation="cuda")
    with pytest.raises(NotImplementedError, match="'pallas'"):
        mine_kernels.top_k(np.zeros((2, 9)), k=1, implementation="pallas")


def test_message_missing_device():
    with pytest.raises(NotImplementedError, match=r"needs a GPU, but the device is 'cpu'.*\"xla\""):
        attribute(*case(SMALL["ragged"]), implementation="pallas", interpret=False)


@pytest.mark.parametrize("implementation", sorted(LACKS_CELLS))
def test_message_missing_cells(implementation):
    arguments = case(SMALL["ragged"], n_cells=4)
    with pytest.raises(NotImplementedError, match="has no `cells`"):
        attribute(*arguments, implementation=implementation)
    with pytest.raises(NotImplementedError, match="has no `cells`"):
        best(*arguments, k=2, implementation=implementation)


def test_message_too_many_tokens():
    with pytest.raises(ValueError, match=r"`k` must be in 1\.\.9"):
        best(*case(SMALL["ragged"]), k=10)


@pytest.mark.parametrize("n_cells", CELLS)
def test_message_shapes(n_cells):
    arrays, nodes, weights, cells = case(SPECS["smoke"], n_cells=n_cells)
    with pytest.raises(ValueError, match="`position` must end in"):
        attribute(arrays | {"position": arrays["position"][..., :2]}, nodes, weights, cells)
    with pytest.raises(ValueError, match=r"`cells` in 9 tokens"):
        attribute(arrays, nodes, weights, np.ones((9, 3), np.float32))
