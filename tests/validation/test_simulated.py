"""The truth about edits of a phantom."""

import numpy as np

from mine_jax.phantom import cortex, scenes
from mine_jax.validation import Instruction, simulated
from mine_jax.validation.makers import oracle


def test_truth_knows_the_counterfactual(known):
    planted = cortex.plant(0, shape=(16, 16, 12))
    truth = simulated.Truth(known, planted)
    instruction = Instruction("insert", words=("clown",), image_id="1")
    after = truth.counterfactual(instruction, seed=1)
    region = truth.region("1", after)
    exact = oracle.changed_region(known["1"], after)
    assert region[exact].all() and region.sum() < 3 * exact.sum()
    assert truth.counterfactual(Instruction("insert", words=("democracy",), image_id="1"), seed=1) is None
    wants = np.flatnonzero((planted.concepts == "clown") & (planted.kind == "concept"))
    ids = np.append(planted.voxel_ids[wants], -5)
    shifts = np.diff(truth.responses([known["1"], after], ids), axis=0)[0]
    assert len(wants) and (shifts[:-1] > 0).all() and np.isnan(shifts[-1])


def test_words_hold():
    scene = scenes.sample_scene(np.random.default_rng(1), concepts=["cat"], place=None)
    assert simulated.words_hold(scene, ("cat", "animal"), action="insert")
    assert not simulated.words_hold(scene, ("cat", "dog"), action="insert")
    assert simulated.words_hold(scene, ("dog",), action="remove")
    assert not simulated.words_hold(scene, ("democracy",), action="insert")
