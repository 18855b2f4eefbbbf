"""What a generator and an editor must offer, and what counts as a usable image.

Two small protocols stand between the tests and any model that makes images: a diffusers
pipeline, the phantom's exact editor or a plain function with the same arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from mine_jax.errors import GenerationError

# What can become of an image; only "ok" is scored.
STATUSES = (
    "ok",
    "unchanged",  # an edit that gave back its input
    "black",  # safety checkers and overflows give black or otherwise constant images
    "nonfinite",
    "wrong_size",
    "flagged",  # by the pipeline's own safety checker
    "failed",
    "not_applicable",  # the editor cannot draw or find these words
    "no_words",  # the description is empty
)
# Mean absolute difference in 0..255 grey levels below which an edit changed nothing.
UNCHANGED = 0.05
# Largest minus smallest grey level of a constant image.
CONSTANT = 2
# Pipelines round sides to multiples of 8 or 16; a smaller difference is fitted back and recorded.
REFIT_PIXELS = 16


class NotApplicableError(GenerationError):
    """An edit that this editor cannot make, whatever the seed; it is not tried again."""


class Instruction(str):
    """What to do to an image, as text for people and models, with its parts as attributes.

    Attributes:
        action: "insert", "remove" or "noop".
        words: what to insert or remove.
        image_id: image to be edited.
        strength: 0..1, dose of the edit; 1 is all of it.
    """

    action: str
    words: tuple[str, ...]
    image_id: str
    strength: float

    def __new__(
        cls, text: str, *, action: str = "insert", words: Sequence[str] = (), image_id: str = "", strength: float = 1.0
    ) -> Instruction:
        """Makes a string that knows what it asks for."""
        instruction = super().__new__(cls, text)
        instruction.action, instruction.words = action, tuple(words)
        instruction.image_id, instruction.strength = image_id, strength
        return instruction


@dataclass(frozen=True)
class Picture:
    """One made image, or why there is none.

    Attributes:
        pixels: uint8 [height, width, 3] RGB; None where nothing came.
        status: one of `STATUSES`.
        truncated_tokens: tokens of the prompt beyond what the text encoder reads.
        refit: whether a slightly different size was fitted back.
    """

    pixels: np.ndarray | None
    status: str = "ok"
    truncated_tokens: int = 0
    refit: bool = False


@runtime_checkable
class Generator(Protocol):
    """Makes images from words."""

    def generate(self, prompts: Sequence[str], *, seeds: Sequence[int], size: tuple[int, int] | None) -> Sequence[Any]:
        """Returns one image per prompt: an RGB array, a PIL image or a `Picture`."""
        ...


@runtime_checkable
class Editor(Protocol):
    """Changes images as told."""

    def edit(
        self,
        images: Sequence[np.ndarray],
        instructions: Sequence[str],
        *,
        seeds: Sequence[int],
        masks: Sequence[np.ndarray] | None = None,
    ) -> Sequence[Any]:
        """Returns one image per uint8 [h, w, 3] input; masks [h, w] bool are True where it may change."""
        ...


def check_picture(
    answer: Any, *, size: tuple[int, int] | None = None, before: np.ndarray | None = None, may_stay: bool = False
) -> Picture:
    """Brings whatever a model returned to uint8 RGB and says whether it can be scored.

    Args:
        answer: array [h, w, 3] or [3, h, w], uint8 or float 0..1; a PIL image, `Picture` or None.
        size: height and width that were asked for; None for any.
        before: uint8 [h, w, 3], the input of an edit.
        may_stay: whether an image equal to `before` is fine, as for a no-op.

    Returns:
        The picture; `pixels` stay with a bad status where there are any, for people to see.
    """
    if isinstance(answer, Picture):
        if answer.status != "ok" or answer.pixels is None:
            return answer if answer.status != "ok" else Picture(None, "failed", answer.truncated_tokens)
        inner = check_picture(answer.pixels, size=size, before=before, may_stay=may_stay)
        return Picture(inner.pixels, inner.status, answer.truncated_tokens, inner.refit or answer.refit)
    if answer is None:
        return Picture(None, "failed")
    pixels, status = _pixels(answer)
    if pixels is None or status != "ok":
        return Picture(pixels, status)
    wanted = size or (None if before is None else before.shape[:2])
    refit = wanted is not None and pixels.shape[:2] != tuple(wanted)
    if refit:
        if max(abs(a - b) for a, b in zip(pixels.shape, wanted or (), strict=False)) >= REFIT_PIXELS:
            return Picture(pixels, "wrong_size")
        pixels = np.asarray(Image.fromarray(pixels).resize((wanted[1], wanted[0]), Image.Resampling.BICUBIC))
    if int(pixels.max()) - int(pixels.min()) <= CONSTANT:
        return Picture(pixels, "black", refit=refit)
    same = before is not None and np.abs(pixels.astype(np.float32) - before).mean() < UNCHANGED
    return Picture(pixels, "unchanged" if same and not may_stay else "ok", refit=refit)


def _pixels(answer: Any) -> tuple[np.ndarray | None, str]:
    """Returns uint8 [h, w, 3] and a status."""
    if isinstance(answer, Image.Image):
        answer = answer.convert("RGB")
    try:
        array = np.asarray(answer)
    except (TypeError, ValueError, RuntimeError):
        return None, "failed"
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "uif":
        return None, "failed"
    if array.shape[2] not in (3, 4) and array.shape[0] in (3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.shape[2] not in (3, 4):
        return None, "failed"
    array = array[..., :3]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            return np.zeros(array.shape, np.uint8), "nonfinite"
        array = np.rint(np.clip(array, 0, 1) * 255)
    return np.ascontiguousarray(np.clip(array, 0, 255).astype(np.uint8)), "ok"
