"""Slices of a volume of voxels: values or labels in colors, outlines of areas, left and right, millimetres."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mine_jax import _optional
from mine_jax.report.figures import style

SLICES = 6
_AXES = (("L", "R"), ("P", "A"), ("I", "S"))


class Space(NamedTuple):
    """Where the axes of a volume point.

    Attributes:
        names: world axis that each axis follows, x (right), y (front) or z (up).
        letters: for each axis the letters of its low and its high end; empty where it points nowhere in particular.
        step: millimetres between two places along each axis.
        origin: millimetres of the first place along the world axis that each axis follows.
    """

    names: tuple[str, ...]
    letters: tuple[tuple[str, str], ...]
    step: tuple[float, ...]
    origin: tuple[float, ...]

    def millimetres(self, axis: int, place: int) -> float:
        """Returns where a place along an axis lies."""
        return self.origin[axis] + self.step[axis] * place


def space(affine: np.ndarray) -> Space:
    """Reads where the axes of a volume point.

    Args:
        affine: voxel to millimetres [4, 4], in the right-anterior-superior convention of NIfTI.

    Returns:
        Letters, steps and origins; a step is negative where an axis runs to the left, back or down.
    """
    matrix = np.asarray(affine, float)[:3, :3]
    names, letters, steps, origins = [], [], [], []
    for axis in range(3):
        world = int(np.argmax(np.abs(matrix[:, axis])))
        size = float(np.linalg.norm(matrix[:, axis]))
        is_oblique = size == 0 or abs(matrix[world, axis]) < 0.7 * size
        ends = ("", "") if is_oblique else _AXES[world]
        names.append("xyz"[world])
        letters.append(ends if matrix[world, axis] > 0 else ends[::-1])
        steps.append(float(matrix[world, axis]))
        origins.append(float(np.asarray(affine)[world, 3]))
    return Space(tuple(names), tuple(letters), tuple(steps), tuple(origins))


@style.styled
def draw(
    volume: np.ndarray,
    affine: np.ndarray,
    areas: np.ndarray | None,
    *,
    colors: Any,
    low: float,
    high: float,
    label: str = "",
) -> Any:
    """Draws slices evenly spaced over those that hold voxels, cut to the voxels' bounding box.

    Args:
        volume: values [x, y, z], NaN outside.
        affine: voxel to millimetres [4, 4].
        areas: area of each place [x, y, z] int, 0 for none; its borders are drawn. None without areas.
        colors: a color map.
        low: value of its first color.
        high: value of its last color.
        label: of the color bar; without it there is none.

    Returns:
        The figure, one column wide.
    """
    inside = np.isfinite(volume)
    held = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not len(held[2]):
        held = [np.arange(n) for n in volume.shape]
    spread = np.linspace(0, len(held[2]) - 1, min(SLICES, len(held[2]))).round().astype(int)
    places = sorted({int(place) for place in held[2][spread]})
    box = np.s_[held[0][0] : held[0][-1] + 1, held[1][0] : held[1][-1] + 1]
    size = (held[0][-1] + 1 - held[0][0], held[1][-1] + 1 - held[1][0])
    columns = min(3, len(places))
    rows = -(-len(places) // columns)
    height = (style.SINGLE / columns * size[1] / size[0] + 8) * rows + (10 if label else 0)
    fig, axes = style.panels(height=float(np.clip(height, 32, 150)), shape=(rows, columns))
    where, image = space(affine), None
    for ax in axes.flat[len(places) :]:
        ax.set_axis_off()
    for ax, place in zip(axes.flat, places, strict=False):
        shown = volume[box][:, :, place].T
        image = ax.imshow(shown, origin="lower", cmap=colors, vmin=low, vmax=high, interpolation="nearest")
        if areas is not None:
            _outline(ax, areas[box][:, :, place].T)
        ax.set_title(f"{where.names[2]} = {where.millimetres(2, place):.1f} mm", fontsize=7)
        ax.set_xticks([0, shown.shape[1] - 1], where.letters[0])
        ax.set_yticks([0, shown.shape[0] - 1], where.letters[1])
        ax.tick_params(length=0, pad=1)
        ax.grid(visible=False)
        ax.spines[:].set(visible=True, color="#cccccc")
    if label:
        fig.colorbar(
            image, ax=axes, orientation="horizontal", fraction=0.06, pad=0.03, aspect=40, label=style.plain(label)
        )
    return fig


def describe(affine: np.ndarray) -> str:
    """Says in one sentence which way the slices are seen."""
    where = space(affine)
    step = " x ".join(f"{abs(step):.2g}" for step in where.step)
    known = any(low for low, _ in where.letters)
    letters = "L, R: left and right of the brain; P, A: back and front." if known else "The axes point nowhere known."
    return f"{letters} Cells of {step} mm; {where.names[2]} is a coordinate of the data."


def _outline(ax: Any, areas: np.ndarray) -> None:
    """Draws the borders between areas [rows, columns] int."""
    collections = _optional.require("matplotlib.collections", extra="report", why=style.WHY)
    padded = np.pad(areas, 1)
    below = np.argwhere(padded[:-1] != padded[1:])
    beside = np.argwhere(padded[:, :-1] != padded[:, 1:])
    edges = [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for y, x in below.tolist()]
    edges += [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for y, x in beside.tolist()]
    ax.add_collection(collections.LineCollection(edges, colors=style.INK, linewidths=0.4))
