"""The whole configuration: its sections, how the work is done, and which of its keys hold paths."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from mine_jax.config.data import DataConfig, FolderConfig
from mine_jax.config.encoder import EncoderConfig, QueryConfig
from mine_jax.config.features import ClipConfig, FeaturesConfig, SiglipConfig
from mine_jax.config.results import AttributionConfig, DescriptionConfig, ProfileConfig, RoiConfig, ValidationConfig
from mine_jax.config.sections import EMBEDDED_MODELS, JUDGING_KINDS, Count, PathKey, Section

MAX_SEED = 1 << 63
# as strict as huggingface_hub
_HUB_ID = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)


class RunConfig(Section):
    """How the work is done; never what comes out (but for `seed` and `precision`)."""

    seed: Annotated[int, Field(ge=0, lt=MAX_SEED)] = 0
    """Seed of everything that is drawn. [ours]"""
    precision: Literal["default", "high", "highest"] = "highest"
    """Precision of matrix products on accelerators, as JAX names it. [ours]"""
    voxel_chunk: Count | None = None
    """Voxels that are held at once: memory, never the result; without it chosen from sizes and free memory."""
    image_chunk: Count | None = None
    """Images that are held at once, likewise."""
    mesh: dict[str, Count] = Field(default_factory=dict)
    """Devices along `voxel` and `data` (fits, attribution), `data` and `model` (features); {} for all. [ours]"""
    compilation_cache: Annotated[str, PathKey(frozenset({"default", "none"}))] = "default"
    """Folder where compiled programs are kept for the next run; "default" is the user's cache, or "none". [ours]"""


class Config(Section):
    """All sections; each may be left out of a file."""

    data: DataConfig = FolderConfig()
    """Stage 1: recordings and photos, read, checked and aligned."""
    features: FeaturesConfig = ClipConfig()
    """Stage 2: image-tokens of a frozen model, and a lens that reads them as words."""
    encoder: EncoderConfig = QueryConfig()
    """Stage 3: one encoder per voxel, from image-tokens to its response."""
    attribution: AttributionConfig = AttributionConfig()
    """Stage 4: the image-tokens that drive each voxel, and patching them."""
    description: DescriptionConfig = DescriptionConfig()
    """Stage 5: critical image-tokens to words."""
    profile: ProfileConfig = ProfileConfig()
    """Stage 6: descriptions of images to one functional profile per voxel, and what may be claimed."""
    validation: ValidationConfig = ValidationConfig()
    """Stage 7: generated and edited images."""
    roi: RoiConfig = RoiConfig()
    """Stage 8: areas of the brain, and maps."""
    run: RunConfig = RunConfig()
    """How the work is done."""


def paths(section: Section) -> dict[str, str]:
    """Returns the keys of a section that hold a path, with the path; "phantom" and ids of the hub are left out."""
    values = {key: (getattr(section, key), field.metadata) for key, field in type(section).model_fields.items()}
    return {
        key: (judging_model(value) if mark.judges else "") or value
        for key, (value, metadata) in values.items()
        for mark in metadata
        if isinstance(mark, PathKey) and isinstance(value, str) and value not in mark.names
        if not (mark.judges and judging_model(value) in EMBEDDED_MODELS)
        if not (mark.hub and hub_id(section))
    }


def hub_id(section: Section) -> str | None:
    """Returns the id that the model of a section has on the Hugging Face hub.

    Args:
        section: any; of one that was read from a file, a folder beside the file is an absolute path by now.

    Returns:
        OWNER/NAME; None where `model` is a folder, a name of the package or not there.
    """
    model, revision = getattr(section, "model", None), getattr(section, "revision", None)
    return model if model and revision and _HUB_ID.fullmatch(model) else None


def judging_model(value: str) -> str:
    """Returns the model of an evaluator with a backbone, "clip:DIR"; "" for any other value."""
    kind, _, model = value.partition(":")
    return model if kind in JUDGING_KINDS else ""


def judging_features(value: str) -> ClipConfig | SiglipConfig | None:
    """Returns the section [features] of an evaluator with a backbone; None for any other value."""
    model = judging_model(value)
    if not model:
        return None
    return ClipConfig(model=model) if value.startswith("clip:") else SiglipConfig(model=model)
