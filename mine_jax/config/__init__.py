"""The configuration: one pydantic model per stage and kind, read from TOML.

Data, features and encoders come in kinds. Each kind is a model with the keys that it reads and no
others, so that a key that would do nothing is an error. Precision policy: tokens are stored in half
precision, parameters and optimiser state in float32, dot products accumulate in float32, scores and
statistics are float64 on the host.
"""

from mine_jax.config.data import AlgonautsConfig as AlgonautsConfig
from mine_jax.config.data import BidsConfig as BidsConfig
from mine_jax.config.data import Bold5000Config as Bold5000Config
from mine_jax.config.data import DataConfig as DataConfig
from mine_jax.config.data import FolderConfig as FolderConfig
from mine_jax.config.data import LaionConfig as LaionConfig
from mine_jax.config.data import NsdConfig as NsdConfig
from mine_jax.config.data import PhantomConfig as PhantomConfig
from mine_jax.config.data import PhotosConfig as PhotosConfig
from mine_jax.config.data import ThingsConfig as ThingsConfig
from mine_jax.config.encoder import EncoderConfig as EncoderConfig
from mine_jax.config.encoder import QueryConfig as QueryConfig
from mine_jax.config.encoder import RidgeConfig as RidgeConfig
from mine_jax.config.features import ClipConfig as ClipConfig
from mine_jax.config.features import DinoTxtConfig as DinoTxtConfig
from mine_jax.config.features import FeaturesConfig as FeaturesConfig
from mine_jax.config.features import LlavaConfig as LlavaConfig
from mine_jax.config.features import LlavaOnevisionConfig as LlavaOnevisionConfig
from mine_jax.config.features import ModelConfig as ModelConfig
from mine_jax.config.features import PrecomputedConfig as PrecomputedConfig
from mine_jax.config.features import QwenVlConfig as QwenVlConfig
from mine_jax.config.features import SiglipConfig as SiglipConfig
from mine_jax.config.features import SiglipNaflexConfig as SiglipNaflexConfig
from mine_jax.config.reading import MAX_CONFIG_BYTES as MAX_CONFIG_BYTES
from mine_jax.config.reading import from_dict as from_dict
from mine_jax.config.reading import read as read
from mine_jax.config.results import AttributionConfig as AttributionConfig
from mine_jax.config.results import DescriptionConfig as DescriptionConfig
from mine_jax.config.results import ProfileConfig as ProfileConfig
from mine_jax.config.results import RoiConfig as RoiConfig
from mine_jax.config.results import ValidationConfig as ValidationConfig
from mine_jax.config.sections import DENOISING_STEPS as DENOISING_STEPS
from mine_jax.config.sections import EMBEDDED_MODELS as EMBEDDED_MODELS
from mine_jax.config.sections import Section as Section
from mine_jax.config.whole import Config as Config
from mine_jax.config.whole import RunConfig as RunConfig
from mine_jax.config.whole import hub_id as hub_id
from mine_jax.config.whole import judging_features as judging_features
from mine_jax.config.whole import judging_model as judging_model
from mine_jax.config.whole import paths as paths
