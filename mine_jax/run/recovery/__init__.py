"""Compares runs on phantoms with what was planted: the numbers that real data cannot give."""

from mine_jax.run.recovery.compare import truth as truth
