"""What makes images: generators and editors, and the process they work in.

`models` and `make` tie them to the stage and build on its other modules, so they are imported by name.
"""

from mine_jax.validation.makers.diffusion import PipelineEditor as PipelineEditor
from mine_jax.validation.makers.diffusion import PipelineGenerator as PipelineGenerator
from mine_jax.validation.makers.fill import FillEditor as FillEditor
from mine_jax.validation.makers.oracle import OracleEditor as OracleEditor
from mine_jax.validation.makers.oracle import OracleGenerator as OracleGenerator
from mine_jax.validation.makers.pictures import Item as Item
from mine_jax.validation.makers.pictures import make_pictures as make_pictures
from mine_jax.validation.makers.process import make_in_process as make_in_process
from mine_jax.validation.makers.protocols import Editor as Editor
from mine_jax.validation.makers.protocols import Generator as Generator
from mine_jax.validation.makers.protocols import Instruction as Instruction
from mine_jax.validation.makers.protocols import NotApplicableError as NotApplicableError
from mine_jax.validation.makers.protocols import Picture as Picture
from mine_jax.validation.makers.protocols import check_picture as check_picture
