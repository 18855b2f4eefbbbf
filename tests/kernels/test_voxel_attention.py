"""One suite for all implementations of voxel attention: a new one is tested without a new test."""

import functools

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.voxel_attention.op import IMPLEMENTATIONS
from mine_kernels.voxel_attention.specs import SPECS, Blocks, Spec

SMALL = {name: spec for name, spec in SPECS.items() if np.prod(spec) < 1e5}
SMALL["ragged"] = Spec(voxels=11, batch=4, tokens=7, heads=4, key_heads=4, width=3)
SMALL["one_key_head"] = Spec(voxels=6, batch=3, tokens=5, heads=4, key_heads=1, width=2)
# heads wider than an image has tokens, and no power of two
SMALL["heads_apart"] = Spec(voxels=11, batch=3, tokens=7, heads=2, key_heads=2, width=9)
# What an implementation needs to run here, and what it says that it cannot do. The blocks divide
# neither voxels nor tokens.
OPTIONS = {"pallas": {"interpret": True, "blocks": Blocks(rows=8, step=4, columns=8, held=64, least=4)}}
FLOAT32_ONLY = {"pallas"}
LACKS_TRUNK = {"pallas"}
# only the op of gradients has them
NOT_DIFFERENTIABLE = {"pallas"}
FAST = [name for name in IMPLEMENTATIONS if name != "reference"]
ARRAYS = ("query", "position", "readout", "intercept", "keys", "values", "responses")


def case(spec, *, dtype=np.float32, values_are_keys=False, masked=False, seed=0):
    """Arguments of the gradient op; with a mask, the last image has no real token."""
    v, b, p, h, g, e = spec
    rng = np.random.default_rng(seed)
    shapes = ((v, h, e), (v, h, p), (v, h, e), (v,), (b, p, g, e), (b, p, g, e), (b, v))
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in zip(ARRAYS, shapes, strict=True)}
    if values_are_keys:
        arrays["values"] = arrays["keys"]
    mask = None
    if masked:
        mask = rng.random((b, p)) < 0.6
        mask[:, 0] = True
        mask[-1] = False
    return arrays, mask


def without(lacking, implementations=IMPLEMENTATIONS):
    return [name for name in implementations if name not in lacking]


def close(got, expected, name):
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, np.abs(expected).max()), rtol=0, err_msg=name)


def float64_prediction(arrays, mask):
    """Predictions [B, V] by plain NumPy, with intercept."""
    a = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
    n_heads = a["query"].shape[1]
    out = np.tile(a["intercept"], (len(a["keys"]), 1))
    for image in range(out.shape[0]):
        real = np.ones(a["keys"].shape[1], bool) if mask is None else np.asarray(mask[image])
        for head in range(n_heads * bool(real.any())):
            g = min(head, a["keys"].shape[2] - 1)
            logits = a["query"][:, head] @ a["keys"][image, real, g].T + a["position"][:, head, real]
            weights = np.exp(logits - logits.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            out[image] += (weights * (a["readout"][:, head] @ a["values"][image, real, g].T)).sum(1)
    return out


@functools.lru_cache
def compiled(shared, **options):
    @jax.jit
    def compute(given, values, mask, basis):
        values = given["keys"] if shared else values
        return mine_kernels.voxel_attention_gradients(**given, values=values, mask=mask, basis=basis, **options)

    return compute


def gradients(arrays, mask, *, implementation=None, basis=None, **options):
    options |= {"implementation": implementation, **OPTIONS.get(implementation, {})}
    given = {name: None if value is None else jnp.asarray(value) for name, value in arrays.items() if name != "values"}
    return compiled(arrays["values"] is arrays["keys"], **options)(given, arrays["values"], mask, basis)


def forward(arrays, mask, *, implementation=None, **options):
    options |= {"implementation": implementation, **OPTIONS.get(implementation, {})}
    names = ("query", "position", "readout", "keys", "values")
    given = (None if arrays[name] is None else jnp.asarray(arrays[name]) for name in names)
    return mine_kernels.voxel_attention(*given, mask, **options)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "masked"), [*((name, True) for name in SMALL), ("smoke", False)])
def test_matches_float64_numpy(name, masked, implementation):
    spec = SMALL[name]
    arrays, mask = case(spec, masked=masked)
    expected = float64_prediction(arrays, mask) - arrays["intercept"]
    # sums over H heads, P tokens and E channels of numbers of order 1
    tolerance = 2e-6 * np.sqrt(spec.heads * spec.tokens * spec.width)
    got = forward(arrays, mask, implementation=implementation, chunk=3)
    np.testing.assert_allclose(got, expected, atol=tolerance)


CASES = [
    ("one", 4, True, False),
    ("smoke", 3, True, True),
    ("smoke_shared_keys", 5, True, True),
    ("ragged", 4, False, True),
    ("one_key_head", 4, True, False),
    ("heads_apart", 4, True, False),
]


# the kernels have no chunks
@pytest.mark.parametrize(
    ("implementation", "name", "chunk", "masked", "values_are_keys"),
    [*((name, *case) for name in FAST for case in CASES), ("xla", "ragged", 1, True, False)],
)
def test_matches_reference(implementation, name, chunk, masked, values_are_keys):
    arrays, mask = case(SMALL[name], masked=masked, values_are_keys=values_are_keys)
    expected_loss, expected = gradients(arrays, mask, implementation="reference")
    loss, got = gradients(arrays, mask, implementation=implementation, chunk=chunk)
    by_numpy = ((float64_prediction(arrays, mask) - arrays["responses"]) ** 2).mean(0)
    np.testing.assert_allclose(expected_loss, by_numpy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loss, by_numpy, rtol=1e-5, atol=1e-5)
    assert set(got) == set(expected) == {"query", "position", "readout", "intercept", "keys", "values"}
    for key, value in expected.items():
        close(got[key], value, key)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_only_the_gradients_asked_for(implementation):
    arrays, mask = case(SPECS["smoke"], masked=True)
    _, every = gradients(arrays, mask, implementation=implementation)
    always = {"query", "position", "intercept"}
    wanted = [
        ({"with_readout": False}, always | {"keys", "values"}),
        ({"with_trunk": False, "with_readout": False}, always),
    ]
    if implementation == "xla":  # the others leave out each without a look at the other
        wanted.append(({"with_trunk": False}, always | {"readout"}))
    for options, names in wanted:
        _, got = gradients(arrays, mask, implementation=implementation, **options)
        assert set(got) == names
        for name in names:
            np.testing.assert_allclose(got[name], every[name], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("implementation", without(FLOAT32_ONLY))
@pytest.mark.parametrize(("name", "masked"), [("smoke", False), ("smoke_shared_keys", True)])
def test_gradient(name, masked, implementation):
    """Directional derivatives against central differences of the float64 NumPy prediction."""
    arrays, mask = case(SMALL[name], dtype=np.float64, masked=masked)

    def total(changed):
        return ((float64_prediction(arrays | changed, mask) - arrays["responses"]) ** 2).mean(0).sum()

    with jax.enable_x64(True):
        _, got = gradients(arrays, mask, implementation=implementation, chunk=4)
        got = {name: np.asarray(value) for name, value in got.items()}
    assert all(value.dtype == np.float64 for value in got.values())
    rng, step = np.random.default_rng(1), 1e-5
    for name, gradient in got.items():
        direction = rng.standard_normal(arrays[name].shape)
        sides = [total({name: arrays[name] + sign * step * direction}) for sign in (1, -1)]
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-7, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("implementation", without(FLOAT32_ONLY, FAST))
def test_matches_reference_in_float64(implementation):
    arrays, mask = case(SPECS["smoke"], dtype=np.float64, masked=True, values_are_keys=True)
    with jax.enable_x64(True):
        _, expected = gradients(arrays, mask, implementation="reference")
        _, got = gradients(arrays, mask, implementation=implementation, chunk=3)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("with_basis", [True, False], ids=["basis", "no position"])
def test_position_from_a_basis(with_basis, implementation):
    """Coefficients of a basis act as the position that they make; without a position, as zeros."""
    arrays, mask = case(SPECS["smoke"], masked=True)
    rng = np.random.default_rng(3)
    basis = rng.standard_normal((10, 3)).astype(np.float32)
    coefficients = rng.standard_normal((7, 2, 3)).astype(np.float32) if with_basis else None
    full = arrays | {"position": coefficients @ basis.T if with_basis else np.zeros_like(arrays["position"])}
    expected_loss, expected = gradients(full, mask, implementation="reference")
    options = {"implementation": implementation, "basis": basis if with_basis else None}
    loss, got = gradients(arrays | {"position": coefficients}, mask, **options)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    np.testing.assert_allclose(got["query"], expected["query"], atol=2e-5)
    assert ("position" in got) == with_basis
    if with_basis:
        np.testing.assert_allclose(got["position"], expected["position"] @ basis, atol=1e-4)
    predicted = forward(arrays | {"position": coefficients}, mask, **options)
    np.testing.assert_allclose(predicted, forward(full, mask, implementation="reference"), atol=2e-5)


@pytest.mark.parametrize("implementation", FAST)
def test_without_position_or_mask(implementation):
    arrays, _ = case(SMALL["heads_apart"])
    arrays["position"] = None
    options = {"with_trunk": False, "with_readout": False}
    _, got = gradients(arrays, None, implementation=implementation, **options)
    _, expected = gradients(arrays, None, implementation="reference", **options)
    assert set(got) == set(expected) == {"query", "intercept"}
    close(got["query"], expected["query"], "query")


def trunk_gradients(spec, *, values_are_keys, implementation):
    """Loss, gradients and the names of the trunk."""
    arrays, mask = case(spec, masked=True)
    rng = np.random.default_rng(4)
    trunk = {}
    for kind in ("key",) if values_are_keys else ("key", "value"):
        trunk[f"{kind}_weight"] = rng.standard_normal((5, spec.key_heads, spec.width)).astype(np.float32)
        trunk[f"{kind}_bias"] = rng.standard_normal((spec.key_heads, spec.width)).astype(np.float32)
    states = rng.standard_normal((spec.batch, spec.tokens, 5)).astype(np.float32)
    given = [arrays[key] for key in ("query", "position", "readout", "intercept")]
    loss, got = compiled_trunk(implementation)(*given, trunk, states, arrays["responses"], mask)
    return loss, got, set(trunk)


@functools.lru_cache
def compiled_trunk(implementation):
    compute = mine_kernels.voxel_attention_trunk_gradients
    return jax.jit(functools.partial(compute, implementation=implementation, chunk=4))


@pytest.mark.parametrize("implementation", without(LACKS_TRUNK, FAST))
@pytest.mark.parametrize(
    ("name", "values_are_keys"), [("smoke", True), ("smoke_shared_keys", False), ("ragged", False)]
)
def test_trunk_gradients_match_reference(name, values_are_keys, implementation):
    options = {"values_are_keys": values_are_keys}
    expected_loss, expected, _ = trunk_gradients(SMALL[name], implementation="reference", **options)
    loss, got, trunk = trunk_gradients(SMALL[name], implementation=implementation, **options)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert set(got) == set(expected) == {"query", "position", "readout", "intercept", *trunk}
    for key, value in expected.items():
        # softmax ignores a shift of all keys: the gradient of `key_bias` is what is left of terms that
        # cancel, as large as those of `key_weight`
        scale = max(float(np.abs(expected[name]).max()) for name in (key, key.replace("bias", "weight")))
        np.testing.assert_allclose(got[key], value, atol=2e-5 * max(1, scale), err_msg=key)


@pytest.mark.parametrize(("n_heads", "with_readout"), [(8, True), (128, True), (128, False)])
def test_no_tensor_over_voxels_heads_and_tokens(n_heads, with_readout):
    """Memory of the compiled step stays below one [V, H, P] tensor, for any number of heads."""
    v, b, p, width = 2048, 4, 64, 256 // n_heads
    shapes = ((v, n_heads, width), (v, n_heads, 9), (v, n_heads, width), (v,), (b, p, n_heads, width))
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (*shapes, shapes[-1], (b, v))]
    basis = jax.ShapeDtypeStruct((p, 9), jnp.float32)

    def step(basis, *arrays):
        return mine_kernels.voxel_attention_gradients(*arrays, basis=basis, with_readout=with_readout)

    memory = jax.jit(step).lower(basis, *given).compile().memory_analysis()
    # columns of query, position and readout twice (arguments of a chunk and sums), and one tile
    parameters = 4 * v * n_heads * (2 * width + 9)
    assert memory.temp_size_in_bytes < 3 * parameters + 8 * 4 * 2**19
    if n_heads == 128:
        assert memory.temp_size_in_bytes < 4 * v * n_heads * p


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_image_without_real_token_gives_zero(implementation):
    arrays, _ = case(SPECS["smoke"])
    nothing = np.zeros(arrays["keys"].shape[:2], bool)
    assert not np.asarray(forward(arrays, nothing, implementation=implementation)).any()
    _, got = gradients(arrays, nothing, implementation=implementation)
    assert all(np.isfinite(value).all() for value in got.values())
    assert not any(np.asarray(got[name]).any() for name in ("query", "position", "readout", "keys", "values"))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_masked_tokens_do_not_matter(implementation):
    arrays, mask = case(SPECS["smoke"], masked=True)
    other = dict(arrays)
    for name in ("keys", "values"):
        other[name] = np.where(mask[:, :, None, None], arrays[name], 1e6).astype(np.float32)
    got, expected = (forward(given, mask, implementation=implementation) for given in (other, arrays))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunking_changes_nothing(chunk, implementation):
    arrays, mask = case(SPECS["smoke"], masked=True)
    got, expected = (forward(arrays, mask, implementation=implementation, chunk=size) for size in (chunk, 50))
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("implementation", without(NOT_DIFFERENTIABLE))
def test_forward_is_differentiable(implementation):
    arrays, mask = case(SPECS["smoke"], masked=True)
    _, expected = gradients(arrays, mask, implementation="reference")

    def total(query):
        predicted = forward(arrays | {"query": query}, mask, implementation=implementation, chunk=3)
        predicted = predicted + arrays["intercept"][None]
        return ((predicted - arrays["responses"]) ** 2).mean(0).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.asarray(arrays["query"])), expected["query"], atol=2e-5)


@pytest.mark.parametrize("implementation", FAST)
def test_bfloat16_keys(implementation):
    """Operands that bfloat16 holds exactly: beyond them only the token sums of gradients are rounded."""
    arrays, mask = case(SPECS["smoke"], masked=True, values_are_keys=True)
    for name in ("query", "readout"):
        arrays[name] = np.asarray(jnp.asarray(arrays[name], jnp.bfloat16), np.float32)
    half = jnp.asarray(arrays["keys"], jnp.bfloat16)
    rounded = arrays | dict.fromkeys(("keys", "values"), np.asarray(half, np.float32))
    expected_loss, expected = gradients(rounded, mask, implementation="reference")
    loss, got = gradients(arrays | dict.fromkeys(("keys", "values"), half), mask, implementation=implementation)
    assert all(value.dtype == jnp.float32 for value in got.values())
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    np.testing.assert_allclose(got["intercept"], expected["intercept"], atol=1e-5)
    np.testing.assert_allclose(got["position"], expected["position"], atol=1e-5)
    # bfloat16 keeps 8 bits: a term g k of a sum over B P tokens errs by at most |g k| / 256. The terms of
    # `readout` are at most max|error| 2 / B, weighted by attention that sums to 1 per image.
    error = np.abs(float64_prediction(rounded, mask) - rounded["responses"])
    largest = 2 * error.max() * np.abs(rounded["keys"]).max()
    scalar = np.abs(np.einsum("vhe,bpge->vhbpg", rounded["readout"], rounded["keys"])).max()
    assert np.abs(got["readout"] - expected["readout"]).max() <= largest / 256
    assert np.abs(got["query"] - expected["query"]).max() <= 2 * scalar * largest / 256


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="xla rounds gradients per token where such products exist")
@pytest.mark.parametrize(
    ("implementation", "name", "with_basis"),
    [*((name, "heads_apart", True) for name in FAST), ("pallas", "smoke_shared_keys", False)],
)
def test_bfloat16_keys_are_multiplied_in_float32(name, with_basis, implementation):
    """As the reference does with the same rounded keys."""
    arrays, mask = case(SMALL[name], masked=True)
    basis = None
    if with_basis:
        rng = np.random.default_rng(5)
        basis = rng.standard_normal((SMALL[name].tokens, 3)).astype(np.float32)
        arrays["position"] = rng.standard_normal((*arrays["position"].shape[:2], 3)).astype(np.float32)
    half = arrays | {key: jnp.asarray(arrays[key], jnp.bfloat16) for key in ("keys", "values")}
    single = half | {key: np.asarray(half[key], np.float32) for key in ("keys", "values")}
    expected_loss, expected = gradients(single, mask, implementation="reference", basis=basis)
    loss, got = gradients(half, mask, implementation=implementation, basis=basis)
    close(loss, expected_loss, "loss")
    assert set(got) == set(expected)
    for key, value in expected.items():
        close(got[key], value, key)
    predicted = forward(half, mask, implementation=implementation, basis=basis)
    close(predicted, forward(single, mask, implementation="reference", basis=basis), "predicted")


def test_message_unknown_implementation():
    arrays, mask = case(SPECS["smoke"])
    with pytest.raises(NotImplementedError, match=r"`implementation` must be one of .*'cuda'"):
        forward(arrays, mask, implementation="cuda")
    with pytest.raises(NotImplementedError, match="cuda"):
        gradients(arrays, mask, implementation="cuda")


@pytest.mark.parametrize(
    ("name", "index", "match"),
    [
        ("query", np.s_[0], r"`query` must have shape \[V, H, E\]"),
        ("readout", np.s_[:3], "`readout` and `position` must start as `query`"),
        ("position", np.s_[:, :1], "`readout` and `position` must start as `query`"),
        ("position", np.s_[:, :, :4], r"`keys` must have shape \[B, 4, 1 or 2, 8\]"),
        ("keys", np.s_[..., :5], r"`keys` must have shape"),
        ("values", np.s_[:1], "`values` must have the shape of `keys`"),
        ("responses", np.s_[:1], r"`responses` must have shape \[B, V\]"),
        ("intercept", np.s_[:2], r"`intercept` \[V\]"),
    ],
)
def test_message_shapes(name, index, match):
    arrays, mask = case(SPECS["smoke"])
    with pytest.raises(ValueError, match=match):
        gradients(arrays | {name: arrays[name][index]}, mask)


def test_message_mask():
    arrays, _ = case(SPECS["smoke"])
    with pytest.raises(ValueError, match=r"`mask` must have shape \[B, P\]"):
        forward(arrays, jnp.ones((1, 10), bool))


def test_message_missing_device():
    if jax.default_backend() == "gpu":
        pytest.skip("this device runs the kernels")
    arrays, mask = case(SMALL["heads_apart"])
    with pytest.raises(NotImplementedError, match="'pallas' needs a GPU, but the default device is 'cpu'"):
        mine_kernels.voxel_attention_gradients(**arrays, mask=mask, implementation="pallas")


@pytest.mark.parametrize("implementation", sorted(LACKS_TRUNK))
def test_message_missing_trunk(implementation):
    with pytest.raises(NotImplementedError, match=r"project the states first|needs a GPU"):
        trunk_gradients(SPECS["smoke"], values_are_keys=False, implementation=implementation)


@pytest.mark.parametrize("implementation", sorted(FLOAT32_ONLY))
def test_message_float64(implementation):
    with jax.enable_x64(True):
        arrays, mask = case(SPECS["smoke"], dtype=np.float64)
        with pytest.raises(NotImplementedError, match="computes in float32, but `query` is float64"):
            gradients(arrays, mask, implementation=implementation)
