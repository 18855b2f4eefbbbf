"""What denoising does to the words of image-tokens: both models of the package, every combination of steps.

Run as ``python -m mine_jax.phantom.training.clip.localisation``; it prints the table of the README.
Means, thresholds and the centre of the lens are fitted on training scenes, scores are of held-out ones.
"""

import argparse
import itertools
import logging

import numpy as np

from mine_jax import features
from mine_jax.config import DENOISING_STEPS, EMBEDDED_MODELS, ClipConfig
from mine_jax.features.dense import denoise as denoising
from mine_jax.features.lens import build_lens
from mine_jax.phantom import scenes
from mine_jax.phantom.training.clip import corpus as clip_corpus
from mine_jax.phantom.training.clip import evaluation, train
from mine_jax.types import ImageTokens, Lens

_logger = logging.getLogger("mine_jax.phantom.training")
_BATCH = 100
_N_FITTING = 500
# Columns of the table, as `evaluation.lens_scores` names them.
COLUMNS = (
    *("concept_top5_box", "concept_top1_box", "other_top5_box", "concept_top5", "concept_top1"),
    *("place_top5", "place_top1", "outliers"),
)


_RULE = "---|" * (1 + len(COLUMNS))


def main() -> None:
    """Reads the command line and prints a table per model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(EMBEDDED_MODELS), help="names or checkpoint directories")
    parser.add_argument("--scenes", type=int, default=train.N_HELD_OUT, help="number of held-out scenes")
    parser.add_argument("--image-tokens", nargs="+", default=["states", "values"], help="as `features.image_tokens`")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    held_out = clip_corpus.render_corpus(options.scenes, seed=train.HELD_OUT_SEED)
    fitting = clip_corpus.render_corpus(_N_FITTING, seed=train.TRAINING_SEED, with_targets=False)
    for model, image_tokens in itertools.product(options.models, options.image_tokens):
        _logger.info("\n%s, %s\n\n| denoising | %s |\n|%s", model, image_tokens, " | ".join(COLUMNS), _RULE)
        for steps, scores in measured(model, held_out, fitting, image_tokens=image_tokens).items():
            _logger.info(
                "| %s | %s |", steps, " | ".join(f"{scores[name]:.3f}" if name in scores else "" for name in COLUMNS)
            )


def measured(
    model: str, held_out: clip_corpus.Corpus, fitting: clip_corpus.Corpus, *, image_tokens: str = "states"
) -> dict[str, dict[str, float]]:
    """Scores the words of a model's image-tokens under every combination of denoising steps.

    Args:
        model: as `features.model`.
        held_out: N scenes that are scored.
        fitting: scenes that everything is fitted on.
        image_tokens: as `features.image_tokens`.

    Returns:
        dict[str, dict[str, float]]: steps joined by " + ", "none" for none -> scores of `evaluation.lens_scores`,
        with the share of tokens that are outliers as "outliers" where that was asked.
    """
    backbone = features.load_backbone(ClipConfig.model_validate({"model": model, "image_tokens": image_tokens}))
    number = backbone.layers
    lens = build_lens(backbone, None, (), lambda done, total: None)
    assert lens is not None
    order = [lens.words.tolist().index(word) for word in scenes.VOCABULARY]
    known, scored = (_tokens(backbone, corpus.images, number) for corpus in (fitting, held_out))
    found = {}
    for steps in itertools.chain.from_iterable(
        itertools.combinations(DENOISING_STEPS, n) for n in range(len(DENOISING_STEPS) + 1)
    ):
        statistics = denoising.fitted(
            lambda: iter([(0, {number: known})]), layers=(number,), steps=steps, grid=backbone.grid
        )[number]
        centered = _centered(lens, denoising.denoise(known, statistics, steps=steps, grid=backbone.grid))
        tokens = denoising.denoise(scored, statistics, steps=steps, grid=backbone.grid)
        logits = np.asarray(features.lens_scores(centered, tokens))[..., order]
        scores = evaluation.lens_scores(held_out, logits)
        if statistics.threshold is not None:
            scores["outliers"] = float((np.linalg.norm(scored, axis=-1) > statistics.threshold).mean())
        found[" + ".join(steps) or "none"] = scores
    return found


def _tokens(backbone: features.Backbone, images: np.ndarray, layer: int) -> np.ndarray:
    """Image-tokens [N, P, D] float32 of images, uint8 [N, size, size, 3]."""
    batches = np.split(images, np.arange(_BATCH, len(images), _BATCH))
    encoded = [backbone.encode(backbone.preprocess(list(batch)), layers=(layer,))[layer] for batch in batches]
    return np.concatenate([np.asarray(tokens, np.float32) for tokens in encoded])


def _centered(lens: Lens, tokens: np.ndarray) -> Lens:
    """The lens, centered on tokens [N, P, D]."""
    ids = np.arange(len(tokens)).astype(str)
    return features.center_lens(lens, ImageTokens(np.asarray(tokens), ids))


if __name__ == "__main__":
    main()
