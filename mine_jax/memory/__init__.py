"""What fits into memory, how much is held at once, arrays that stay in their files, rows of mostly zeros."""

from mine_jax.memory.chunks import Chunks as Chunks
from mine_jax.memory.chunks import chunk_size as chunk_size
from mine_jax.memory.chunks import images_at_once as images_at_once
from mine_jax.memory.chunks import padded_chunks as padded_chunks
from mine_jax.memory.chunks import voxels_at_once as voxels_at_once
from mine_jax.memory.plan import SAFE_SHARE as SAFE_SHARE
from mine_jax.memory.plan import Need as Need
from mine_jax.memory.plan import Plan as Plan
from mine_jax.memory.plan import fitting as fitting
from mine_jax.memory.plan import halving as halving
from mine_jax.memory.plan import in_chunks as in_chunks
from mine_jax.memory.plan import is_exhausted as is_exhausted
from mine_jax.memory.plan import plan_chunk as plan_chunk
from mine_jax.memory.plan import readable as readable
from mine_jax.memory.rows import ChosenRows as ChosenRows
from mine_jax.memory.rows import SideBySide as SideBySide
from mine_jax.memory.rows import read_columns as read_columns
from mine_jax.memory.rows import release as release
from mine_jax.memory.rows import take_rows as take_rows
from mine_jax.memory.sparse import BLOCK_BYTES as BLOCK_BYTES
from mine_jax.memory.sparse import SparseRows as SparseRows
from mine_jax.memory.sparse import blocks as blocks
from mine_jax.memory.sparse import concatenated as concatenated
from mine_jax.memory.sparse import empty_rows as empty_rows
from mine_jax.memory.sparse import sparse_rows as sparse_rows
from mine_jax.memory.sparse import summed_rows as summed_rows
