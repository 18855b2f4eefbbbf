"""Devices and processes: the only folder that knows about either.

What goes where (`mesh`), several processes as one (`processes`), free bytes (`memory`), threads on the host (`cores`).
"""

from mine_jax.sharding.cores import available_cores as available_cores
from mine_jax.sharding.cores import own_cores as own_cores
from mine_jax.sharding.cores import single_thread as single_thread
from mine_jax.sharding.memory import free_bytes as free_bytes
from mine_jax.sharding.mesh import DATA as DATA
from mine_jax.sharding.mesh import DEVICES as DEVICES
from mine_jax.sharding.mesh import MODEL as MODEL
from mine_jax.sharding.mesh import VOXEL as VOXEL
from mine_jax.sharding.mesh import divided as divided
from mine_jax.sharding.mesh import host as host
from mine_jax.sharding.mesh import local as local
from mine_jax.sharding.mesh import mapped as mapped
from mine_jax.sharding.mesh import mesh as mesh
from mine_jax.sharding.mesh import model_mesh as model_mesh
from mine_jax.sharding.mesh import n_shards as n_shards
from mine_jax.sharding.mesh import on_device as on_device
from mine_jax.sharding.mesh import own_images as own_images
from mine_jax.sharding.mesh import padded as padded
from mine_jax.sharding.mesh import placed as placed
from mine_jax.sharding.mesh import platform as platform
from mine_jax.sharding.mesh import split_batch as split_batch
from mine_jax.sharding.mesh import summed as summed
from mine_jax.sharding.mesh import whole as whole
from mine_jax.sharding.processes import devices as devices
from mine_jax.sharding.processes import exchange as exchange
from mine_jax.sharding.processes import n_processes as n_processes
from mine_jax.sharding.processes import process_id as process_id
from mine_jax.sharding.processes import start as start
from mine_jax.sharding.processes import telling_others as telling_others
