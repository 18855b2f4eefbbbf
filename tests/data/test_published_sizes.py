"""Sizes that data sets publish, against other facts of the same data sets."""

import pytest

from mine_jax import config, data


def nsd(**settings):
    return data.published_sizes(config.NsdConfig(**settings))


def test_nsd_shows_each_image_three_times_where_all_sessions_were_done():
    sessions = {"subj01": 40, "subj02": 40, "subj03": 32, "subj04": 30, "subj05": 40, "subj07": 40, "subj08": 30}
    for subject, n_sessions in sessions.items():
        n_images, trials = nsd(subject=subject).n_images, 750 * n_sessions
        assert trials / 3 <= n_images <= 10_000 and (n_images == 10_000) == (n_sessions == 40)
    assert nsd(sessions=2).n_images == 1500 and nsd(sessions=40).n_images == 10_000


def test_voxels_are_those_of_whole_areas_only():
    assert nsd(subject="subj05").n_voxels == 13_039 and nsd(space="fsaverage").n_voxels == 37_984
    others = ({"roi": ("V1v",)}, {"roi": ()}, {"space": "func1mm"}, {"subject": "subj09"}, {"subject": "a"})
    assert not any(nsd(**settings).n_voxels for settings in others)
    # nsdgeneral with more of RSC
    whole = data.published_sizes(config.AlgonautsConfig(subject="subj02"))
    assert whole.n_voxels > 37_984 and whole.n_images == 10_000 - 159
    assert data.published_sizes(config.AlgonautsConfig(roi=("OFA",))).n_voxels is None
    assert data.published_sizes(config.ThingsConfig(subject="01")) == (9840 - 1200 + 100, 211_339)
    assert data.published_sizes(config.ThingsConfig(subject="02")).n_voxels is None
    assert data.published_sizes(config.Bold5000Config()) == (1000 + 2000 + 1916, None)


@pytest.mark.parametrize("kind", ["FolderConfig", "BidsConfig", "LaionConfig", "PhantomConfig"])
def test_what_is_not_published_is_none(kind):
    assert data.published_sizes(getattr(config, kind)()) == (None, None)
