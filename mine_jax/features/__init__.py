"""Stage 2: images -> image-tokens of a frozen model, and a lens to read them."""

from mine_jax import _public
from mine_jax.features.backbone import Backbone as Backbone
from mine_jax.features.backbone import check_folder as check_folder
from mine_jax.features.backbone import family_of as family_of
from mine_jax.features.backbone import load_backbone as load_backbone
from mine_jax.features.backbone import planned_tokens as planned_tokens
from mine_jax.features.backbone import resolve_layer as resolve_layer
from mine_jax.features.dense.denoise import denoise as denoise
from mine_jax.features.dense.denoise import denoise_like as denoise_like
from mine_jax.features.dense.reduce import reduce_like as reduce_like
from mine_jax.features.extract import extract as extract
from mine_jax.features.extract import extract_layers as extract_layers
from mine_jax.features.families.table import backbones as backbones
from mine_jax.features.families.table import usual_model as usual_model
from mine_jax.features.hub import fetched_files as fetched_files
from mine_jax.features.hub import hub_files as hub_files
from mine_jax.features.hub import hub_folder as hub_folder
from mine_jax.features.lens import center_lens as center_lens
from mine_jax.features.lens import lens_scores as lens_scores
from mine_jax.features.lens import project_tokens as project_tokens
from mine_jax.features.lens import read_words as read_words
from mine_jax.features.lens import reduced_lens as reduced_lens
from mine_jax.features.lens import visual_words as visual_words
from mine_jax.features.lens import why_no_lens as why_no_lens
from mine_jax.features.load import extract_part as extract_part
from mine_jax.features.load import load_backbone_like as load_backbone_like
from mine_jax.features.load import load_features as load_features
from mine_jax.features.low_level import LOW_LEVEL_GROUPS as LOW_LEVEL_GROUPS
from mine_jax.features.low_level import image_statistics as image_statistics
from mine_jax.features.low_level import low_level_statistics as low_level_statistics
from mine_jax.features.precomputed import load_precomputed as load_precomputed
from mine_jax.features.store import ShardedTokens as ShardedTokens
from mine_jax.features.store import open_store as open_store

__all__ = _public(globals())
