"""Sizes to plan a run with: those of files, and in place of what no file says yet, published, usual or round ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mine_jax import data, features
from mine_jax._numbers import count
from mine_jax.config import Config, PrecomputedConfig, QueryConfig
from mine_jax.run.files.headers import responses_shape, tokens_shape

# What is said in place of sizes.
UNKNOWN = "sizes are known after the data and features stages"
# Images or voxels to plan with where nothing says how many there are.
EXAMPLE = 1000


class Sizes(NamedTuple):
    """How large a run is: images N, voxels V, image-tokens P per image and their width D."""

    n_images: int
    n_voxels: int
    n_tokens: int
    token_width: int


class Number(NamedTuple):
    """A number to plan with, the words that say it and where it is from, and whether it is only an example."""

    n: int
    said: str
    is_example: bool = False


class Planned(NamedTuple):
    """Sizes, which of them are examples, and a line about those that are not known from files; "" for none."""

    sizes: Sizes
    images: Number
    voxels: Number
    said: str


def planned_sizes(config: Config, directory: Path) -> Planned | None:
    """Returns the sizes to plan a run with; None where nothing says how many image-tokens there are."""
    images, voxels, tokens = planned_images(config, directory), _voxels(config, directory), _tokens(config, directory)
    if tokens is None:
        return None
    (n_tokens, width), of_tokens = tokens
    words = (images.said, voxels.said, f"{count(n_tokens)} image-tokens x {count(width)}{of_tokens}")
    is_known = not any(text.endswith(")") for text in words)
    said = "" if is_known else f"{UNKNOWN}; until then: {', '.join(words)}"
    return Planned(Sizes(images.n, voxels.n, n_tokens, width), images, voxels, said)


def planned_images(config: Config, directory: Path) -> Number:
    """Returns the number of images to plan a run with."""
    shape, tokens = responses_shape(config, directory), tokens_shape(config, directory)
    known = shape[0] if shape else tokens[0] if tokens else None
    return _number("image", known, data.published_sizes(config.data).n_images)


def _voxels(config: Config, directory: Path) -> Number:
    shape = responses_shape(config, directory)
    known = shape[1] if shape is not None and len(shape) == 2 else None
    return _number("voxel", known, data.published_sizes(config.data).n_voxels)


def _number(noun: str, known: int | None, published: int | None) -> Number:
    if known is not None:
        return Number(known, count(known, noun))
    if published is not None:
        return Number(published, f"{count(published, noun)} (published)")
    return Number(EXAMPLE, f"{count(EXAMPLE, noun)} (an example)", is_example=True)


def _tokens(config: Config, directory: Path) -> tuple[tuple[int, int], str] | None:
    """Returns image-tokens P and their width D, and in brackets what says so where neither file nor model does."""
    shape, f = tokens_shape(config, directory), config.features
    if shape is not None:
        return ((shape[1], shape[2]), "") if len(shape) == 3 else None
    if not isinstance(f, PrecomputedConfig):
        planned = features.planned_tokens(f)
        if planned is not None:
            return planned, ""
        usual = features.usual_model(f)
        return (usual.n_tokens, usual.width), f" ({usual.model})"
    # of wider tokens, query encoders read as many directions as they are wide
    if f.grid is None or not isinstance(config.encoder, QueryConfig):
        return None
    return (f.grid[0] * f.grid[1], config.encoder.width), " or more (features.grid)"
