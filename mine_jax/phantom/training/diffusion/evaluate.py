"""Scores the phantom's diffusion models with the judge: pipeline directories in, numbers out.

Run as ``python -m mine_jax.phantom.training.diffusion.evaluate --weights DIR --sheets DIR``. DIR
holds the folders generator, editor and judge; the numbers go into each `training.json`. Scenes
and seeds are held out: no model was trained on them.
"""

import argparse
import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
from PIL import Image

from mine_jax.phantom import scenes
from mine_jax.phantom.training.diffusion import corpus, judge, train_judge

_logger = logging.getLogger("mine_jax.phantom.training")

HELD_OUT_SEED: Final = 990_040
N_STEPS: Final = 12
GUIDANCE_SCALE: Final = 3.0
BATCH_SIZE: Final = 32
_SHEET_COLUMNS: Final = 20


def main() -> None:
    """Reads the command line, scores and records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="holds generator, editor and judge")
    parser.add_argument("--sheets", type=Path, required=True, help="gets contact sheets as PNG")
    parser.add_argument("--repeats", type=int, default=4, help="images per concept and task")
    parser.add_argument("--steps", type=int, default=N_STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE_SCALE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="log the scores, record nothing")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.sheets.mkdir(parents=True, exist_ok=True)
    trained = judge.load(options.weights / "judge")
    sampling = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
    tasks = {
        "generator": lambda: evaluate_generator(
            load(options.weights / "generator"), trained, options.repeats, sampling, options.sheets
        ),
        "editor": lambda: evaluate_editor(
            load(options.weights / "editor"), trained, options.repeats, sampling, options.sheets
        ),
        "judge": lambda: {"reconstructed": evaluate_reconstructions(load(options.weights / "editor"), trained)},
    }
    for name, task in tasks.items():
        scores = task()
        _logger.info("%s %s", name, scores)
        if not options.dry_run:
            _record(options.weights / name / "training.json", scores, sampling)


def load(directory: Path) -> diffusers.DiffusionPipeline:
    """Reads a pipeline directory in float32, as a CPU needs it."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        directory, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def evaluate_generator(
    pipeline: diffusers.DiffusionPipeline, trained: judge.Judge, repeats: int, sampling: dict[str, Any], sheets: Path
) -> dict[str, Any]:
    """Generates every concept and asks the judge which ones it sees.

    Returns:
        dict[str, Any]: fraction of images that show the named thing or place; `chance` is the
        fraction that shows it when another one of the same kind was named.
    """
    asked = [concept for concept in scenes.CONCEPTS for _ in range(repeats)]
    prompts = [f"a photo of {_with_article(concept)}" for concept in asked]
    images = _in_batches(pipeline, prompts, sampling)
    write_sheet(sheets / "generated.png", images, columns=repeats * 5)
    seen = trained.present(images)
    columns = np.array([scenes.CONCEPTS.index(concept) for concept in asked])
    hits = seen[np.arange(len(asked)), columns]
    scores: dict[str, Any] = {"n_images": len(asked)}
    for kind, names in (("things", scenes.OBJECTS), ("places", scenes.PLACES)):
        rows = np.array([concept in names for concept in asked])
        known = np.array([scenes.CONCEPTS.index(name) for name in names])
        others = rows[:, None] & (columns[:, None] != known)
        scores[f"{kind}_present"] = round(float(hits[rows].mean()), 4)
        scores[f"{kind}_chance"] = round(float(seen[:, known][others].mean()), 4)
    scores["categories_present"] = _by_category(asked, hits)
    scores["scenes"] = _evaluate_captions(pipeline, trained, repeats * 25, sampling, sheets)
    return scores


def evaluate_editor(
    pipeline: diffusers.DiffusionPipeline, trained: judge.Judge, repeats: int, sampling: dict[str, Any], sheets: Path
) -> dict[str, Any]:
    """Inserts and removes every thing in held-out scenes and asks the judge what it sees.

    Returns:
        dict[str, Any]: fraction of images that show the thing before and after, and the mean
        absolute change outside the mask as a fraction of the range.
    """
    rng = np.random.default_rng(HELD_OUT_SEED)
    things, full, without, masks = [], [], [], []
    for concept in scenes.OBJECTS:
        for _ in range(repeats):
            scene = scenes.sample_scene(rng, concepts=[concept])
            things.append(scene.things[0])
            full.append(scenes.render(scene))
            without.append(scenes.render(scenes.remove_thing(scene, 0)))
            masks.append(corpus.box_mask(scenes.thing_masks(scene)[0]))
    columns = np.array([scenes.CONCEPTS.index(thing.concept) for thing in things])
    insertions = [f"add {scenes.caption(scenes.Scene((thing,)))}" for thing in things]
    removals = [f"remove the {thing.concept}" for thing in things]
    scores: dict[str, Any] = {"n_images": len(things)}
    for name, before, prompts in (
        ("insert", np.stack(without), insertions),
        ("remove", np.stack(full), removals),
    ):
        after = _in_batches(pipeline, prompts, sampling, images=before, masks=np.stack(masks))
        rows = np.arange(len(things))
        shown = {"before": before, "after": after}
        present = {when: trained.present(images)[rows, columns] for when, images in shown.items()}
        change = np.abs(after.astype(np.float32) - before).mean(axis=-1) / 255
        scores[name] = {
            "present_before": round(float(present["before"].mean()), 4),
            "present_after": round(float(present["after"].mean()), 4),
            "mean_change_outside": round(float(change[~np.stack(masks)].mean()), 4),
            "mean_change_inside": round(float(change[np.stack(masks)].mean()), 4),
        }
        if name == "insert":
            scores[name]["categories_present"] = _by_category([thing.concept for thing in things], present["after"])
            # The same region, filled with another thing: what the judge sees without being asked for.
            others = [insertions[(row + len(insertions) // 2) % len(insertions)] for row in rows]
            wrong = trained.present(_in_batches(pipeline, others, sampling, images=before, masks=np.stack(masks)))
            scores[name]["chance"] = round(float(wrong[rows, columns].mean()), 4)
        write_sheet(sheets / f"{name}.png", np.stack([before, after], axis=1).reshape(-1, *before.shape[1:]))
    return scores


def evaluate_reconstructions(pipeline: diffusers.DiffusionPipeline, trained: judge.Judge) -> dict[str, float]:
    """Scores the judge on held-out scenes after the autoencoder, the ceiling of every image made here.

    Returns:
        dict[str, float]: as `train_judge.rates`, and the signal-to-noise ratio in decibel.
    """
    images, shown = train_judge.render(300, seed=train_judge.HELD_OUT_SEED)
    with torch.inference_mode():
        decoded = pipeline.vae(judge.to_signal(images)).sample.clamp(-1, 1)
    rebuilt = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    error = np.square((rebuilt.astype(np.float32) - images) / 255).mean()
    return {**train_judge.rates(trained, rebuilt, shown), "decibel": round(float(-10 * np.log10(error)), 2)}


def write_sheet(path: Path, images: np.ndarray, *, columns: int = _SHEET_COLUMNS, border: int = 2) -> None:
    """Writes images uint8 [N, S, S, 3] side by side as a PNG."""
    size = images.shape[1] + border
    rows = -(-len(images) // columns)
    sheet = np.full((rows * size, columns * size, 3), 255, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet[row * size : row * size + size - border, column * size : column * size + size - border] = image
    Image.fromarray(sheet).save(path)


def _evaluate_captions(
    pipeline: diffusers.DiffusionPipeline, trained: judge.Judge, count: int, sampling: dict[str, Any], sheets: Path
) -> dict[str, float]:
    """Generates captions of held-out scenes with a thing or two, and finds their concepts again."""
    rng = np.random.default_rng(HELD_OUT_SEED + 1)
    sampled = [scenes.sample_scene(rng, n_things=(1, 2)) for _ in range(count)]
    images = _in_batches(pipeline, [scenes.caption(scene) for scene in sampled], sampling)
    write_sheet(sheets / "scenes.png", images)
    return train_judge.rates(trained, images, judge.labels(sampled))


def _in_batches(
    pipeline: diffusers.DiffusionPipeline,
    prompts: list[str],
    sampling: dict[str, Any],
    *,
    images: np.ndarray | None = None,
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Runs a pipeline with one seed per image: uint8 [N, 64, 64, 3]."""
    generated = []
    for start in range(0, len(prompts), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        inputs: dict[str, Any] = {}
        if images is not None and masks is not None:
            inputs["image"] = [Image.fromarray(image) for image in images[rows]]
            inputs["mask_image"] = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks[rows]]
        seeds = range(HELD_OUT_SEED + start, HELD_OUT_SEED + start + len(prompts[rows]))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        result = pipeline(prompt=prompts[rows], generator=generators, output_type="np", **inputs, **sampling)
        generated.append((np.clip(result.images, 0, 1) * 255).round().astype(np.uint8))
    return np.concatenate(generated)


def _by_category(names: list[str], hits: np.ndarray) -> dict[str, float]:
    """Mean of hits per category of the concept asked for."""
    categories = np.array([scenes.CATEGORY_OF[name] for name in names])
    return {category: round(float(hits[categories == category].mean()), 3) for category in dict.fromkeys(categories)}


def _with_article(concept: str) -> str:
    """The concept as the captions word it."""
    if concept in scenes.PLACES:
        return scenes.caption(scenes.Scene((), concept))
    return scenes.caption(scenes.Scene((scenes.Thing(concept, 32, 32, 20),)))


def _record(path: Path, scores: dict[str, Any], sampling: dict[str, Any]) -> None:
    """Merges scores into a `training.json`."""
    training = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    training["evaluation"] = {**scores, **sampling, "seed": HELD_OUT_SEED}
    training["versions"] = {
        **training.get("versions", {}),
        **{name: importlib.metadata.version(name) for name in ("diffusers", "torch", "transformers")},
    }
    path.write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
