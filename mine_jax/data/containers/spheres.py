"""Spheres of the cortex: two files enter; the position of each vertex leaves.

FreeSurfer inflates each hemisphere to a sphere that keeps distances as well as it can, and registers it to a template.
Neighbours on it are neighbours in the cortex, which is what tests of areas need.

Source: Fischl, Sereno and Dale 1999, doi:10.1006/nimg.1998.0396.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax.data.containers import grayordinates
from mine_jax.data.containers.positions import hemispheres_of
from mine_jax.errors import ConfigError, GeometryError, IntegrityError, MissingInputError
from mine_jax.types import SPHERE_RADIUS, Responses, Surface, Volume

# Distances from the centre may differ by this share of the radius.
_ROUNDNESS = 0.01
_UNPLACED = (
    "vertices have no positions, so areas are tested as if neighbours were independent: set `data.sphere`, such as "
    "surf/{hemi}.sphere of FreeSurfer"
)


def read_spheres(path: str | None, space: Volume | Surface | None) -> np.ndarray | None:
    """Reads where the vertices of both hemispheres lie.

    Args:
        path: with `{hemi}`: FreeSurfer's `sphere` or `sphere.reg`, or GIFTI `.surf.gii`; None for none.
        space: of the responses.

    Returns:
        [vertices of both hemispheres, 3] float32, scaled to a radius of 100 mm; None without a path.

    Raises:
        ConfigError: if the path names one file, or responses are not on a surface.
        MissingInputError: if a file is not there.
        IntegrityError: if one is damaged.
        GeometryError: if one has another number of vertices, or is no sphere.
    """
    if path is None:
        return None
    if not isinstance(space, Surface):
        what = "in a volume" if isinstance(space, Volume) else "plain columns or of one hemisphere"
        raise ConfigError(f"data: `sphere` is for responses on both hemispheres of a surface, but these are {what}.")
    files = hemispheres_of(path)
    if files is None:
        raise ConfigError(f"data: `sphere` must hold {{hemi}}, such as surf/{{hemi}}.sphere, but is {path}.")
    return np.concatenate([_sphere(file, n) for file, n in zip(files, space.n_vertices, strict=True)])


def placed(responses: Responses, spheres: np.ndarray | None) -> Responses:
    """Returns responses that know where their vertices lie, from the positions [all vertices, 3], where known."""
    return responses if spheres is None else replace(responses, sphere=spheres[responses.voxel_ids])


def files_of(path: str | None) -> list[Path]:
    """Returns the two files of a path with `{hemi}`; none without."""
    return [] if path is None else list(hemispheres_of(path) or (Path(path),))


def finding(path: str | None, space: Volume | Surface | None) -> list[str]:
    """Says for `mine-jax check` where the vertices of a surface get their positions from.

    Args:
        path: as `read_spheres` takes it.
        space: of the responses.

    Returns:
        One sentence; none for what is not on a surface.

    Raises:
        MineError: as `read_spheres`.
    """
    if read_spheres(path, space) is not None:
        return [f"positions of vertices: {path}"]
    return [f"warning: {_UNPLACED}"] if isinstance(space, Surface) else []


def warning_of_places(responses: Responses) -> str:
    """Says what to add where vertices have no positions.

    Args:
        responses: of any data set.

    Returns:
        One sentence; "" where nothing is missing.
    """
    has_areas = bool(np.any(responses.rois != ""))
    return _UNPLACED if has_areas and responses.surface is not None and responses.places is None else ""


def _sphere(file: Path, n_vertices: int) -> np.ndarray:
    """Positions [vertices, 3] of one hemisphere, on a sphere of radius 100 mm around the origin."""
    at = grayordinates.read_gifti_points(file) if file.name.endswith((".gii", ".gii.gz")) else _freesurfer(file)
    if len(at) != n_vertices:
        raise GeometryError(f"{file} has {len(at)} vertices, but the responses have {n_vertices} in this hemisphere.")
    radius = np.linalg.norm(at, axis=1)
    typical = np.median(radius)
    # NaN is no radius either
    if not (typical > 0 and np.all(np.abs(radius - typical) <= _ROUNDNESS * typical)):
        raise GeometryError(
            f"{file} is not a sphere: its vertices are {np.min(radius):.4g} to {np.max(radius):.4g} mm from the "
            "origin. Give lh.sphere or lh.sphere.reg, not an inflated, white or pial surface."
        )
    return (at * (SPHERE_RADIUS / radius[:, None])).astype(np.float32)


def _freesurfer(file: Path) -> np.ndarray:
    import nibabel

    if not file.is_file():
        raise MissingInputError(f"no file at {file}.")
    try:
        at, _ = nibabel.freesurfer.read_geometry(file)
    except (ValueError, OSError, EOFError, IndexError, TypeError, MemoryError) as error:
        raise IntegrityError(f"{file} is not a readable surface of FreeSurfer ({error}). Copy it again.") from error
    return at.astype(np.float64)
