"""The configuration: one pydantic model per stage, read from TOML.

Defaults are tagged: `paper` (stated in MINE, arXiv 2605.16468), `parent` (a method it
builds on does it so), `ours`. Precision policy: tokens are stored in half precision,
parameters and optimiser state in float32, dot products accumulate in float32, scores
and statistics are float64 on the host.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mine_jax.errors import ConfigError, MissingInputError

SCHEMA = 1
MAX_CONFIG_BYTES = 1 << 20


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Grid = Annotated[tuple[int, int], BeforeValidator(_as_tuple)]
Shape = Annotated[tuple[int, int, int], BeforeValidator(_as_tuple)]
Layers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Fractions = Annotated[tuple[Fraction, ...], BeforeValidator(_as_tuple)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of the configuration: frozen, unknown keys forbidden, no type coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataConfig(Section):
    """Stage 1: files on disk to responses and images."""

    kind: Literal["nsd", "folder", "phantom"] = "folder"
    # folder
    images: str | None = None  # folder or zip of photos
    responses: str | None = None  # .npy [N or trials, V], or a NIfTI series with `mask`
    image_ids: str | None = None  # one id per row of `responses`
    trials: str | None = None  # image_id, session, run per row; makes rows trials
    mask: str | None = None  # NIfTI, for a NIfTI series
    rois: str | None = None  # voxel_id, roi, and optionally i, j, k
    # nsd, phantom
    root: str | None = None  # folder that holds nsddata, nsddata_betas, nsddata_stimuli
    subject: str = "subj01"
    space: str = "func1pt8mm"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    beta_format: Literal["auto", "hdf5", "nifti"] = "auto"
    roi: Names = ("nsdgeneral",)  # voxels of any of these areas; () for every voxel with data
    sessions: Annotated[int, Field(ge=1, le=40)] | None = None  # first so many; None for all found
    # phantom only: what to write when `root` does not hold the subject yet
    n_images: Annotated[int, Field(ge=20)] = 2500
    n_shared: Annotated[int, Field(ge=4)] = 400
    n_repeats: Annotated[int, Field(ge=1, le=3)] = 3
    ceiling: Annotated[float, Field(gt=0, lt=1)] = 0.6
    shape: Shape = (24, 24, 18)
    # all
    zscore: Literal["session", "run", "none"] = "session"  # parent
    test: Annotated[float, Field(gt=0, lt=1)] | str = "shared"  # fraction, "shared", or a file of image ids
    val: Annotated[float, Field(gt=0, lt=1)] = 0.15  # ours: share of the non-test images for early stopping
    min_noise_ceiling: Fraction = 0.0  # ours: below it a voxel gets status low_ceiling
    beta_scale: Literal["auto"] | float = "auto"  # divisor of integer betas (NSD: 300)
    index_base: Literal[0, 1] | None = None  # of numeric ids in `image_ids` and `trials`
    axis_order: Literal["auto", "xyzt", "tzyx"] = "auto"
    on_missing: Literal["error", "drop"] = "error"
    allow_leak: bool = False
    permute: bool = False  # control: responses are exchanged between images; nothing should be predicted
    max_pixels: Count = 50_000_000


class FeaturesConfig(Section):
    """Stage 2: images to image-tokens and a lens."""

    kind: Literal["clip", "siglip", "llava", "precomputed"] = "clip"
    model: str | None = None  # checkpoint directory, or "phantom"
    layer: int = -1  # not stated in the paper; ours: last
    words: str | None = None  # one word per line; default: the checkpoint's own list, else the shipped one
    templates: Names = ("a photo of a {}.",)  # parent (CLIP); `lens.json` of the checkpoint wins
    batch_size: Count = 64
    dtype: Literal["bfloat16", "float16", "float32"] = "float16"
    prompt: str = "USER: <image>\nDescribe the image. ASSISTANT:"  # llava; what follows <image> changes nothing
    weights: Literal["float32", "bfloat16"] = "float32"  # of the model in memory, and of its products
    more_layers: Layers = ()  # also stored, each in a folder of its own; not used by later stages
    reduce: Count | None = None  # PCA of the tokens to so many dimensions, None for none
    tokens: str | None = None  # precomputed: [N, P, D] .npy
    token_image_ids: str | None = None
    mask: str | None = None  # precomputed: [N, P] bool .npy
    unembedding: str | None = None  # precomputed: [W, D] .npy
    unembedding_bias: str | None = None
    grid: Grid | None = None


class EncoderConfig(Section):
    """Stage 3: tokens and responses to encoders."""

    kind: Literal["query", "ridge"] = "query"  # paper
    solver: Literal["varpro", "adam"] = "varpro"  # ours; paper: adam
    trunk: Literal["fixed", "shared"] = "fixed"  # ours; parent: shared
    width: Count = 96  # ours; paper: 512
    heads: Count = 1  # ours; paper: 128
    pool: Count = 1  # ours: side of token windows averaged before attention
    # ours: cosines per image side in the position term of each voxel and head; 0 for none
    position_order: Annotated[int, Field(ge=0, le=32)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 0.02  # ours; paper: 1.5e-5
    batch_size: Count = 64  # not stated in the paper; ours
    epochs: Annotated[int, Field(ge=0)] = 16  # not stated in the paper; ours
    patience: Count = 4  # ours: epochs without improvement before a voxel stops
    restarts: Annotated[int, Field(ge=0)] = 3  # ours: of a voxel that diverged, each at half the learning rate
    # ours: keys or tokens of one split up to so many bytes stay on the device, larger ones are streamed
    resident_bytes: Count = 4_294_967_296
    storage: Literal["float32", "bfloat16"] = "float32"  # ours: of keys and tokens during the fit
    reference: bool = True  # ours: also fits a ridge on the mean token, to compare with
    summary: Literal["mean", "grid"] = "mean"  # ridge: image-level features
    selection: Literal["kfold", "gcv", "loo"] = "kfold"  # ridge: how penalties are chosen
    missing: Literal["exclude", "mask"] = "exclude"  # ridge: voxels without a response to some images, or those images
    folds: Annotated[int, Field(ge=2)] = 5  # ours
    penalties: Annotated[int, Field(ge=3)] = 20  # ours: grid size
    penalty_low: float = -2.0  # log10, in units of n x mean feature variance / features
    penalty_high: float = 6.0


class AttributionConfig(Section):
    """Stage 5: which image-tokens drive a voxel."""

    method: Literal["exact", "autodiff"] = "exact"  # ours
    n_steps: Count = 32  # ours; parent: 50
    max_steps: Count = 256  # ours: pairs above `tolerance` get more steps, up to this
    tolerance: Annotated[float, Field(gt=0)] = 1e-3  # ours: completeness gap, share of the prediction range
    quadrature: Literal["gausslegendre", "midpoint"] = "gausslegendre"  # ours
    baseline: Literal["mean", "zero"] = "mean"  # parent
    reduce: Literal["sum", "abs"] = "sum"  # ours; parent: abs
    k: Count = 50  # paper
    n_images: Count = 48  # not stated in the paper; ours: images per voxel
    images: Literal["top", "random"] = "top"  # ours: highest predicted responses
    split: Literal["all", "train", "test"] = "all"  # train: images used for the fit
    min_r2: float = 0.01  # ours: voxels below it are not attributed
    sufficiency: Fraction = 0.9  # ours: level of the adaptive K
    n_random: Count = 5  # ours: random orders averaged in the curves
    keep_scores: bool = True  # ours: writes heat.npy, the scores of all tokens, for heat maps and controls


class DescriptionConfig(Section):
    """Stage 7 of the method: critical tokens to words."""

    m: Count = 10  # paper
    n_words: Count = 20  # ours: words kept per description


class ProfileConfig(Section):
    """Stage 8 of the method: descriptions to functional profiles."""

    faithfulness_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.75  # paper: upper quartile
    min_images: Count = 6  # ours
    n_words: Count = 20  # ours
    n_bootstrap: Count = 200  # ours
    n_permutations: Count = 2000  # ours
    min_r2: float = 0.02  # ours
    min_stability: float = 0.3  # ours: split-half correlation of the word table
    min_faithfulness: float = 0.5  # ours: median over the images used
    max_q: Fraction = 0.05  # ours


class ValidationConfig(Section):
    """Stage 9 of the method: generated and edited images."""

    # a diffusers pipeline directory, "phantom" (the embedded models), "oracle" (exact, phantom data only) or "none"
    generator: str = "none"
    editor: str = "none"  # also "fill": removal without a generative model
    conditions: Names = ("description", "random", "lowest")  # the controls are those of the paper
    n_pairs: Count = 48  # ours: (voxel, image) pairs
    n_seeds: Count = 2  # ours: images per pair and condition
    n_words: Count = 3  # ours: most words in a prompt or an edit
    min_weight: Fraction = 0.25  # ours: smallest weight of a word, relative to the first
    strengths: Fractions = ()  # ours: doses of the insertion besides the full one
    steps: Count | None = None  # denoising steps; None for the pipeline's default, as the next three
    guidance: Annotated[float, Field(ge=0)] | None = None
    image_guidance: Annotated[float, Field(ge=0)] | None = None
    size: Count | None = None  # side of generated images in pixels; edited ones are scaled to it and back
    evaluator: Literal["ridge", "none"] = "ridge"  # ours: independent of the describing encoder
    retries: Annotated[int, Field(ge=0)] = 2  # ours: of an image whose generator raised
    n_permutations: Count = 10_000  # ours
    n_bootstrap: Count = 2000  # ours


class RoiConfig(Section):
    """Stage 10 of the method: category-selective areas."""

    categories: dict[str, Names] = {}  # category -> words; default: the built-in lists
    min_voxels: Count = 5  # ours
    n_permutations: Count = 2000  # ours
    n_bootstrap: Count = 200  # ours


class RunConfig(Section):
    """How the work is done; never what comes out (but for `seed` and `precision`)."""

    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["default", "high", "highest"] = "highest"
    voxel_chunk: Count | None = None
    image_chunk: Count | None = None
    # devices along `voxel` and `data` (fits, attribution), `data` and `model` (features); {} for all there are
    mesh: dict[str, Count] = {}


class Config(Section):
    """All sections; `validation` and the later ones are optional in a file."""

    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    encoder: EncoderConfig = EncoderConfig()
    attribution: AttributionConfig = AttributionConfig()
    description: DescriptionConfig = DescriptionConfig()
    profile: ProfileConfig = ProfileConfig()
    validation: ValidationConfig = ValidationConfig()
    roi: RoiConfig = RoiConfig()
    run: RunConfig = RunConfig()


# Keys that hold paths: relative ones are relative to the TOML file.
PATHS = {
    "data": ("images", "responses", "image_ids", "trials", "mask", "rois", "root", "test"),
    "features": ("model", "words", "tokens", "token_image_ids", "mask", "unembedding", "unembedding_bias"),
    "validation": ("generator", "editor"),
}
# Values of path keys that are names, not paths.
NAMES = {"shared", "phantom", "oracle", "fill", "none"}


def read(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file, applies `section.key=value` overrides, resolves paths.

    Args:
        path: the TOML file, at most 1 MiB.
        overrides: values in TOML syntax; a bare word is taken as a string.

    Returns:
        The checked configuration.

    Raises:
        MissingInputError: if the file is not there.
        ConfigError: with every unknown key (and the nearest valid one), wrong type and
            value out of range, all at once.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(
            f"no configuration file at {path}. Write one, or start from configs/ in the repository."
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes; a configuration is a few hundred.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply(values, override)
    return from_dict(values, base=path.resolve().parent, source=str(path))


def from_dict(values: dict[str, Any], *, base: Path | None = None, source: str = "configuration") -> Config:
    """Checks a nested dictionary and resolves its relative paths against `base`.

    Raises:
        ConfigError: with all problems at once.
    """
    try:
        config = Config.model_validate(values)
    except pydantic.ValidationError as error:
        problems = "\n".join(f"  {_problem(detail)}" for detail in error.errors())
        raise ConfigError(f"{source} has {error.error_count()} problem(s):\n{problems}") from None
    return config if base is None else _resolved(config, base)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or len(parts) != 2 or not all(parts):
        raise ConfigError(f"an override must read section.key=value, but is {override!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    section = values.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise ConfigError(f"[{parts[0]}] must be a section, but is {section!r}.")
    section[parts[1]] = value


def _problem(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    name = ".".join(location)
    if detail["type"] != "extra_forbidden":
        return f"{name}: {detail['msg'].lower()}, but is {detail['input']!r}."
    section = Config.model_fields.get(location[0]) if len(location) > 1 else None
    model = section.annotation if section is not None else Config
    valid = list(getattr(model, "model_fields", {}))
    nearest = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Valid keys: {', '.join(sorted(valid))}."
    return f"{name}: unknown key. {hint}"


def _resolved(config: Config, base: Path) -> Config:
    sections = {}
    for section, keys in PATHS.items():
        model = getattr(config, section)
        paths = {key: getattr(model, key) for key in keys}
        update = {
            key: str((base / value).resolve())
            for key, value in paths.items()
            if isinstance(value, str) and value not in NAMES
        }
        sections[section] = model.model_copy(update=update)
    return config.model_copy(update=sections)
