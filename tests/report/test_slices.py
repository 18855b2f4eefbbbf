"""Slices say which way they are seen: left and right, millimetres, borders of areas."""

import nibabel
import numpy as np
import pytest

from mine_jax.report import slices
from mine_jax.report.figures import style


@pytest.mark.parametrize("turned", ["RAS", "LAS", "ASR", "PIL"])
def test_letters_and_millimetres_agree_with_nibabel(turned):
    turn = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(turned), (5, 6, 7))
    affine = np.array([[2, 0, 0, -9], [0, 3, 0, 4], [0, 0, 1.5, 7], [0, 0, 0, 1.0]]) @ turn
    codes = "".join(nibabel.aff2axcodes(affine))
    space = slices.space(affine)
    assert "".join(high for _, high in space.letters) == codes
    opposite = dict(zip("LRPAIS", "RLAPSI", strict=True))
    assert all(opposite[low] == high for low, high in space.letters)
    for axis in range(3):
        place = np.zeros(4)
        place[axis], place[3] = 3, 1
        assert space.millimetres(axis, 3) == pytest.approx((affine @ place)["xyz".index(space.names[axis])])


def test_borders_surround_each_area():
    volume = np.full((3, 3, 1), 0.5)
    areas = np.zeros((3, 3, 1), int)
    areas[0, 0], areas[1, 0] = 1, 2
    fig = slices.draw(volume, np.eye(4), areas, colors=style.color_map("cividis"), low=0, high=1)
    (lines,) = [c for c in fig.axes[0].collections if len(c.get_segments())]
    edges = {tuple(map(tuple, segment.tolist())) for segment in lines.get_segments()}
    # two cells side by side: six outer edges, and the one between them once
    assert len(edges) == len(lines.get_segments()) == 7
    assert ((0.5, -0.5), (0.5, 0.5)) in edges


def test_oblique_axes_have_no_letters():
    affine = np.eye(4)
    affine[:2, :2] = [[0.66, -0.66], [0.66, 0.66]]
    affine[2, :2] = 0.4
    space = slices.space(affine)
    assert space.letters[0] == space.letters[1] == ("", "") and space.letters[2] == ("I", "S")
