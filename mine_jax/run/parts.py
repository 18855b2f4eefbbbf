"""One token store, several processes: what each of them does in a run directory.

The processes do not talk to each other. Each takes every n-th shard, and none takes the lock of the
directory; `features` without a part records the stage when they are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax

from mine_jax import features
from mine_jax.config import Config
from mine_jax.errors import CheckpointError
from mine_jax.run import files
from mine_jax.run.execute import Step, stale
from mine_jax.run.reporter import Reporter


def extract_part(
    config: Config, directory: str | Path, steps: Mapping[str, Step], *, part: tuple[int, int], reporter: Reporter
) -> list[str]:
    """Writes the token shards of one part of a run.

    Args:
        config: the configuration of the run.
        directory: the run directory, shared by the processes; its data stage must be up to date.
        steps: the stages, in order.
        part: (i, n), i from 0 to n - 1.
        reporter: shows progress.

    Returns:
        Lines that say what was done and what comes next.

    Raises:
        CheckpointError: if the data stage is not up to date, or the store is of another extraction.
        MineError: see `features.extract_part`.
    """
    directory = Path(directory)
    reason = stale(config, directory, steps)["data"]
    if reason is not None:
        raise CheckpointError(
            f"a part of stage features needs stage data, which is not up to date: {reason}. "
            "Run it first: mine-jax data."
        )
    stimuli = files.shown_stimuli(config, directory)
    with reporter.task("features") as progress, jax.default_matmul_precision(config.run.precision):
        is_whole = features.extract_part(
            config.features,
            stimuli,
            directory=directory / "features",
            part=part,
            progress=progress,
            precision=config.run.precision,
            mesh=config.run.mesh,
        )
    following = "all parts are there; mine-jax features without --shard completes the stage"
    return [
        f"features: part {part[0]} of {part[1]} done",
        following if is_whole else "other parts are still to be done",
    ]
