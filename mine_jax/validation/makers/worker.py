"""The process that makes images with a pipeline: `python -m mine_jax.validation.makers.worker JOB.json`.

Started by `process.make_in_process`; reads the job, writes PNGs and the manifest, and ends
when the process that started it is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from mine_jax import artifacts
from mine_jax.errors import EXIT_RESOURCES, MineError
from mine_jax.validation.makers import diffusion, pictures

_STOP_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Does one job.

    Args:
        arguments: path of the job's JSON file.

    Returns:
        Exit code: 0, or that of the named error.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    path = Path(arguments[0])
    job = artifacts.read_json(path)
    items = [pictures.item_from_dict(item) for item in job["items"]]

    def progress(done: int, total: int) -> None:
        del total
        (path.parent / "done.txt").write_text(str(done), encoding="utf-8")

    try:
        model = diffusion.load(**job["loader"])
        diffusion.spare_threads(job["loader"]["directory"])
        pictures.make_pictures(
            items,
            model,
            Path(job["folder"]),
            name=job["name"],
            maker=job["maker"],
            retries=job["retries"],
            progress=progress,
        )
    except MineError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error}. Free space, then run the stage again.\n")
        return EXIT_RESOURCES
    return 0


def _stop_when_alone() -> None:
    # Standard input ends when the starting process does, however it dies. Read from the file itself: a thread that
    # waits in `sys.stdin` would hold a lock that the interpreter needs to exit.
    os.read(sys.stdin.fileno(), 1)
    signal.raise_signal(signal.SIGTERM)
    # a long call of a library answers no signal
    time.sleep(_STOP_S)
    os._exit(128 + signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
