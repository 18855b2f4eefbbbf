"""Scenes of a data set, in which some things nearly always come with a place, as in photographs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mine_jax.phantom.scenes import Scene, sample_scene

# Thing -> the place it is nearly always seen in: what a voxel that wants the one seems to want of the other.
CORRELATED = {"swimmer": "beach", "castle": "mountain"}


def sample_correlated(rng: np.random.Generator, *, share: float = 0.9) -> Scene:
    """Draws a random scene in which correlated things have their place.

    Args:
        rng: random state.
        share: how often a thing of `CORRELATED` is in its place, beyond chance.

    Returns:
        A scene of `sample_scene`, with another place where it shows such a thing.
    """
    scene = sample_scene(rng)
    draw = rng.random()
    places = [CORRELATED[thing.concept] for thing in scene.things if thing.concept in CORRELATED]
    return replace(scene, place=places[0]) if places and draw < share else scene
