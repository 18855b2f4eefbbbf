"""A small planted world: voxels that want one word each, and images whose tokens say which words they show."""

import numpy as np
import pytest

from mine_jax.memory import sparse_rows
from mine_jax.phantom import scenes
from mine_jax.types import Architecture, Descriptions, Encoders, ImageTokens, Profiles
from mine_jax.validation.evaluators import Evaluator
from mine_jax.validation.pairs import Pair

WORDS = np.array(["cat", "dog", "pizza", "car", "tree", "house", "face", "book"])
N_VOXELS, N_IMAGES = 6, 5


@pytest.fixture
def words():
    return WORDS


@pytest.fixture
def descriptions():
    """Voxel v is described by word v (weight 0.8) and word v + 1 (0.3) in all of its images."""
    word_ids = np.full((N_VOXELS, N_IMAGES, 4), -1, np.int32)
    weights = np.zeros((N_VOXELS, N_IMAGES, 4), np.float32)
    for voxel in range(N_VOXELS):
        word_ids[voxel, :, :3] = [voxel, voxel + 1, 7]
        weights[voxel, :, :3] = [0.8, 0.3, 0.01]
    image_ids = np.array([[str(10 * voxel + image) for image in range(N_IMAGES)] for voxel in range(N_VOXELS)])
    return Descriptions(
        voxel_ids=np.arange(100, 100 + N_VOXELS),
        image_ids=image_ids,
        words=WORDS,
        word_ids=word_ids,
        weights=weights,
        n_tokens=np.ones_like(word_ids),
        k=8,
    )


@pytest.fixture
def profiles(descriptions):
    """Voxel v wants word v; the last voxel is not explained."""
    n, size = N_VOXELS, len(WORDS)
    distribution = np.zeros((n, size), np.float32)
    distribution[np.arange(n), np.arange(n)] = 0.9
    return Profiles(
        voxel_ids=descriptions.voxel_ids,
        words=WORDS,
        word_ids=np.stack([np.array([v, -1], np.int32) for v in range(n)]),
        weights=np.tile(np.array([0.9, np.nan], np.float32), (n, 1)),
        low=np.zeros((n, 2), np.float32),
        high=np.zeros((n, 2), np.float32),
        log_odds=np.zeros((n, 2), np.float32),
        distribution=sparse_rows(distribution),
        halves=(sparse_rows(distribution), sparse_rows(distribution)),
        faithfulness=np.ones(n, np.float32),
        is_named=np.ones((n, 2), bool),
        n_images=np.full(n, 6, np.int32),
        reliability=np.ones(n, np.float32),
        r_measured=np.linspace(0.5, 0.9, n).astype(np.float32),
        effects={},
        p_values={},
        q_values={},
        claims=np.where(np.arange(n) < n - 1, "words", "reliable"),
        reasons=np.full(n, ""),
    )


@pytest.fixture
def pairs():
    """Pair p is voxel 100 + p: word p described, in image "p"; image "tp" lacks it."""
    return [
        Pair(
            row=p,
            voxel_id=100 + p,
            image_id=str(p),
            target_id=f"t{p}",
            description=(str(WORDS[p]),),
            profile=(str(WORDS[p]),),
            present=(str(WORDS[p]),),
            random=("face",),
            lowest=("book",),
            other=(str(WORDS[(p + 2) % 8]),),
            area=("face",),
            near=("tree" if p != 4 else "car",),
            cooccurring=("face",),
            bystanders=("book",),
            exchanged=(p + 1) % (N_VOXELS - 1),
        )
        for p in range(N_VOXELS)
    ]


def shown_tokens(shown):
    """Image-tokens [N, 1, C] of pictures, from name -> the words they show."""
    tokens = np.array([[[float(word in words) for word in WORDS]] for words in shown.values()], np.float32)
    return ImageTokens(tokens, np.array(list(shown)), grid=(1, 1))


def linear_evaluator(name="ridge (describing)"):
    """Voxel 100 + v responds 2 to word v, and 0.5 to anything else."""
    coef = np.full((N_VOXELS, len(WORDS)), 0.5, np.float32)
    coef[np.arange(N_VOXELS), np.arange(N_VOXELS)] = 2
    encoders = Encoders(
        shared={"center": np.zeros(len(WORDS), np.float32)},
        per_voxel={"coef": coef, "intercept": np.zeros(N_VOXELS, np.float32)},
        baseline=np.zeros(len(WORDS), np.float32),
        voxel_ids=np.arange(100, 100 + N_VOXELS),
        status=np.zeros(N_VOXELS, np.int8),
        architecture=Architecture("ridge", None, 1, "mean"),
    )
    return Evaluator(name, encoders, np.full(N_VOXELS, 0.5), "test images")


@pytest.fixture
def planted():
    """The two makers above, for tests that build their own pictures."""
    return {"tokens": shown_tokens, "evaluator": linear_evaluator}


@pytest.fixture(scope="session")
def known():
    """Scenes by image id."""
    rng = np.random.default_rng(0)
    return {
        "0": scenes.sample_scene(rng, concepts=["cat", "pizza"], place="beach"),
        "1": scenes.sample_scene(rng, concepts=["car"], place=None),
        "2": scenes.sample_scene(rng, concepts=["woman"], place="forest"),
    }
