"""Which voxels of a training loop go on, start again, or have stopped: early stopping per voxel."""

from __future__ import annotations

import copy
import logging
from typing import NamedTuple

import numpy as np

from mine_jax.config import QueryConfig

# A voxel explodes when its validation error is so many times that of its best epoch.
EXPLODED = 10.0
# A shared trunk broke when more than this share of its voxels failed in one epoch: a few have failed themselves.
_BROKEN_SHARE = 0.5
_PER_VOXEL = ("best", "since", "restarts", "diverged")
logger = logging.getLogger("mine_jax")


class Changes(NamedTuple):
    """What one epoch means: voxels [V] that improved, and that start again; whether the trunk does too."""

    improved: np.ndarray
    restart: np.ndarray
    restart_trunk: bool


class Record:
    """Best validation R2, epochs since, restarts and learning rate of each voxel, and who has stopped.

    Voxels that share a trunk stop together and keep the same epoch. Those that fail have no part in the choice.
    """

    def __init__(self, n_voxels: int, config: QueryConfig) -> None:
        """Starts with V voxels that have no epoch yet."""
        self.best = np.full(n_voxels, -np.inf)
        self.since = np.zeros(n_voxels, int)
        self.restarts = np.zeros(n_voxels, int)
        self.diverged = np.zeros(n_voxels, bool)
        self.trunk_restarts = 0
        self.trunk_diverged = False
        self._config = config

    @property
    def running(self) -> np.ndarray:
        """Voxels [V] that may still improve."""
        return (self.since < self._config.patience) & ~self.diverged

    @property
    def rate(self) -> np.ndarray:
        """Learning rates [V]; 0 for a voxel that has diverged."""
        return np.where(self.diverged, 0.0, self._config.learning_rate * 0.5**self.restarts)

    @property
    def trunk_rate(self) -> float:
        """Learning rate of a shared trunk."""
        return self._config.learning_rate * 0.5**self.trunk_restarts

    @property
    def finished(self) -> bool:
        """Whether nothing is trained any more."""
        return self.trunk_diverged or not self.running.any()

    def take(self, voxels: np.ndarray) -> Record:
        """Returns the record of some voxels, positions [v], to go on by itself."""
        part = copy.copy(self)
        for name in _PER_VOXEL:
            setattr(part, name, getattr(self, name)[voxels])
        return part

    def put(self, voxels: np.ndarray, part: Record) -> None:
        """Puts what became of some voxels, positions [v], in their place."""
        for name in _PER_VOXEL:
            getattr(self, name)[voxels] = getattr(part, name)

    def update(self, r2: np.ndarray, finite: np.ndarray) -> Changes:
        """Takes one epoch.

        Args:
            r2: validation R2 [V] float64.
            finite: [V] bool, whether all parameters of a voxel are finite.

        Returns:
            Who improved, who starts again from the best epoch (all, with a trunk that broke), and
            whether a shared trunk does.
        """
        running = self.running
        usable = finite & np.isfinite(r2)
        error, best_error = 1 - np.where(usable, r2, -np.inf), 1 - self.best
        failed = running & (~usable | ((error > EXPLODED * best_error) & (best_error > 0)))
        improved = better = running & usable & (r2 > self.best)
        waits, trunk_failed = ~failed, False
        if self._config.trunk == "shared":
            # one trunk serves all voxels, so all keep the epoch that is best on average
            counted, trunk_failed = running & ~failed, self._trunk_failed(running, failed)
            better = not trunk_failed and counted.any() and r2[counted].mean() > self.best[counted].mean()
            improved, waits = counted & better, not trunk_failed
        self.best = np.where(improved, r2, self.best)
        self.since = np.where(better, 0, self.since + waits)
        self._count_failures(failed, trunk_failed=trunk_failed)
        return Changes(improved, failed | trunk_failed, trunk_failed)

    def _trunk_failed(self, running: np.ndarray, failed: np.ndarray) -> bool:
        # a voxel that never was usable says nothing about the trunk
        known = running & np.isfinite(self.best)
        return bool(known.any() and failed[known].mean() > _BROKEN_SHARE)

    def _count_failures(self, failed: np.ndarray, *, trunk_failed: bool) -> None:
        """Halves rates; gives up who failed too often. A voxel that failed with its trunk is not given up for that."""
        never_usable = ~np.isfinite(self.best)
        too_often = (self.restarts >= self._config.restarts) & (not trunk_failed)
        self.diverged |= failed & (never_usable | too_often)
        self.restarts += failed & ~self.diverged
        if trunk_failed:
            self.trunk_diverged = self.trunk_restarts >= self._config.restarts
            self.trunk_restarts += not self.trunk_diverged
        if self.trunk_diverged:
            logger.warning(
                "the shared trunk broke after %d restarts, each at half its learning rate; the fit ends with "
                "the best epoch so far. Lower encoder.learning_rate.",
                self.trunk_restarts,
            )
