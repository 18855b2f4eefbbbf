"""Every kernel lowers for every platform that it claims, at real sizes, on a machine without any of them.

What lowering does not see is counted: shared memory and registers of a program on a GPU, memory of a TPU core.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from mine_kernels import launch
from mine_kernels.ridge_sweep import op as ridge_op
from mine_kernels.ridge_sweep import pallas as ridge_sweep
from mine_kernels.ridge_sweep.specs import SPECS as RIDGE_SPECS
from mine_kernels.ridge_sweep.specs import Blocks as RidgeBlocks
from mine_kernels.token_ig import pallas as token_ig
from mine_kernels.token_ig.specs import BLOCKS as IG_BLOCKS
from mine_kernels.voxel_attention import pallas as voxel_attention
from mine_kernels.voxel_attention.specs import BLOCKS, SPECS, Spec

# What stands in a program where a kernel is, by platform.
KERNEL = {"cuda": "xla.gpu.triton", "tpu": "tpu_custom_call"}
N_REGISTERS = 255  # of a thread
HEADS_AND_TOKENS = [(1, 196), (1, 576), (8, 196), (8, 576), (128, 196), (128, 576)]


def floats(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def lowered(function, *arrays, platform="cuda"):
    """The program for a platform; the device that traces it is another one."""
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


def attention(spec, *, n_functions=None, dtype=jnp.float32):
    """Arguments of the gradients, up to the mask; with functions, also their basis."""
    v, b, p, h, g, e = spec
    tokens = floats(b, p, g, e, dtype=dtype)
    arrays = [floats(v, h, e), floats(v, h, n_functions or p), floats(v, h, e), floats(v), tokens, tokens, floats(b, v)]
    mask = jax.ShapeDtypeStruct((b, p), bool)
    return arrays, (mask, None if n_functions is None else floats(p, n_functions))


@pytest.mark.parametrize(
    ("spec", "n_functions", "dtype"),
    [
        *((Spec(1_000, 8, tokens, heads, heads, 512 // heads), 16, jnp.float32) for heads, tokens in HEADS_AND_TOKENS),
        (SPECS["roi"], None, jnp.float32),
        (SPECS["subject"], 16, jnp.float32),
        (SPECS["whole_brain"], 16, jnp.bfloat16),
        (Spec(15_000, 32, 576, 1, 1, 512), None, jnp.float32),
    ],
)
def test_voxel_attention(spec, n_functions, dtype):
    arrays, rest = attention(spec, n_functions=n_functions, dtype=dtype)
    options = {"with_trunk": True, "with_readout": True, "blocks": BLOCKS}
    text = lowered(lambda *given: voxel_attention.gradients(*given, **options), *arrays, *rest)
    assert text.count(KERNEL["cuda"]) == 3
    names = ("voxel_attention", "voxel_attention_of_voxels", "voxel_attention_of_tokens")
    assert all(f'name = "{name}"' in text for name in names)
    forward = [arrays[i] for i in (0, 1, 2, 4, 5)]
    text = lowered(lambda *given: voxel_attention.forward(*given, blocks=BLOCKS), *forward, *rest)
    assert text.count(KERNEL["cuda"]) == 1


@pytest.mark.parametrize("columns", [20, 128, 576, 1088, 1664])
def test_blocks_of_voxel_attention_fit(columns):
    """1,664 columns are a head of width 512 with 576 positions, twice the width, rounded up."""
    assert BLOCKS.shared_bytes <= launch.SHARED_BYTES
    held = BLOCKS.rows_of(columns) * columns / (32 * BLOCKS.warps(columns))
    assert held <= N_REGISTERS / 2 and BLOCKS.rows_of(columns) >= 16


@pytest.mark.parametrize("platform", sorted(KERNEL))
@pytest.mark.parametrize("name", ["roi", "subject", "whole_brain"])
def test_ridge_sweep(name, platform):
    v, k, r, f, c = RIDGE_SPECS[name]
    arrays = [floats(k, r, f), floats(k, f), floats(k, f, v), floats(k, f, v), floats(k), floats(c, v)]
    options = {"blocks": RidgeBlocks(), "interpret": False, "platform": {"cuda": "gpu"}.get(platform, platform)}
    text = lowered(lambda *given: ridge_sweep.ridge_sweep(*given, **options), *arrays, platform=platform)
    assert text.count(KERNEL[platform]) == 1
    assert RidgeBlocks().shared_bytes <= launch.SHARED_BYTES
    assert RidgeBlocks().vector_bytes(r, f) <= launch.VECTOR_BYTES


def test_a_factor_too_large_for_a_tpu_is_named(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    arrays = [floats(2, 2048, 2048), floats(2, 2048), *[floats(2, 2048, 9)] * 2, floats(2), floats(3, 9)]
    with pytest.raises(NotImplementedError, match=r"factor that fits its 16 MiB twice, .*\(2, 2048, 2048\)"):
        jax.eval_shape(lambda *given: ridge_op.ridge_sweep(*given, implementation="pallas"), *arrays)


@pytest.mark.parametrize(("heads", "tokens"), HEADS_AND_TOKENS)
@pytest.mark.parametrize("k", [None, 50], ids=["scores", "top k"])
def test_token_ig(heads, tokens, k):
    # 256 voxels and 8 images are those of "roi"; the launch does not depend on more of them
    terms = [floats(256, 8, heads, tokens)] * 5
    op = token_ig.token_ig if k is None else token_ig.token_ig_top_k
    options = {"blocks": IG_BLOCKS, "interpret": False} | ({} if k is None else {"k": k})
    text = lowered(lambda *given: op(*given, **options), *terms, floats(32), floats(32))
    assert text.count(KERNEL["cuda"]) == 1
    width = 1 << (tokens - 1).bit_length()
    assert 6 * min(heads, IG_BLOCKS.heads(width)) * width / (32 * IG_BLOCKS.warps) <= N_REGISTERS / 2


def test_what_a_jax_without_triton_says(monkeypatch):
    monkeypatch.setattr(launch, "triton", None)
    with pytest.raises(NotImplementedError, match=r"needs Pallas's Triton compiler, which jax .* does not have"):
        launch.pallas_call(lambda: None, warps=4, interpret=False, name="any", out_shape=floats(1))


def test_importing_the_launcher_is_left_to_those_who_launch():
    code = "import sys, mine_kernels; print('mine_kernels.launch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False"]
