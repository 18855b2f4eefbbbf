"""Stage 3: image-tokens and responses to encoders, and their scores."""

from mine_jax.encoder.blocks import top_images as top_images
from mine_jax.encoder.fit import fit as fit
from mine_jax.encoder.needs import plan_query as plan_query
from mine_jax.encoder.needs import plan_ridge as plan_ridge
from mine_jax.encoder.predict import check_token_width as check_token_width
from mine_jax.encoder.predict import model as model
from mine_jax.encoder.predict import predict as predict
from mine_jax.encoder.predict import predict_one as predict_one
from mine_jax.encoder.score import score as score
