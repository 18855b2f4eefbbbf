"""Low-level statistics of images: what a voxel could follow without knowing any thing in the picture.

Pixels enter; luminance, contrast, orientation energy at several spatial frequencies and opponent colours
leave, each in overlapping Gaussian windows on a coarse grid, in the form of image-tokens: one token per
window. An encoder of these is the rival of every description in words.

Source: Gabor wavelet pyramid with square-rooted energy, Kay et al. 2008, doi:10.1038/nature06713; windows of
several sizes for contrast, since the standard deviation in a large window is no sum over smaller ones.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from mine_jax._progress import Progress, silent
from mine_jax.features.extract import ahead
from mine_jax.types import Array, ImageTokens, Stimuli

MODEL = "low-level statistics"
# Images are scaled to this side, and reflected at their borders for the filters.
SIDE, _BORDER = 96, 16
GRID = (8, 8)
# Standard deviations of the windows, as shares of the side; the first serves all that is averaged.
_WINDOWS = (1 / 16, 1 / 10, 1 / 6)
# Cycles per image, an octave apart, and how many orientations.
_FREQUENCIES = (3.0, 6.0, 12.0, 24.0)
_N_ORIENTATIONS = 4
# Log-Gabor filters: 1.5 octaves wide, and so wide in orientation that neighbours overlap.
_BANDWIDTH, _ANGLE = 0.65, np.pi / _N_ORIENTATIONS / 1.5
# Luminance of ITU-R BT.601, then red against green and blue against yellow, each between -1 and 1.
_OPPONENT = np.array([[0.299, 0.587, 0.114], [1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]], np.float32)
_BATCH = 16
_ENERGY = 11  # first column of the energies, frequency by frequency
# Columns of the statistics that a voxel may follow alone, and all of them.
LOW_LEVEL_GROUPS = {
    "color": slice(0, 8),
    "contrast": slice(8, _ENERGY),
    **{
        f"energy at {frequency:g}": slice(_ENERGY + i * _N_ORIENTATIONS, _ENERGY + (i + 1) * _N_ORIENTATIONS)
        for i, frequency in enumerate(_FREQUENCIES)
    },
    "energy": slice(_ENERGY, None),
    "all": slice(None),
}


def low_level_statistics(stimuli: Stimuli, *, progress: Progress = silent) -> ImageTokens:
    """Computes the low-level statistics of every image.

    Args:
        stimuli: N images of any size.
        progress: called with (images done, N).

    Returns:
        One token per window of `GRID`, [N, P, D] float32, row-major.
    """
    image_ids = np.asarray(stimuli.image_ids, dtype=str)

    def load(start: int) -> np.ndarray:
        pixels = np.stack([_resized(image) for image in stimuli.read(image_ids[start : start + _BATCH].tolist())])
        return np.concatenate([pixels, np.repeat(pixels[-1:], _BATCH - len(pixels), axis=0)])

    parts, starts = [], range(0, len(image_ids), _BATCH)
    for start, pixels in zip(starts, ahead(load, starts), strict=True):
        done = min(start + _BATCH, len(image_ids))
        parts.append(np.asarray(statistics_of(pixels))[: done - start])
        progress(done, len(image_ids))
    return ImageTokens(np.concatenate(parts), image_ids, grid=GRID, model=MODEL)


@jax.jit
def statistics_of(pixels: Array) -> jax.Array:
    """Computes the low-level statistics of pixels.

    Args:
        pixels: [B, SIDE, SIDE, 3] uint8.

    Returns:
        [B, P, D] float32: means of luminance, both opponent colours and colourfulness; standard deviations and root
        mean squares of both colours; standard deviations of luminance in windows of three sizes; square-rooted
        energy at each frequency and orientation.
    """
    channels = jnp.einsum("bhwc,oc->bohw", jnp.asarray(pixels, jnp.float32) / 255, _OPPONENT)
    luminance, colors = channels[:, :1], channels[:, 1:]
    small = _WINDOWS[0]
    parts = [
        _pooled(channels, small),
        _pooled(jnp.sqrt((colors**2).sum(1, keepdims=True)), small),
        _deviation(colors, _WINDOWS[1]),
        jnp.sqrt(_pooled(colors**2, small)),
        *(_deviation(luminance, window) for window in _WINDOWS),
        _energy(luminance[:, 0], small),
    ]
    return jnp.concatenate(parts, axis=-1)


def image_statistics(statistics: ImageTokens) -> dict[str, np.ndarray]:
    """Summarises low-level statistics by image.

    Args:
        statistics: [N, P, D] of `low_level_statistics`.

    Returns:
        Name -> mean over windows [N]: luminance, color (colourfulness), contrast and edges (energy).
    """
    means = np.asarray(statistics.tokens, np.float64).mean(1)
    contrast, energy = (means[:, LOW_LEVEL_GROUPS[name]].mean(1) for name in ("contrast", "energy"))
    return {"luminance": means[:, 0], "color": means[:, 3], "contrast": contrast, "edges": energy}


def _resized(image: np.ndarray) -> np.ndarray:
    """Scales a whole image [h, w, 3] to a square."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.asarray(PIL.Image.fromarray(image).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))


def _pooled(maps: jax.Array, window: float) -> jax.Array:
    """Averages maps [B, C, h, w] in windows, [B, P, C]."""
    down, across = (jnp.asarray(_window_weights(size, window)) for size in GRID)
    means = jnp.einsum("gy,bcyx,kx->bgkc", down, maps, across)
    return means.reshape(len(maps), -1, maps.shape[1])


def _deviation(maps: jax.Array, window: float) -> jax.Array:
    """Standard deviation of maps [B, C, h, w] in windows, [B, P, C]."""
    return jnp.sqrt(jnp.maximum(_pooled(maps**2, window) - _pooled(maps, window) ** 2, 0))


def _energy(luminance: jax.Array, window: float) -> jax.Array:
    """Square-rooted energy of luminance [B, h, w] at every frequency and orientation, [B, P, filters]."""
    padded = jnp.pad(luminance, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)), mode="reflect")
    spectrum = jnp.fft.fft2(padded)

    def one(gain: jax.Array) -> jax.Array:
        amplitude = jnp.abs(jnp.fft.ifft2(spectrum * gain[None]))[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
        return _pooled(amplitude[:, None], window)[..., 0]

    return jnp.moveaxis(lax.map(one, jnp.asarray(_filters())), 0, -1)


@functools.cache
def _window_weights(n_windows: int, window: float) -> np.ndarray:
    """Gaussian weights [windows, SIDE] along one side of the image, each of sum 1."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    centre = (np.arange(n_windows) + 0.5) / n_windows
    weights = np.exp(-((place - centre[:, None]) ** 2) / (2 * window**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@functools.cache
def _filters() -> np.ndarray:
    """Log-Gabor gains [filters, side, side]; one side of the spectrum, so that a result's length is its amplitude."""
    side = SIDE + 2 * _BORDER
    down, across = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    frequency, angle = np.hypot(down, across) * SIDE, np.arctan2(down, across)
    frequency[0, 0] = 1e-6  # no gain at the mean
    gains = []
    for center in _FREQUENCIES:
        radial = np.exp(-(np.log(frequency / center) ** 2) / (2 * np.log(_BANDWIDTH) ** 2))
        for orientation in np.arange(_N_ORIENTATIONS) * np.pi / _N_ORIENTATIONS:
            difference = np.angle(np.exp(1j * (angle - orientation)))
            gains.append(radial * np.exp(-(difference**2) / (2 * _ANGLE**2)))
    return 2 * np.stack(gains).astype(np.float32)
