"""What the phantom's simulated cortex truly does on an edited scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from mine_jax.phantom import cortex as cortex_module
from mine_jax.phantom import scenes, write_nsd
from mine_jax.phantom.cortex import Cortex
from mine_jax.phantom.scenes import Scene
from mine_jax.validation.makers import oracle
from mine_jax.validation.makers.protocols import Instruction, NotApplicableError

# Name of the truth where tables name who judges.
TRUTH = "simulated truth"


@dataclass(frozen=True)
class Truth:
    """The planted truth of a phantom subject.

    Attributes:
        scenes: image id -> scene.
        cortex: calibrated.
    """

    scenes: dict[str, Scene]
    cortex: Cortex

    def counterfactual(self, instruction: Instruction, *, seed: int, mask: np.ndarray | None = None) -> Scene | None:
        """Returns the scene after the exact edit; None where these words cannot be drawn or found.

        Args:
            instruction: the edit.
            seed: of its variant and position.
            mask: [h, w] bool, where something may be inserted.
        """
        try:
            return oracle.OracleEditor(self.scenes).scene(instruction, seed=seed, mask=mask)
        except NotApplicableError:
            return None

    def region(self, image_id: str, after: Scene) -> np.ndarray:
        """Returns the box around what an edit touches, bool [h, w]; the whole background for a place."""
        before = self.scenes[image_id]
        changed = oracle.changed_region(before, after)
        if before.place != after.place or not changed.any():
            return changed
        box = np.zeros_like(changed)
        rows, columns = np.nonzero(changed)
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        return box

    def responses(self, shown: Sequence[Scene], voxel_ids: np.ndarray) -> np.ndarray:
        """Computes noise-free responses to scenes.

        Args:
            shown: N scenes.
            voxel_ids: [V] voxels, each once; those that the phantom does not have give NaN.

        Returns:
            Responses [N, V] float64, in standard deviations over the phantom's own images.
        """
        out = np.full((len(shown), len(voxel_ids)), np.nan)
        known = np.isin(voxel_ids, self.cortex.voxel_ids)
        if len(shown) and known.any():
            rows = np.searchsorted(self.cortex.voxel_ids, np.asarray(voxel_ids)[known])
            out[:, known] = cortex_module.true_response(_take(self.cortex, rows), list(shown))
        return out


def read_truth(root: str | Path, *, subject: str) -> Truth:
    """Reads a phantom's scenes and one subject's cortex.

    Args:
        root: of the phantom data set.
        subject: its name.

    Returns:
        The truth.
    """
    by_image = {str(row): scene for row, scene in enumerate(write_nsd.read_scenes(root))}
    return Truth(by_image, write_nsd.read_cortex(root, subject=subject))


def words_hold(scene: Scene, words: Sequence[str], *, action: str) -> bool:
    """Tells whether an edit did what its words ask: all there after an insertion, none after a removal."""
    shown, drawable = scenes.scene_words(scene), [word for word in words if word in scenes.VOCABULARY]
    if action == "remove":
        return not shown & set(drawable)
    return bool(drawable) and set(drawable) <= shown


def _take(cortex: Cortex, rows: np.ndarray) -> Cortex:
    per_voxel = {
        field.name: getattr(cortex, field.name)[rows]
        for field in fields(cortex)
        if isinstance(getattr(cortex, field.name), np.ndarray) and field.name != "sheet"
    }
    return replace(cortex, **per_voxel)
