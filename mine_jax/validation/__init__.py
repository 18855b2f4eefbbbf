"""Stage 7: generated and edited images move the response as the words say.

PyTorch and diffusers stay in `makers/diffusion.py`, which works in a process of its own.
"""

from mine_jax import _public
from mine_jax.validation.causal import causal_voxels as causal_voxels
from mine_jax.validation.causal import with_causal as with_causal
from mine_jax.validation.comparisons import compare as compare
from mine_jax.validation.comparisons import correlate as correlate
from mine_jax.validation.editing import compare_edits as compare_edits
from mine_jax.validation.editing import plan_edits as plan_edits
from mine_jax.validation.evaluators import independent_evaluator as independent_evaluator
from mine_jax.validation.generation import compare_generation as compare_generation
from mine_jax.validation.generation import plan_generation as plan_generation
from mine_jax.validation.inputs import Inputs as Inputs
from mine_jax.validation.inputs import Reading as Reading
from mine_jax.validation.inputs import Validation as Validation
from mine_jax.validation.makers.fill import FillEditor as FillEditor
from mine_jax.validation.makers.oracle import OracleEditor as OracleEditor
from mine_jax.validation.makers.oracle import OracleGenerator as OracleGenerator
from mine_jax.validation.makers.pictures import make_pictures as make_pictures
from mine_jax.validation.makers.process import make_in_process as make_in_process
from mine_jax.validation.makers.protocols import Editor as Editor
from mine_jax.validation.makers.protocols import Generator as Generator
from mine_jax.validation.makers.protocols import Instruction as Instruction
from mine_jax.validation.makers.protocols import Picture as Picture
from mine_jax.validation.makers.protocols import check_picture as check_picture
from mine_jax.validation.pairs import choose_pairs as choose_pairs
from mine_jax.validation.pairs import with_control_words as with_control_words
from mine_jax.validation.pairs import with_distractors as with_distractors
from mine_jax.validation.validate import validate as validate

__all__ = _public(globals())
