"""The word list that ships with the package: what can be seen in a photo, in English."""

from __future__ import annotations

import importlib.resources

import numpy as np

from mine_jax.features.lens import check_words


def visual_words() -> np.ndarray:
    """Returns the shipped list of words and short phrases, [W] str.

    It was written for this project; see `visual_words.NOTICE` beside it.
    """
    text = (importlib.resources.files("mine_jax") / "features" / "visual_words.txt").read_text(encoding="utf-8")
    return check_words(text.split("\n")[:-1], source="visual_words.txt")
