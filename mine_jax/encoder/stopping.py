"""Which voxels of a training loop go on, start again, or have stopped: early stopping per voxel."""

from __future__ import annotations

import numpy as np

from mine_jax.config import EncoderConfig

# A voxel explodes when its validation error is so many times that of its best epoch.
EXPLODED = 10.0


class Record:
    """Best validation R2, epochs since, restarts and learning rate of each voxel, and who has stopped."""

    def __init__(self, n_voxels: int, config: EncoderConfig):
        """Starts with V voxels that have no epoch yet."""
        self.best = np.full(n_voxels, -np.inf)
        self.since = np.zeros(n_voxels, int)
        self.restarts = np.zeros(n_voxels, int)
        self.diverged = np.zeros(n_voxels, bool)
        self._config = config

    @property
    def rate(self) -> np.ndarray:
        """Learning rates [V]; 0 for a voxel that has diverged."""
        return np.where(self.diverged, 0.0, self._config.learning_rate * 0.5**self.restarts)

    @property
    def finished(self) -> bool:
        """Whether no voxel is trained any more."""
        return bool(((self.since >= self._config.patience) | self.diverged).all())

    def update(self, r2: np.ndarray, finite: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes one epoch.

        Args:
            r2: validation R2 [V] float64.
            finite: [V] bool, whether all parameters of a voxel are finite.

        Returns:
            Who improved and who starts again from the best epoch, [V] bool each.
        """
        running = (self.since < self._config.patience) & ~self.diverged
        usable = finite & np.isfinite(r2)
        error, best_error = 1 - np.where(usable, r2, -np.inf), 1 - self.best
        failed = running & (~usable | ((error > EXPLODED * best_error) & (best_error > 0)))
        improved = running & usable & (r2 > self.best)
        if self._config.trunk == "shared":
            # one trunk serves all voxels, so all keep the epoch that is best on average
            better = np.where(usable, r2, -1.0).mean() > np.where(np.isfinite(self.best), self.best, -1e9).mean()
            improved = usable & better
        self.best = np.where(improved, r2, self.best)
        self.since = np.where(improved, 0, self.since + ~failed)
        # a voxel that never was usable has no state to go back to
        self.diverged |= failed & ((self.restarts >= self._config.restarts) | ~np.isfinite(self.best))
        self.restarts += failed & ~self.diverged
        return improved, failed
