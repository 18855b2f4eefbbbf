"""The benchmark of frozen models: what it counts, and that it runs."""

import jax
import numpy as np
import pytest

from benchmarks.bench_features import MODELS, model_flop
from benchmarks.cases import CASES
from benchmarks.run import benchmark
from mine_jax.features import Backbone
from mine_jax.features.ports.untrained import untrained_backbone


@pytest.mark.parametrize("name", ["tiny", "llava_tiny"])
def test_flop_formula_against_the_compiler(name):
    backbone = untrained_backbone(MODELS[name], key=jax.random.key(0))
    assert isinstance(backbone, Backbone)
    pixels = np.zeros((3, 64, 64, 3), np.float32)
    found = jax.jit(lambda x: backbone.encode(x)[-1]).lower(pixels).cost_analysis()["flops"] / 3
    # XLA also counts additions, norms and softmax, a few percent at this width; a forgotten matrix would be more
    assert 0 < found - model_flop(MODELS[name]) < 0.06 * found


def test_flop_of_published_models():
    # 4.4 GMAC of ViT-B/32 (CLIP, at 224) and 191 GMAC of ViT-L/14 at 336, as counted by timm
    assert model_flop(MODELS["vit_b32"]) == pytest.approx(2 * 4.4e9, rel=0.02)
    assert model_flop(MODELS["vit_l14_336"]) == pytest.approx(2 * 191e9, rel=0.02)
    # two per weight of the 32 blocks and token, more than nine tenths of the whole
    decoder = 2 * 581 * 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert decoder < model_flop(MODELS["llava_7b"]) < decoder / 0.9


@pytest.mark.torch
def test_rows_agree_with_torch():
    threads = _threads()
    try:
        ours, *others = sorted(benchmark("features:tiny", CASES["smoke"], rounds=1), key=lambda r: r["implementation"])
    finally:
        _threads(threads)
    assert (ours["implementation"], [row["implementation"] for row in others]) == ("mine_jax", ["torch"])
    assert ours["reference"] == "torch" and 0 < ours["max_abs_err"] < 1e-5
    # on a CPU no absolute rate is given
    assert 0 < ours["roofline"] and ours["bound"] == "arithmetic" and "images_per_s" not in ours
    # the same work, so that both shares of the roofline differ as the speeds do
    assert ours["roofline"] / others[0]["roofline"] == pytest.approx(ours["ratio"])
    assert ours["work"]["arithmetic"] == CASES["smoke"].feature_batch * model_flop(MODELS["tiny"])


def _threads(n=None):
    import torch

    return torch.get_num_threads() if n is None else torch.set_num_threads(n)
