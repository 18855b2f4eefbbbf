"""Files of a run: atomic writes, sha256, tables, and save/load of each type; never pickle."""

from mine_jax import _public
from mine_jax.artifacts.disk import atomic as atomic
from mine_jax.artifacts.disk import copy_folder as copy_folder
from mine_jax.artifacts.disk import described_by as described_by
from mine_jax.artifacts.disk import files_below as files_below
from mine_jax.artifacts.disk import member as member
from mine_jax.artifacts.disk import read_array as read_array
from mine_jax.artifacts.disk import read_array_dtype as read_array_dtype
from mine_jax.artifacts.disk import read_json as read_json
from mine_jax.artifacts.disk import sha256 as sha256
from mine_jax.artifacts.disk import write_array as write_array
from mine_jax.artifacts.disk import write_json as write_json
from mine_jax.artifacts.disk import write_text as write_text
from mine_jax.artifacts.saved import SCHEMA as SCHEMA
from mine_jax.artifacts.saved import delete as delete
from mine_jax.artifacts.saved import load as load
from mine_jax.artifacts.saved import names as names
from mine_jax.artifacts.saved import save as save
from mine_jax.artifacts.tables import read_table as read_table
from mine_jax.artifacts.tables import write_parts as write_parts
from mine_jax.artifacts.tables import write_table as write_table

__all__ = _public(globals())
