"""`python -m mine_jax`, and what `mine-jax` starts: loads the command line, and runs it."""

import signal


def main() -> None:
    """Runs the command line; a signal that comes while it is loaded ends the process at once, without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mine_jax import cli

    cli.main()


if __name__ == "__main__":
    main()
