"""Compares runs on phantoms with what was planted: the numbers that real data cannot give."""

from mine_jax.run.recovery.claims import claims_table as claims_table
from mine_jax.run.recovery.compare import Compared as Compared
from mine_jax.run.recovery.compare import compare_run as compare_run
from mine_jax.run.recovery.compare import measures as measures
from mine_jax.run.recovery.compare import truth as truth
from mine_jax.run.recovery.opened import opened as opened
