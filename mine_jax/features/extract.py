"""Images -> image-tokens of a frozen model, in fixed-shape batches, resumable.

Reading and preprocessing run in threads ahead of the device; every batch has the same
shape, so the model compiles once.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mine_jax import artifacts
from mine_jax._chunking import chunk_size
from mine_jax._progress import Progress, silent
from mine_jax.config import FeaturesConfig
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.features import store
from mine_jax.features.backbone import Backbone, load_backbone, resolve_layer
from mine_jax.features.lens import center_lens, read_words
from mine_jax.features.precomputed import load_precomputed
from mine_jax.types import ImageTokens, Lens, Stimuli

# Images per shard, rounded down to whole batches.
SHARD_IMAGES = 256
# Threads that read and preprocess; Pillow releases the interpreter lock.
MAX_THREADS = 4


def load_features(
    config: FeaturesConfig,
    stimuli: Stimuli | None,
    *,
    directory: str | Path | None = None,
    progress: Progress = silent,
    precision: str = "highest",
) -> tuple[ImageTokens, Lens | None]:
    """Runs the features stage: image-tokens and the lens that reads them.

    Args:
        config: the `[features]` section.
        stimuli: the N images; not needed for precomputed tokens.
        directory: the token store, `DIR/features` of a run; the lens goes to `lens` in it.
            None keeps everything in memory.
        progress: called with (images done, N).
        precision: of matrix products on accelerators.

    Returns:
        Tokens [N, P, D], and the lens over W words; None if there is no word list. The lens of a
        CLIP-type model is centered on these tokens.

    Raises:
        ConfigError: if a key that the kind needs is missing.
        MineError: what `extract` and `load_precomputed` raise.
    """
    directory = None if directory is None else Path(directory)
    if config.kind == "precomputed":
        tokens, lens = _precomputed(config, directory, progress)
    else:
        if stimuli is None:
            raise ConfigError(
                f"`features.kind` {config.kind!r} needs images. Set `data.images`, or give precomputed tokens."
            )
        backbone = load_backbone(config, precision=precision)
        default_words, default_templates = backbone.lens_defaults()
        words = default_words if config.words is None else read_words(config.words)
        lens, n_images = None, len(stimuli.image_ids)
        if words is not None:
            # counts stay images, so that one bar serves the whole stage
            templates = default_templates or config.templates
            lens = backbone.lens(words, templates, progress=lambda done, total: progress(0, n_images))
        tokens = extract(
            backbone,
            stimuli,
            layer=config.layer,
            directory=directory,
            dtype=config.dtype,
            batch_size=config.batch_size,
            progress=progress,
        )
        if lens is not None:
            lens = center_lens(lens, tokens, progress=lambda done, total: progress(n_images, n_images))
    if directory is not None:
        shutil.rmtree(directory / "lens", ignore_errors=True)
        if lens is not None:
            artifacts.save(lens, directory / "lens")
    return tokens, lens


def extract(
    backbone: Backbone,
    stimuli: Stimuli,
    *,
    layer: int = -1,
    directory: str | Path | None = None,
    dtype: str = "float16",
    batch_size: int = 64,
    progress: Progress = silent,
) -> ImageTokens:
    """Encodes every image once; resumes a store that was cut short.

    Args:
        backbone: the frozen model.
        stimuli: N images.
        layer: 0 (embeddings) to the number of blocks; negative counts from the end.
        directory: token store to write or go on with; None keeps tokens in memory.
        dtype: of the stored tokens: float16, bfloat16 or float32.
        batch_size: images encoded at once. Memory only; a resumed store keeps the one it began with.
        progress: called with (images done, N) after each batch.

    Returns:
        Tokens [N, P, D]; memory-mapped if `directory` is given. Its `layer` counts from 0.

    Raises:
        AlignmentError: if an image id occurs twice.
        CheckpointError: if `directory` holds tokens of other images, another model or layer.
        DataError: for no images, unusable ones, or tokens outside the range of `dtype`.
    """
    image_ids = np.asarray(stimuli.image_ids, dtype=str)
    _check_ids(image_ids)
    number = resolve_layer(layer, backbone.layers)
    kept = store.BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    identity = _identity(backbone, stimuli, number, kept)
    size = chunk_size(len(image_ids), batch_size)
    if directory is None:
        tokens = np.empty(identity["shape"], kept)
        starts = range(0, len(image_ids), size)
        for start, batch in _encoded(backbone, stimuli, starts, size, number, kept):
            tokens[start : start + len(batch)] = batch
            progress(start + len(batch), len(image_ids))
        return ImageTokens(tokens, image_ids, grid=backbone.grid, layer=number, model=identity["model"])
    shard_images = size * max(1, SHARD_IMAGES // size)
    writer = store.TokenWriter(Path(directory), identity, shard_images=shard_images, batch_size=size)
    _fill(writer, backbone, stimuli, number, kept, progress)
    return store.open_store(directory, verify=False)


def _identity(backbone: Backbone, stimuli: Stimuli, layer: int, dtype: np.dtype) -> dict[str, Any]:
    """Everything that decides the bytes of the tokens."""
    image_ids = np.asarray(stimuli.image_ids, dtype=str)
    return {
        "model": f"{backbone.name}:{backbone.sha256[:12]}",
        "model_sha256": backbone.sha256,
        "layer": layer,
        "dtype": dtype.name,
        "precision": backbone.precision,
        "grid": list(backbone.grid),
        "shape": [len(image_ids), backbone.grid[0] * backbone.grid[1], backbone.width],
        "processor": backbone.processor,
        "image_ids": image_ids.tolist(),
        "images_sha256": store.images_hash(np.asarray(stimuli.hashes, dtype=str)),
    }


def _fill(
    writer: store.TokenWriter, backbone: Backbone, stimuli: Stimuli, layer: int, dtype: np.dtype, progress: Progress
) -> None:
    """Computes and writes the missing shards."""
    n_images, shard_images = len(stimuli.image_ids), writer.shard_images
    todo = {shard: min(shard_images, n_images - shard * shard_images) for shard in writer.missing}
    done = n_images - sum(todo.values())
    progress(done, n_images)
    starts = [
        start
        for shard, n in todo.items()
        for start in range(shard * shard_images, shard * shard_images + n, writer.batch_size)
    ]
    parts: list[np.ndarray] = []
    for start, batch in _encoded(backbone, stimuli, starts, writer.batch_size, layer, dtype):
        parts.append(batch)
        shard = start // shard_images
        if sum(map(len, parts)) == todo[shard]:
            writer.write(shard, np.concatenate(parts))
            parts = []
        done += len(batch)
        progress(done, n_images)


def _encoded(
    backbone: Backbone, stimuli: Stimuli, starts: Iterable[int], size: int, layer: int, dtype: np.dtype
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, tokens [n, P, D]) for batches that begin at `starts`."""
    image_ids = np.asarray(stimuli.image_ids, dtype=str)
    lock = threading.Lock()

    def load(start: int) -> tuple[int, int, np.ndarray]:
        ids = image_ids[start : start + size]
        # one reader at a time: HDF5 and zip files are not safe to share
        with lock:
            images = stimuli.read(ids.tolist())
        if len(images) != len(ids):
            raise DataError(f"{len(ids)} images were asked of {stimuli.source or 'the stimuli'}, {len(images)} came.")
        pixels = _preprocessed(backbone, images, ids)
        return start, len(ids), np.concatenate([pixels, np.repeat(pixels[-1:], size - len(ids), axis=0)])

    for start, n_valid, pixels in _ahead(load, starts):
        tokens = backbone.encode(pixels, layers=(layer,))[layer]
        batch = np.asarray(jnp.asarray(tokens).astype(dtype))[:n_valid]
        finite = np.isfinite(batch).all((1, 2))
        if not finite.all():
            first = str(image_ids[start + int(np.argmin(finite))])
            raise DataError(
                f"image {first!r} has image-tokens outside the range of {dtype.name}. "
                'Set `features.dtype` to "bfloat16" or "float32".'
            )
        yield start, batch


def _preprocessed(backbone: Backbone, images: list[np.ndarray], ids: np.ndarray) -> np.ndarray:
    try:
        return backbone.preprocess(images)
    except DataError:
        for image, image_id in zip(images, ids, strict=True):
            try:
                backbone.preprocess([image])
            except DataError as error:
                raise DataError(f"image {str(image_id)!r} cannot be used: {error}") from error
        raise


def _ahead(load: Callable[[int], Any], starts: Iterable[int]) -> Iterator[Any]:
    """Yields load(start) in order, with a few calls running ahead in threads."""
    n_threads = min(MAX_THREADS, os.cpu_count() or 1)
    executor = ThreadPoolExecutor(n_threads, thread_name_prefix="mine_jax-images")
    waiting: deque[Future[Any]] = deque()
    try:
        for start in starts:
            waiting.append(executor.submit(load, start))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _check_ids(image_ids: np.ndarray) -> None:
    if len(image_ids) == 0:
        raise DataError("there are no images to encode. Is `data.images` the right folder?")
    unique, counts = np.unique(image_ids, return_counts=True)
    if len(unique) < len(image_ids):
        raise AlignmentError(f"image ids {unique[counts > 1][:5].tolist()} occur more than once among the stimuli.")


def _precomputed(config: FeaturesConfig, directory: Path | None, progress: Progress) -> tuple[ImageTokens, Lens | None]:
    if config.tokens is None or config.token_image_ids is None:
        raise ConfigError('`features.kind` "precomputed" needs `features.tokens` and `features.token_image_ids`.')
    tokens, lens = load_precomputed(
        config.tokens,
        config.token_image_ids,
        mask=config.mask,
        unembedding=config.unembedding,
        unembedding_bias=config.unembedding_bias,
        words=config.words,
        grid=config.grid,
        layer=config.layer,
        progress=progress,
    )
    if directory is not None:
        store.write_reference(directory, tokens, path=Path(config.tokens), rows=tokens.tokens.rows)
    return tokens, lens
