"""The configuration: one pydantic model per stage, read from TOML.

Data, features and encoders come in kinds. Each kind is a model with the keys that it reads and no
others, so that a key that would do nothing is an error.

Defaults are tagged: `paper` (stated in MINE, arXiv 2605.16468), `parent` (a method it
builds on does it so), `ours`. Precision policy: tokens are stored in half precision,
parameters and optimiser state in float32, dot products accumulate in float32, scores
and statistics are float64 on the host.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from mine_jax.errors import ConfigError, MissingInputError

SCHEMA = 1
MAX_CONFIG_BYTES = 1 << 20
MAX_SEED = 1 << 63


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _count_or_share(value: Any) -> int | float:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if is_count or (isinstance(value, float) and 0 < value < 1):
        return value
    raise PydanticCustomError("count_or_share", "input should be a number of at least 1, or a share between 0 and 1")


@dataclass(frozen=True)
class PathKey:
    """Marks a key that holds a path; a relative one is relative to the TOML file.

    Attributes:
        names: values that are names, not paths.
        judges: whether a kind and a colon may stand before the path.
    """

    names: frozenset[str] = frozenset()
    judges: bool = False


Grid = Annotated[tuple[int, int], BeforeValidator(_as_tuple)]
Shape = Annotated[tuple[int, int, int], BeforeValidator(_as_tuple)]
Layers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Fractions = Annotated[tuple[Fraction, ...], BeforeValidator(_as_tuple)]
Count = Annotated[int, Field(ge=1)]
Exponent = Annotated[float, Field(ge=-30, le=30)]
UnitName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z -]{0,22}[A-Za-z]$")]
CountOrShare = Annotated[int | float, PlainValidator(_count_or_share)]
File = Annotated[str | None, PathKey()]
# `features.model` of the models in the package -> what follows the kind in the name of their folder: the image-tokens
# of the first were trained to name what they show, those of the second, as everywhere else, were not
EMBEDDED_MODELS = {"phantom": "", "phantom-captions": "-captions"}
DENOISING_STEPS = ("register", "position", "neighbors")
Checkpoint = Annotated[str | None, PathKey(frozenset(EMBEDDED_MODELS))]
Denoising = Annotated[tuple[Literal["register", "position", "neighbors"], ...], BeforeValidator(_as_tuple)]
TestImages = Annotated[Annotated[float, Field(gt=0, lt=1)] | str, PathKey(frozenset({"shared"}))]
Maker = Annotated[str, PathKey(frozenset({"phantom", "oracle", "fill", "none"}))]


def _judge(value: Any) -> Any:
    kind, _, model = value.partition(":") if isinstance(value, str) else ("", "", "")
    if value in ("ridge", "none") or (kind in JUDGING_KINDS and model):
        return value
    raise PydanticCustomError("judge", 'input should be "ridge", "none", or "clip:" or "siglip:" and a model directory')


# Kinds of features whose models may judge, before the colon of `validation.evaluator`.
JUDGING_KINDS = ("clip", "siglip")
Judge = Annotated[str, PlainValidator(_judge), PathKey(frozenset({"ridge", "none"}), judges=True)]


class Section(BaseModel):
    """A section of the configuration: frozen, unknown keys forbidden, no type coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _by_kind(default: type[Section]) -> tuple[Any, BeforeValidator]:
    """What makes a union of sections choose by `kind`; a section that names none is of the default's kind."""
    kind = default.model_fields["kind"].default

    def fill_in(value: Any) -> Any:
        return {"kind": kind, **value} if isinstance(value, dict) else value

    return Field(discriminator="kind"), BeforeValidator(fill_in)


class _Data(Section):
    """Keys of every kind of data."""

    subject: str = "subj01"
    unit_name: UnitName = "voxel"  # what pages call one column of the responses; changes no result
    zscore: Literal["session", "run", "none"] = "session"  # parent
    test: TestImages = "shared"  # fraction, "shared", or a file of image ids
    val: Annotated[float, Field(gt=0, lt=1)] = 0.15  # ours: share of the non-test images for early stopping
    min_noise_ceiling: Fraction = 0.0  # ours: below it a voxel gets status low_ceiling
    beta_scale: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"  # divisor of integer betas (NSD: 300)
    on_missing: Literal["error", "drop"] = "error"
    allow_leak: bool = False
    permute: bool = False  # control: responses are exchanged between images; nothing should be predicted

    @property
    def has_photos(self) -> bool:
        """Whether the images can be read; data sets without a key for them bring their own."""
        return getattr(self, "images", "") is not None


class PhotosConfig(_Data):
    """Keys of data whose photos lie in a folder."""

    images: File = None  # folder or zip of photos; without it only precomputed tokens can be used
    index_base: Literal[0, 1] | None = None  # of numeric ids in all lists of images
    max_pixels: Count = 50_000_000  # ours


class FolderConfig(PhotosConfig):
    """Stage 1: anyone's own photos and responses; `*` in a name: one file per session, `{hemi}`: both hemispheres."""

    kind: Literal["folder"] = "folder"
    responses: File = None  # .npy [N or trials, V], or series of NIfTI, MGH, GIFTI, CIFTI
    image_ids: File = None  # one id per row of `responses`
    trials: File = None  # image_id, session, run per row; makes rows trials
    mask: File = None  # 0 and 1 in the space of a series
    rois: File = None  # a table: voxel_id, roi, and optionally i, j, k; or an atlas in the space of a series
    roi_labels: File = None  # code and name of the areas of an atlas; default: in it, or the .tsv beside it


class BidsConfig(PhotosConfig):
    """Stage 1: single-trial betas in BIDS derivatives; the entities choose files where several could be meant."""

    kind: Literal["bids"] = "bids"
    root: File = None  # the derivatives: holds sub-*
    subject: str = "01"
    events: File = None  # data set with the tables of trials; default: `root`, then the data set around it
    image_column: str | None = None  # of the tables; default: the first of the usual ones
    task: str | None = None
    space: str | None = None
    desc: str | None = None
    stat: str | None = None
    suffix: str | None = None  # last part of file names: "betas", "statmap", ...
    sessions: Count | None = None  # first so many; None for all found
    mask: File = None  # 0 and 1; default: the brain mask in this space, or the voxels of the atlas
    rois: File = None  # an atlas, or a table: voxel_id, roi
    roi_labels: File = None  # code and name of the areas of an atlas


class LaionConfig(PhotosConfig):
    """Stage 1: a subject of LAION-fMRI, in its own file layout."""

    kind: Literal["laion_fmri"] = "laion_fmri"
    root: File = None  # holds derivatives/glmsingle-tedana, derivatives/rois and stimuli
    subject: str = "sub-01"
    roi: Names = ()  # voxels of any of these areas, "FFA1" or a category such as "face"; () for all with a model
    sessions: Count | None = None  # first so many; None for all found

    @property
    def has_photos(self) -> bool:
        """Whether the images can be read: without `images`, from the data set's own file."""
        return True


class AlgonautsConfig(_Data):
    """Stage 1: a subject of the Algonauts 2023 challenge; responses are averages over repeats."""

    kind: Literal["algonauts2023"] = "algonauts2023"
    root: File = None  # holds subj01 to subj08
    roi: Names = ()  # vertices of any of these areas; () for all


class ThingsConfig(PhotosConfig):
    """Stage 1: a subject of THINGS-fMRI."""

    kind: Literal["things"] = "things"
    root: File = None  # holds betas_csv, betas_vol, brainmasks
    subject: str = "01"
    format: Literal["tables", "volumes"] = "tables"
    roi: Names = ()  # areas of the voxel table; () for all voxels
    image_column: str | None = None  # of the tables of volumes; default: the first of the usual ones


class Bold5000Config(PhotosConfig):
    """Stage 1: a subject of BOLD5000."""

    kind: Literal["bold5000"] = "bold5000"
    root: File = None  # holds the unpacked release
    subject: str = "CSI1"
    release: Literal[1, 2] = 2
    format: Literal["rois", "volumes"] = "rois"  # volumes: release 2 only
    beta_version: str = "TYPED-FITHRF-GLMDENOISE-RR"  # of release 2
    roi: Names = ()  # "PPA", "LHPPA", ...; () for all; rois only


class _NsdLayout(_Data):
    """Keys of data in the file layout of the Natural Scenes Dataset."""

    root: File = None  # folder that holds nsddata, nsddata_betas, nsddata_stimuli
    space: str = "func1pt8mm"  # also "func1mm", and the surfaces "fsaverage" and "nativesurface"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    beta_format: Literal["auto", "hdf5", "nifti", "mgh"] = "auto"
    roi: Names = ("nsdgeneral",)  # voxels of any of these areas; () for every voxel with data
    sessions: Annotated[int, Field(ge=1, le=40)] | None = None  # first so many; None for all found
    axis_order: Literal["auto", "xyzt", "tzyx"] = "auto"


class NsdConfig(_NsdLayout):
    """Stage 1: a subject of the Natural Scenes Dataset."""

    kind: Literal["nsd"] = "nsd"


Ceiling = Annotated[float, Field(gt=0, lt=1)]


class PhantomConfig(_NsdLayout):
    """Stage 1: a simulated subject; the keys say what to write when `root` does not hold it yet."""

    kind: Literal["phantom"] = "phantom"
    n_images: Annotated[int, Field(ge=20)] = 2500
    n_shared: Annotated[int, Field(ge=4)] = 400
    n_repeats: Annotated[int, Field(ge=1, le=3)] = 3
    n_repeats_shared: Annotated[int, Field(ge=1, le=20)] | None = None
    # the mean, or the two ends between which noise ceilings are spread evenly
    ceiling: Ceiling | tuple[Ceiling, Ceiling] = 0.6
    shape: Shape = (24, 24, 18)


DataConfig = Annotated[
    FolderConfig
    | BidsConfig
    | NsdConfig
    | LaionConfig
    | ThingsConfig
    | AlgonautsConfig
    | Bold5000Config
    | PhantomConfig,
    *_by_kind(FolderConfig),
]


class _Features(Section):
    """Keys of every kind of features."""

    layer: int = -1  # not stated in the paper; ours: last
    words: File = None  # one word per line; default: the checkpoint's own list, else the shipped one
    # ours: also stores low-level statistics of the images, for the rival of every description; needs photos
    low_level: bool = True


class _Model(_Features):
    """Keys of features that a model computes."""

    model: Checkpoint = None  # checkpoint directory, or one of the package: "phantom", "phantom-captions"
    batch_size: Count = 64
    dtype: Literal["bfloat16", "float16", "float32"] = "float16"
    weights: Literal["float32", "bfloat16"] = "float32"  # of the model in memory, and of its products
    more_layers: Layers = ()  # also stored; the encoder stage says which layer predicts each voxel best
    # ours: what is done to tokens, always in the order of `DENOISING_STEPS`; () for nothing
    denoise: Denoising = ()
    reduce: Count | None = None  # PCA of the tokens to so many dimensions, None for none


class _Contrastive(_Model):
    """Keys of models that read words in sentences."""

    templates: Names = ("a photo of a {}.",)  # parent (CLIP); `lens.json` of the checkpoint wins


class ClipConfig(_Contrastive):
    """Stage 2: images to the image-tokens of a CLIP model and a lens."""

    kind: Literal["clip"] = "clip"
    # ours; values: what the class token becomes that looks at one image-token alone, for models of captions
    image_tokens: Literal["states", "values"] = "states"


class SiglipConfig(_Contrastive):
    """Stage 2: images to the image-tokens of a SigLIP model and a lens."""

    kind: Literal["siglip"] = "siglip"


class LlavaConfig(_Model):
    """Stage 2: images to the image-tokens of a LLaVA-style model and the lens of its head."""

    kind: Literal["llava"] = "llava"
    prompt: str = "USER: <image>\nDescribe the image. ASSISTANT:"  # what follows <image> changes nothing


class PrecomputedConfig(_Features):
    """Stage 2: image-tokens and a lens that were made elsewhere."""

    kind: Literal["precomputed"] = "precomputed"
    tokens: File = None  # [N, P, D] .npy
    token_image_ids: File = None
    index_base: Literal[0, 1] | None = None  # of numeric ids in `token_image_ids`; None for that of the data
    mask: File = None  # [N, P] bool .npy
    unembedding: File = None  # [W, D] .npy
    unembedding_bias: File = None
    grid: Grid | None = None


ModelConfig = ClipConfig | SiglipConfig | LlavaConfig
FeaturesConfig = Annotated[ClipConfig | SiglipConfig | LlavaConfig | PrecomputedConfig, *_by_kind(ClipConfig)]


class _Encoder(Section):
    """Keys of every kind of encoder; those of penalties also hold for the reference of a query encoder."""

    width: Count = 96  # ours; paper: 512
    # ours: voxels with exchanged responses, so many for each voxel (more where there are few): the null of every claim
    decoys: Annotated[int, Field(ge=0, le=15)] = 1
    halves: bool = True  # ours: refits on two halves of the training images, for the reliability of profiles
    pool: Count = 1  # ours: side of token windows averaged before attention, or before a ridge on the grid
    selection: Literal["kfold", "gcv", "loo"] = "kfold"  # ridge: how penalties are chosen
    folds: Annotated[int, Field(ge=2)] = 5  # ours
    penalties: Annotated[int, Field(ge=3)] = 20  # ours: grid size
    penalty_low: Exponent = -2.0  # log10, in units of n x mean feature variance / features
    penalty_high: Exponent = 6.0

    @pydantic.model_validator(mode="after")
    def _check_penalties(self) -> Self:
        if self.penalty_low >= self.penalty_high:
            raise PydanticCustomError("penalties", "`penalty_low` should be below `penalty_high`")
        return self


class QueryConfig(_Encoder):
    """Stage 3: tokens and responses to encoders with a query per voxel."""

    kind: Literal["query"] = "query"  # paper
    solver: Literal["varpro", "adam"] = "varpro"  # ours; paper: adam
    trunk: Literal["fixed", "shared"] = "fixed"  # ours; parent: shared
    heads: Count = 1  # ours; paper: 128
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
    # ours: queries of each voxel that are averaged, each with validation images of its own
    members: Annotated[int, Field(ge=1, le=16)] = 1
    # ours: adds a linear term on the grid of cells to the voxels whose validation images ask for it
    linear: bool = False
    linear_width: Count = 256  # ours: principal components of the grid that linear terms read, at most
    reference: bool = True  # ours: also fits a ridge on the mean token, to compare with


class RidgeConfig(_Encoder):
    """Stage 3: tokens and responses to linear encoders of image-level features."""

    kind: Literal["ridge"] = "ridge"
    summary: Literal["mean", "grid"] = "mean"  # image-level features
    missing: Literal["exclude", "mask"] = "exclude"  # voxels without a response to some images, or those images


EncoderConfig = Annotated[QueryConfig | RidgeConfig, *_by_kind(QueryConfig)]


class AttributionConfig(Section):
    """Stage 5: which image-tokens drive a voxel."""

    method: Literal["exact", "autodiff"] = "exact"  # ours
    n_steps: Count = 32  # ours; parent: 50
    max_steps: Count = 256  # ours: pairs above `tolerance` get more steps, up to this
    tolerance: Annotated[float, Field(gt=0)] = 1e-3  # ours: completeness gap, share of the prediction range
    quadrature: Literal["gausslegendre", "midpoint"] = "gausslegendre"  # ours
    baseline: Literal["mean", "zero"] = "mean"  # parent
    reduce: Literal["sum", "abs"] = "sum"  # ours; parent: abs
    k: CountOrShare = 50  # paper: so many image-tokens; a number between 0 and 1 is a share of them
    n_images: Count = 48  # not stated in the paper; ours: images per voxel
    images: Literal["top", "random"] = "top"  # ours: highest predicted responses
    split: Literal["all", "train", "test"] = "all"  # train: images used for the fit
    # ours: voxels below it on the images that chose their encoder are not attributed
    min_r2: Annotated[float, Field(le=1)] = 0.0
    sufficiency: Fraction = 0.9  # ours: level of the adaptive K
    n_random: Count = 5  # ours: random orders averaged in the curves
    keep_scores: bool = True  # ours: writes heat.npy, the scores of all tokens, for heat maps and controls


class DescriptionConfig(Section):
    """Stage 7 of the method: critical tokens to words."""

    m: Count = 10  # paper
    n_words: Count = 20  # ours: words kept per description


class ProfileConfig(Section):
    """Stage 8 of the method: descriptions to functional profiles."""

    faithfulness_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.5  # ours; paper: 0.75
    min_images: Count = 6  # ours
    n_words: Count = 20  # ours
    n_bootstrap: Count = 200  # ours
    n_permutations: Count = 2000  # ours
    max_q: Fraction = 0.05  # ours: of every claim
    min_share: Fraction = 0.2  # ours: r of the words beyond low-level features, as a share of the encoder's r
    max_rank: Fraction = 0.2  # ours: share of other voxels' words that predict the voxel no worse


class ValidationConfig(Section):
    """Stage 9 of the method: generated and edited images."""

    # a diffusers pipeline directory, "phantom" (the embedded models), "oracle" (exact, phantom data only) or "none"
    generator: Maker = "none"
    editor: Maker = "none"  # also "fill": removal without a generative model
    conditions: Names = ("description", "random", "lowest")  # the controls are those of the paper
    n_pairs: Count = 72  # ours: (voxel, image) pairs
    n_images: Count = 6  # ours: images of each voxel, so that each is tested
    n_seeds: Count = 1  # ours: images per pair and condition
    n_words: Count = 3  # ours: most words in a prompt or an edit
    min_weight: Fraction = 0.25  # ours: smallest weight of a word, relative to the first
    strengths: Fractions = ()  # ours: doses of the insertion besides the full one
    steps: Count | None = None  # denoising steps; None for the pipeline's default, as the next three
    guidance: Annotated[float, Field(ge=0)] | None = None
    image_guidance: Annotated[float, Field(ge=0)] | None = None
    size: Count | None = None  # side of generated images in pixels; edited ones are scaled to it and back
    # ours: independent of the describing encoder; "clip:DIR" adds one that sees images through another backbone
    evaluator: Judge = "ridge"
    retries: Annotated[int, Field(ge=0)] = 2  # ours: of an image whose generator raised
    n_permutations: Count = 10_000  # ours
    n_bootstrap: Count = 2000  # ours
    max_q: Fraction = 0.05  # ours: of voxels that their words move


class RoiConfig(Section):
    """Stage 10 of the method: category-selective areas."""

    categories: dict[str, Names] = {}  # category -> words; default: the built-in lists
    min_voxels: Count = 5  # ours
    min_enrichment: Fraction = 0.1  # ours: smallest difference of shares that is a preference
    min_worded: Fraction = 0.2  # ours: of the fitted voxels of an area that must reach `words`
    max_q: Fraction = 0.05  # ours: of preferences, structure and contrasts
    n_surrogates: Count = 500  # ours: maps as smooth as the measured ones
    n_permutations: Count = 2000  # ours
    n_bootstrap: Count = 200  # ours


class RunConfig(Section):
    """How the work is done; never what comes out (but for `seed` and `precision`)."""

    seed: Annotated[int, Field(ge=0, lt=MAX_SEED)] = 0
    precision: Literal["default", "high", "highest"] = "highest"
    voxel_chunk: Count | None = None
    image_chunk: Count | None = None
    # devices along `voxel` and `data` (fits, attribution), `data` and `model` (features); {} for all there are
    mesh: dict[str, Count] = {}
    # where compiled programs are kept for the next run; "default" is the user's cache directory, "none" keeps none
    compilation_cache: Annotated[str, PathKey(frozenset({"default", "none"}))] = "default"


class Config(Section):
    """All sections; `validation` and the later ones are optional in a file."""

    data: DataConfig = FolderConfig()
    features: FeaturesConfig = ClipConfig()
    encoder: EncoderConfig = QueryConfig()
    attribution: AttributionConfig = AttributionConfig()
    description: DescriptionConfig = DescriptionConfig()
    profile: ProfileConfig = ProfileConfig()
    validation: ValidationConfig = ValidationConfig()
    roi: RoiConfig = RoiConfig()
    run: RunConfig = RunConfig()


def paths(section: Section) -> dict[str, str]:
    """Returns the keys of a section that hold a path, with the path; names such as "phantom" are left out."""
    values = {key: (getattr(section, key), field.metadata) for key, field in type(section).model_fields.items()}
    return {
        key: (judging_model(value) if mark.judges else "") or value
        for key, (value, metadata) in values.items()
        for mark in metadata
        if isinstance(mark, PathKey) and isinstance(value, str) and value not in mark.names
        if not (mark.judges and judging_model(value) in EMBEDDED_MODELS)
    }


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
    config, problems = None, _with_nul(values)
    try:
        config = Config.model_validate(values)
    except pydantic.ValidationError as error:
        problems += [_problem(detail) for detail in error.errors()] + _behind_kinds(values, error)
    except RecursionError:
        problems += ["values are nested too deeply."]
    if config is None or problems:
        shown = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{source} has {len(problems)} problem(s):\n{shown}")
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
    except RecursionError:
        raise ConfigError(f"--set {key.strip()} holds a value that is nested too deeply.") from None
    section = values.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise ConfigError(f"[{parts[0]}] must be a section, but is {section!r}.")
    section[parts[1]] = value


def _with_nul(values: dict[str, Any]) -> list[str]:
    """Names the keys whose text holds a NUL character, which no path can."""
    return [
        f"{name}.{key}: must not hold a NUL character."
        for name, held in values.items()
        if isinstance(held, dict)
        for key, value in held.items()
        if any(isinstance(text, str) and "\0" in text for text in (value if isinstance(value, list) else [value]))
    ]


def _behind_kinds(values: dict[str, Any], error: pydantic.ValidationError) -> list[str]:
    """Says what else is wrong with sections of an unknown kind, taken as of the kind whose name is nearest."""
    problems = []
    for detail in error.errors():
        if detail["type"] != "union_tag_invalid":
            continue
        name = str(detail["loc"][0])
        nearest = difflib.get_close_matches(str(detail["ctx"]["tag"]), _kinds(name), n=1, cutoff=0.0)
        try:
            Config.model_validate({name: {**values[name], "kind": nearest[0]}})
        except pydantic.ValidationError as behind:
            problems += [f'{_problem(other)} (taken as kind "{nearest[0]}")' for other in behind.errors()]
    return problems


def _problem(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    kinds = _kinds(location[0]) if location else {}
    if detail["type"] == "union_tag_invalid":
        return f"{location[0]}.kind: must be {_listed(kinds, 'or')}, but is {detail['ctx']['tag']!r}."
    # pydantic puts the kind between the section and the key
    kind = location.pop(1) if kinds and len(location) > 1 else None
    name = ".".join(location)
    if detail["type"] != "extra_forbidden":
        return f"{name}: {detail['msg'].lower()}, but is {detail['input']!r}."
    if kind is not None:
        having = [other for other, model in kinds.items() if location[-1] in model.model_fields]
        if having:
            plural = "kinds" if len(having) > 1 else "kind"
            return f'{name}: kind "{kind}" has no such key; it belongs to {plural} {_listed(having, "and")}.'
        model = kinds[kind]
    else:
        section = Config.model_fields.get(location[0]) if len(location) > 1 else None
        model = section.annotation if section is not None else Config
    valid = list(getattr(model, "model_fields", {}))
    nearest = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Valid keys: {', '.join(sorted(valid))}."
    return f"{name}: unknown key. {hint}"


def _kinds(section: str) -> dict[str, type[Section]]:
    """The models of a section by kind; none where it has no kinds."""
    field = Config.model_fields.get(section)
    models = get_args(field.annotation) if field is not None else ()
    return {model.model_fields["kind"].default: model for model in models}


def _listed(kinds: Iterable[str], word: str) -> str:
    *first, last = [f'"{kind}"' for kind in kinds]
    return f"{', '.join(first)} {word} {last}" if first else last


def _resolved(config: Config, base: Path) -> Config:
    sections = {}
    for name in Config.model_fields:
        section: Section = getattr(config, name)
        update = {}
        for key, value in paths(section).items():
            prefix = getattr(section, key).removesuffix(value)  # "clip:" of an evaluator
            update[key] = f"{prefix}{(base / value).resolve()}"
        sections[name] = section.model_copy(update=update)
    return config.model_copy(update=sections)
