"""Heat maps put the scores where the tokens are."""

import base64
import io

import numpy as np
from PIL import Image

from mine_jax import artifacts
from mine_jax.report import canvas, reading
from mine_jax.report.figures import heat
from mine_jax.report.sections import examples


def decoded(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))).convert("RGB")).astype(
        int
    )


def test_scores_land_on_their_cell():
    scores = np.zeros(6, np.float32)
    scores[1], scores[5] = 1.0, -1.0
    shown = heat.HeatMap("", None, scores, np.array([1]), (2, 3), 1.0)
    image = decoded(canvas.picture(heat.heat_map(shown), alt="x"))
    assert image.shape == (160, 240, 3)
    warm = image[..., 0] - image[..., 2]
    y, x = np.unravel_index(np.argmax(warm), warm.shape)
    assert y < 80 and 80 <= x < 160
    y, x = np.unravel_index(np.argmin(warm), warm.shape)
    assert y >= 80 and x >= 160


def test_outline_surrounds_the_set():
    lines = heat.outline(np.array([0, 1]), (2, 2))
    assert sorted(lines) == sorted(
        [((0, 0), (1, 0)), ((1, 0), (2, 0)), ((0, 1), (1, 1)), ((1, 1), (2, 1)), ((0, 0), (0, 1)), ((2, 0), (2, 1))]
    )
    assert heat.outline(np.array([-1, 9]), (2, 2)) == []


def test_critical_tokens_alone():
    field, complete = heat.token_scores(None, np.array([3, 0, -1]), np.array([0.5, 0.2, 9.0]), n_tokens=4)
    np.testing.assert_allclose(field, [0.2, 0, 0, 0.5])
    assert not complete
    field, complete = heat.token_scores(
        np.array([1, np.nan, 0, 0], np.float16), np.array([0]), np.array([1.0]), n_tokens=4
    )
    np.testing.assert_array_equal(field, [1, 0, 0, 0])
    assert complete


def test_photo_is_cut_as_the_model_sees_it():
    photo = np.zeros((100, 300, 3), np.uint8)
    photo[:, 100:200] = 255
    assert heat.fit_to_grid(photo, (4, 4), crop=1.0).min() > 200
    whole = heat.fit_to_grid(photo, (4, 4), crop=None)
    assert whole.shape == (240, 240, 3) and whole[:, 10].max() == 0
    assert heat.fit_to_grid(photo, (4, 12), crop=0.5).shape == (80, 240, 3)


def test_heat_maps_of_voxels_without_words_claim_none(make_run, reader):
    run = make_run()
    table = artifacts.read_table(run / "voxels.tsv").assign(explained=False)
    opened = reading.open_run(run, read_images=reader)
    assert not any("nothing is claimed" in shown.title for shown in examples.heat_maps(opened, limit=3))
    artifacts.write_table(run / "voxels.tsv", table)
    titles = [shown.title for shown in examples.heat_maps(reading.open_run(run, read_images=reader), limit=3)]
    assert len(titles) == 3 and all(title.endswith("\nnothing is claimed") for title in titles)
