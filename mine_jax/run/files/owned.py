"""The files of each stage, by name: what no stage lists here belongs to somebody else and is never touched."""

from __future__ import annotations

from mine_jax import artifacts, types

# Folders of what is fitted beside the voxels, in the folder of each stage.
DECOYS, HALVES = "decoys", ("halves/0", "halves/1")
RIVAL = "low_level"
_CONTROLS = (DECOYS, *HALVES)


def _typed(kind: type, *folders: str) -> tuple[str, ...]:
    """Globs of what `artifacts.save` writes for a type, in each folder."""
    return tuple(f"{folder}/{name}" for folder in folders for name in artifacts.names(kind))


def _within(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


def _beside(folder: str, controls: tuple[str, ...] = _CONTROLS) -> tuple[str, ...]:
    return (folder, *(f"{folder}/{name}" for name in controls))


_PHANTOM = _within(
    "phantom",
    *("phantom.json", "phantom_truth.tsv", "phantom_scenes.jsonl"),
    *("nsddata/*", "nsddata_betas/*", "nsddata_stimuli/*"),
)
# A store of tokens and what was fitted to them: extraction goes on with what is there.
_STORES = (
    *("features/meta.json", "features/mask.npy", "features/tokens-?????.npy", "features/part-*-of-*.json"),
    *("features/layer-??/meta.json", "features/layer-??/tokens-?????.npy", "features/layer-??/part-*-of-*.json"),
    *("features/denoising/meta.json", "features/denoising/position-*.npy"),
    *("features/reduction/meta.json", "features/reduction/mean-*.npy", "features/reduction/basis-*.npy"),
)
_IMAGES = tuple(
    f"validation/images/{name}{rest}"
    for name in ("generation", "exact_generation", "edits", "exact_edits", "masked_edits")
    for rest in ("-*.png", ".jsonl")
)
_WORK = ("validation/.work/*", "validation/images/.*.job/*")

# Stage -> globs of the files that it writes; several stages may write one file.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "data": (*_typed(types.Responses, "data"), "data/.*.npy", "images.tsv", "voxels.tsv", *_PHANTOM),
    "features": (*_STORES, *_typed(types.Lens, "features/lens"), *_typed(types.ImageTokens, f"features/{RIVAL}")),
    "encoder": (
        *(f"{folder}/{name}" for folder in _beside("encoder") for name in ("meta.json", "params/*", "images.json")),
        *_within("encoder", "layers.tsv", "voxel_layers.tsv"),
        *_typed(types.Scores, *_beside("scores", (DECOYS, "ridge", RIVAL))),
        f"scores/{RIVAL}/predicted.npy",
        "voxels.tsv",
    ),
    "attribution": (
        *_within("attribution", "pairs.tsv", "curves.tsv", "voxels.tsv", "tokens.npy", "scores.npy", "heat.npy"),
        *("attribution/meta.json", "attribution/image_ids.npy"),
        *_typed(types.Faithfulness, "attribution/faithfulness"),
        *_typed(types.CriticalTokens, *(f"attribution/{name}" for name in _CONTROLS)),
        *(f"attribution/{name}/faithfulness.npy" for name in _CONTROLS),
    ),
    "description": (
        *_typed(types.Descriptions, *_beside("description")),
        *_within("description", "corpus.*", "image_words.*.npy", "images.json"),
        *_within("description", "words.tsv", "sentences.tsv", "none.json"),
    ),
    "profile": (
        *_typed(types.Profiles, *_beside("profile", (DECOYS,))),
        *_within("profile", "words.tsv", "sentences.tsv", "voxels.tsv", "decoys.tsv", "none.json"),
        *_within("profile", "ledger.tsv", "drivers.tsv", "conjunctions.tsv", "field.tsv"),
        "voxels.tsv",
    ),
    "validation": (
        *_within("validation", "generation.tsv", "edits.tsv", "voxels.tsv", "summary.tsv", "meta.json", "none.json"),
        *(*_IMAGES, *_WORK),
        *("voxels.tsv", "profile/voxels.tsv"),
    ),
    "roi": (
        *_within("roi", "selectivity.tsv", "structure.tsv", "contrasts.tsv"),
        *(
            f"maps/{name}"
            for stem in ("r2", "r2_normalized", "top_category", "top_word")
            for name in (f"{stem}.nii.gz", f"{stem}.tsv", f"?h.{stem}.func.gii", f"?h.{stem}.mgh")
        ),
    ),
    "report": ("report.html",),
}
# Stage -> those of its files that a stop leaves, because the stage itself checks them and goes on with them.
KEPT: dict[str, tuple[str, ...]] = {"data": _PHANTOM, "features": _STORES, "validation": (*_IMAGES, *_WORK)}
