"""What simulated voxels see: things and places through a receptive field, or statistics of pixels.

Source: compressive spatial summation, Kay et al. 2013, doi:10.1152/jn.00105.2013; energies of Gabor-like
filters, Kay et al. 2008, doi:10.1038/nature06713.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mine_jax.phantom import scenes as scene_module
from mine_jax.phantom.scenes import CATEGORY_OF, COLORS, CONCEPTS, Scene

# Receptive fields are given in pixels of an image of this size.
SIZE = 64
NAMES = (*CONCEPTS, *COLORS)
FEATURES = ("contrast", "orientation", "frequency", "color")
# Orientation voxels: preferred angle of the grating's normal, at one frequency; frequency voxels: any angle.
ANGLES = tuple(np.arange(6) * np.pi / 6)
ORIENTED_FREQUENCY = 12.0  # cycles per image
FREQUENCIES = (5.0, 10.0, 20.0)
# Opponent axes: red against green, blue against yellow.
COLOR_AXES = (0.0, np.pi / 2)
_LUMINANCE = np.array([0.299, 0.587, 0.114]) / 255
# Half widths of the filters: octaves (as natural logarithm) and radians.
_LOG_WIDTH, _ANGLE_WIDTH = 0.45, 0.35


def receptive_fields(x: np.ndarray, y: np.ndarray, sigma: np.ndarray, size: int) -> np.ndarray:
    """Computes Gaussians.

    Args:
        x: [V] centres from the left, pixels of a 64-pixel image.
        y: [V] from the top.
        sigma: [V] standard deviations.
        size: side of the image in pixels.

    Returns:
        [size * size, V] float32, each of sum 1.
    """
    grid = (np.arange(size) + 0.5) * SIZE / size
    across = np.exp(-((grid[:, None] - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((grid[:, None] - y) ** 2) / (2 * sigma**2))
    fields = (down[:, None] * across[None]).reshape(size * size, -1)
    return (fields / fields.sum(0)).astype(np.float32)


def coverages(
    scenes: Sequence[Scene], fields: np.ndarray, exponent: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes how much of each receptive field every thing covers, compressed.

    Args:
        scenes: N scenes of one size; a place counts as a thing that fills the background.
        fields: [size * size, V].
        exponent: power on the coverage.

    Returns:
        Row [T] of each thing's scene, its names [T, names] bool (concept and colour), compressed coverage [T, V].
    """
    rows, masks, named = [], [], []
    column = {name: index for index, name in enumerate(NAMES)}
    for row, scene in enumerate(scenes):
        shown = scene_module.thing_masks(scene)
        for thing, mask in zip(scene.things, shown, strict=True):
            rows.append(row)
            masks.append(mask.ravel())
            named.append([column[name] for name in (thing.concept, thing.color) if name])
        if scene.place is not None:
            rows.append(row)
            masks.append(~shown.any(0).ravel())
            named.append([column[scene.place]])
    is_named = np.zeros((len(rows), len(NAMES)), bool)
    for thing, names in enumerate(named):
        is_named[thing, names] = True
    covered = np.stack(masks).astype(np.float32) @ fields if masks else np.zeros((0, fields.shape[1]), np.float32)
    return np.array(rows, int), is_named, np.maximum(covered, 0) ** exponent


def matches(words: Sequence[str]) -> np.ndarray:
    """Says which names [V, names] bool each text of ";"-joined concepts, colours or categories matches."""
    wanted = [set(text.split(";")) - {""} for text in words]
    return np.array([[name in one or CATEGORY_OF.get(name) in one for name in NAMES] for one in wanted], bool)


def summed(n_scenes: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Adds up values [T, V] of things by their scene, [N, V] float32."""
    out = np.zeros((n_scenes, values.shape[1]), np.float32)
    np.add.at(out, rows, values.astype(np.float32))
    return out


def low_level(images: np.ndarray, fields: np.ndarray, features: np.ndarray, tuning: np.ndarray) -> np.ndarray:
    """Computes energies of pixels within receptive fields.

    Args:
        images: uint8 [N, size, size, 3].
        fields: [size * size, V].
        features: [V] str of `FEATURES`.
        tuning: [V] angle in radians, cycles per image, or opponent axis; ignored for contrast.

    Returns:
        [N, V] float32: standard deviation of luminance (0..1), or root mean energy.
    """
    out = np.zeros((len(images), fields.shape[1]), np.float32)
    luminance = images @ _LUMINANCE
    for feature, tuned in sorted(set(zip(features.tolist(), tuning.tolist(), strict=True))):
        here = (features == feature) & (tuning == tuned)
        if feature == "contrast":
            out[:, here] = _contrast(luminance.reshape(len(images), -1), fields[:, here])
            continue
        energy = _chroma(images, tuned) ** 2 if feature == "color" else _energy(luminance, feature, tuned)
        out[:, here] = np.sqrt(np.maximum(energy.reshape(len(images), -1) @ fields[:, here], 0))
    return out


def _contrast(luminance: np.ndarray, fields: np.ndarray) -> np.ndarray:
    fields = fields.astype(np.float64)
    return np.sqrt(np.maximum(luminance**2 @ fields - (luminance @ fields) ** 2, 0))


def _chroma(images: np.ndarray, axis: float) -> np.ndarray:
    """Opponent colour [N, size, size]: red minus green at axis 0, blue minus yellow at pi / 2."""
    red, green, blue = np.moveaxis(images.astype(np.float32) / 255, -1, 0)
    return np.cos(axis) * (red - green) + np.sin(axis) * (blue - (red + green) / 2)


def _energy(luminance: np.ndarray, feature: str, tuned: float) -> np.ndarray:
    """Squared magnitude [N, size, size] of a log-Gabor filter: oriented, or of all orientations of a frequency."""
    import scipy.fft

    size = luminance.shape[1]
    along = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(along[:, None], along[None])
    frequency = ORIENTED_FREQUENCY if feature == "orientation" else tuned
    with np.errstate(divide="ignore"):
        radial = np.exp(-(np.log(radius / frequency) ** 2) / (2 * _LOG_WIDTH**2))
    spectrum = scipy.fft.fft2(luminance, workers=-1)
    angle = np.arctan2(along[:, None], along[None])
    total = np.zeros(luminance.shape)
    for preferred in (tuned,) if feature == "orientation" else ANGLES:
        # one half of the plane only: the filter is complex, its magnitude the energy of a quadrature pair
        away = np.angle(np.exp(1j * (angle - preferred)))
        oriented = np.exp(-(away**2) / (2 * _ANGLE_WIDTH**2))
        filtered = scipy.fft.ifft2(spectrum * (radial * oriented), overwrite_x=True, workers=-1)
        total += filtered.real**2 + filtered.imag**2
    return total
