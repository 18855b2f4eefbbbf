"""Decoys and halves: what is exchanged, what stays, and that nothing is read to make them."""

import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.encoder.controls.decoys import FIRST_ID
from mine_jax.errors import ConfigError
from mine_jax.types import ImageTokens, Responses, Split


def split(n_images=120, n_voxels=130, *, n_repeats=None, name="train", ids=None):
    rng = np.random.default_rng(0)
    names = np.array([f"i{i}" for i in range(n_images)])
    voxel_ids = np.arange(n_voxels) if ids is None else ids
    responses = Responses(
        responses=rng.standard_normal((n_images, n_voxels)).astype(np.float32),
        image_ids=names,
        n_repeats=np.ones(n_images, int) if n_repeats is None else n_repeats,
        voxel_ids=voxel_ids,
        status=np.full(n_voxels, "ok"),
        ncsnr=np.ones(n_voxels),
        noise_ceiling=np.linspace(0, 1, n_voxels),
        rois=np.full(n_voxels, "A"),
    )
    return Split(ImageTokens(np.zeros((n_images, 2, 3), np.float32), names), responses, name)


def test_a_decoy_has_its_voxels_responses_to_other_images():
    one = split()
    both = encoder.add_decoys(one, 1, seed=3).responses
    values, exchanged = one.responses.responses, both.responses[:, 130:]
    np.testing.assert_array_equal(both.responses[:, :130], values)
    np.testing.assert_array_equal(np.sort(exchanged, 0), np.sort(values, 0))
    assert (exchanged != values).all()
    assert encoder.is_decoy(both.voxel_ids).tolist() == [False] * 130 + [True] * 130
    np.testing.assert_array_equal(both.noise_ceiling[130:], one.responses.noise_ceiling)


def test_images_change_places_within_their_number_of_repeats():
    repeats = np.repeat([1, 3], [70, 50])
    one = split(n_repeats=repeats)
    one.responses.responses[:] = repeats[:, None]
    both = encoder.add_decoys(one, 2).responses
    np.testing.assert_array_equal(both.responses[:], np.broadcast_to(repeats[:, None], (120, 390)))


def test_the_exchange_depends_on_split_copy_and_seed_and_neighbours_have_several():
    one = split()
    first = encoder.add_decoys(one, 2, seed=0).responses.responses
    assert not np.array_equal(first[:, 130:260], first[:, 260:])
    assert not np.array_equal(first[:], encoder.add_decoys(one, 2, seed=1).responses.responses[:])
    assert not np.array_equal(first[:], encoder.add_decoys(split(name="val"), 2, seed=0).responses.responses[:])
    # where each voxel's first response went
    went = (first[:, 130:260] == one.responses.responses[0]).argmax(0)
    assert len(np.unique(went)) > 20


@pytest.mark.parametrize(
    ("n_voxels", "wanted", "copies"), [(500, 1, 1), (40, 1, 3), (3, 1, 15), (500, 0, 0), (10, 4, 10)]
)
def test_few_voxels_have_more_decoys(n_voxels, wanted, copies):
    assert encoder.n_copies(n_voxels, wanted) == copies


def test_ids_that_leave_no_room_are_refused():
    with pytest.raises(ConfigError, match=r"encoder\.decoys = 0"):
        encoder.add_decoys(split(n_voxels=1, ids=np.array([FIRST_ID])), 1)


def test_halves_are_disjoint_and_together_everything():
    training, validation = split(), split(41, name="val")
    first, second = encoder.halves(training, validation, seed=0)
    for whole, a, b in (
        (training, first.training, second.training),
        (validation, first.validation, second.validation),
    ):
        ids = np.concatenate([a.responses.image_ids, b.responses.image_ids])
        assert sorted(ids) == sorted(whole.responses.image_ids) and len(set(ids)) == len(ids)
        assert abs(len(a.responses.image_ids) - len(b.responses.image_ids)) <= 1
        np.testing.assert_array_equal(a.tokens.image_ids, a.responses.image_ids)
        rows = np.searchsorted(np.sort(whole.responses.image_ids), a.responses.image_ids)
        order = np.argsort(whole.responses.image_ids)
        np.testing.assert_array_equal(a.responses.responses, whole.responses.responses[order[rows]])
