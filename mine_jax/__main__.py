"""`python -m mine_jax`: the same as `mine-jax`."""

from mine_jax.cli import main

main()
