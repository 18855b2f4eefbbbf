import dataclasses

import numpy as np
import pytest

from mine_jax import artifacts, encoder
from mine_jax.errors import DataError


@pytest.mark.parametrize("masked", [False, True])
def test_matches_loop_over_voxels(encoders, make, predict_all, masked):
    tokens = make.tokens(5, masked=masked)
    expected = predict_all(encoders, tokens)
    assert np.isfinite(expected).all()
    got = encoder.predict(encoders, tokens)
    assert got.shape == (5, 5) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6 * max(1, np.abs(expected).max()))


def test_chunking_changes_nothing(encoders, make):
    tokens = make.tokens(5, masked=True)
    expected = encoder.predict(encoders, tokens)
    done = []
    got = encoder.predict(
        encoders,
        tokens,
        voxel_chunk=2,
        image_chunk=3,
        progress=lambda *counts: done.append(counts),
    )
    np.testing.assert_allclose(got, expected, atol=2e-6 * max(1, np.abs(expected).max()))
    assert done[-1] == (5, 5)


def test_image_without_real_token(encoders, make):
    """Nothing was seen: the query encoder says its intercept, and nobody says NaN (F-58)."""
    tokens = make.tokens(5, masked=True)
    tokens.mask[1] = False
    got = encoder.predict(encoders, tokens)
    assert np.isfinite(got).all()
    if encoders.architecture.kind == "query":
        np.testing.assert_allclose(got[1], encoders.per_voxel["intercept"], atol=1e-6)


def test_half_precision_tokens(make):
    encoders, tokens = make.encoders("query"), make.tokens(5)
    half = dataclasses.replace(tokens, tokens=tokens.tokens.astype(np.float16))
    single = dataclasses.replace(tokens, tokens=half.tokens.astype(np.float32))
    np.testing.assert_array_equal(encoder.predict(encoders, half), encoder.predict(encoders, single))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "masked"), [("query", False), ("query_heads", False), ("query_shared", False), ("query_heads", True)]
)
def test_matches_torch(make, kind, masked):
    """PyTorch's attention with the voxels as queries, the position term as its additive mask."""
    import torch

    encoders, tokens = make.encoders(kind), make.tokens(5, masked=masked)
    shared, voxel = (
        {name: torch.tensor(np.asarray(value)) for name, value in part.items()}
        for part in (encoders.shared, encoders.per_voxel)
    )
    states = torch.tensor(np.nan_to_num(tokens.tokens))
    n_heads = voxel["query"].shape[1]
    keys = torch.einsum("npd,dge->ngpe", states, shared["key_weight"]) + shared["key_bias"][:, None]
    values = keys
    if "value_weight" in shared:
        values = torch.einsum("npd,dge->ngpe", states, shared["value_weight"]) + shared["value_bias"][:, None]
    keys, values = (x.expand(-1, n_heads, -1, -1) for x in (keys, values))
    bias = voxel["position"].transpose(0, 1)[None].repeat(len(states), 1, 1, 1)  # [N, H, V, P]
    if masked:
        bias = bias.masked_fill(~torch.tensor(tokens.mask)[:, None, None], -torch.inf)
    queries = voxel["query"].transpose(0, 1)[None].expand(len(states), -1, -1, -1)
    attended = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    expected = torch.einsum("nhve,vhe->nv", attended, voxel["readout"]) + voxel["intercept"]
    np.testing.assert_allclose(encoder.predict(encoders, tokens), expected.numpy(), atol=1e-5)


def test_roundtrip(encoders, make, tmp_path):
    tokens = make.tokens(5)
    artifacts.save(encoders, tmp_path / "encoder")
    loaded = artifacts.load(tmp_path / "encoder")
    assert loaded.architecture == encoders.architecture
    np.testing.assert_array_equal(loaded.voxel_ids, encoders.voxel_ids)
    np.testing.assert_array_equal(encoder.predict(loaded, tokens), encoder.predict(encoders, tokens))
    taken = loaded.take(np.array([3, 1]))
    np.testing.assert_allclose(
        encoder.predict(taken, tokens), encoder.predict(encoders, tokens)[:, [3, 1]], atol=2e-6 * 30
    )


def test_message_other_token_width(encoders, make):
    with pytest.raises(DataError, match=r"D = 6.*\(2, 16, 5\).*backbone or layer"):
        encoder.predict(encoders, make.tokens(2, width=5))


def test_bare_arrays_are_answered_with_what_to_do(encoders, make):
    tokens = make.tokens(8)
    with pytest.raises(DataError, match=r"`tokens` must be ImageTokens, but is ndarray.*from_array"):
        encoder.predict(encoders, np.asarray(tokens.tokens))
    with pytest.raises(DataError, match=r"`training` must be Split, but is ndarray.*VoxelEncoder"):
        encoder.fit(np.asarray(tokens.tokens), key=0)
