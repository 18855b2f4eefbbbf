"""The description stage: turns critical image-tokens into words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mine_jax import description
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Reads words from tokens and describes every pair."""
    lens, critical = files.load_lens(directory), files.load_critical(directory)
    if lens is None or critical is None:
        reason = "no lens: features have no words" if lens is None else "no voxel was attributed"
        files.save_no_description(directory, reason)
        return {"pairs": 0, "reason": reason}
    words = description.top_words(
        lens,
        files.load_tokens(directory),
        m=config.description.m,
        image_chunk=config.run.image_chunk,
        progress=lambda done, total: progress(done, 2 * total),
    )
    shares = description.corpus_shares(words, files.splits_of_images(directory, words.image_ids))
    descriptions = description.describe(
        critical,
        words,
        corpus=shares.mean,
        n_words=config.description.n_words,
        folder=directory / "description",
        progress=lambda done, total: progress(total + done, 2 * total),
    )
    files.save_description(directory, descriptions, shares)
    n_voxels = len(descriptions.voxel_ids)

    def still(done: int, total: int) -> None:
        """Lets signals through; what is described beside the voxels does not count."""
        progress(2 * n_voxels, 2 * n_voxels)

    for control in (files.DECOYS, *files.HALVES):
        attributed = files.load_control_attribution(directory, control)
        if attributed is not None:
            described = description.describe(
                attributed[0],
                words,
                corpus=shares.mean,
                n_words=config.description.n_words,
                folder=directory / "description",
                progress=still,
            )
            files.save_control_descriptions(directory, control, described)
    vocabulary = words.vocabulary
    counts = {"words": len(vocabulary.words), "dropped": vocabulary.n_dropped, "merged": vocabulary.n_merged}
    return {"pairs": descriptions.image_ids.size, **counts}


STEP = Step(
    compute=compute,
    needs=("features", "attribution"),
    sections=("description", "run.precision"),
    outputs=files.OUTPUTS["description"],
    found=("{pairs} images of {units} in {words} words",),
)
