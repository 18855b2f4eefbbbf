"""Figures and pixels as WebP pictures that a page embeds."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from mine_jax import _optional
from mine_jax.report.figures import style
from mine_jax.report.page import Picture, Uri

MAX_PHOTO_PIXELS = 240


def picture(fig: Any, *, alt: str, caption: str = "") -> Picture:
    """Draws a figure with Agg and embeds it."""
    agg = _optional.require("matplotlib.backends.backend_agg", extra="report", why=style.WHY)
    drawn = agg.FigureCanvasAgg(fig)
    drawn.draw()
    rgb = np.asarray(drawn.buffer_rgba())[..., :3]
    return Picture(_uri(rgb, lossless=True), alt, caption, rgb.shape[1::-1])


def pixels(rgb: np.ndarray, *, alt: str, caption: str = "", size: int = MAX_PHOTO_PIXELS) -> Picture:
    """Embeds an image [height, width, 3] uint8; sides above `size` pixels are made smaller."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return Picture(_uri(np.asarray(image), lossless=False), alt, caption, image.size)


def _uri(rgb: np.ndarray, *, lossless: bool) -> Uri:
    """Encodes pixels: drawings without loss, photos at a quality whose loss nobody sees."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    # of a lossless picture, quality is only the effort
    image.save(buffer, format="WEBP", lossless=lossless, quality=40 if lossless else 88, method=1 if lossless else 4)
    return Uri("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
