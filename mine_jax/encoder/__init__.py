"""Stage 3: image-tokens and responses to encoders, and their scores."""

from mine_jax import _public
from mine_jax.encoder.blocks import predict_blocks as predict_blocks
from mine_jax.encoder.blocks import top_images as top_images
from mine_jax.encoder.controls import MOST_IMAGES as MOST_IMAGES
from mine_jax.encoder.controls import Half as Half
from mine_jax.encoder.controls import Lags as Lags
from mine_jax.encoder.controls import Rival as Rival
from mine_jax.encoder.controls import add_decoys as add_decoys
from mine_jax.encoder.controls import compare_lags as compare_lags
from mine_jax.encoder.controls import fit_rival as fit_rival
from mine_jax.encoder.controls import halves as halves
from mine_jax.encoder.controls import is_decoy as is_decoy
from mine_jax.encoder.controls import n_copies as n_copies
from mine_jax.encoder.controls import together as together
from mine_jax.encoder.fit import fit as fit
from mine_jax.encoder.fit import fit_problem as fit_problem
from mine_jax.encoder.kinds import EncoderKind as EncoderKind
from mine_jax.encoder.kinds import model as model
from mine_jax.encoder.needs import plan_query as plan_query
from mine_jax.encoder.needs import plan_ridge as plan_ridge
from mine_jax.encoder.predict import check_token_width as check_token_width
from mine_jax.encoder.predict import predict as predict
from mine_jax.encoder.predict import predict_one as predict_one
from mine_jax.encoder.query.state import Problem as Problem
from mine_jax.encoder.query.state import State as State
from mine_jax.encoder.query.train import batches as batches
from mine_jax.encoder.query.train import fit_step as fit_step
from mine_jax.encoder.query.train import init_fit as init_fit
from mine_jax.encoder.query.train import solve_readouts as solve_readouts
from mine_jax.encoder.score import best_layers as best_layers
from mine_jax.encoder.score import score as score
from mine_jax.encoder.trunk import TokenMoments as TokenMoments
from mine_jax.encoder.trunk import token_moments as token_moments

__all__ = _public(globals())
