"""Images -> image-tokens of a frozen model, in fixed-shape batches, resumable.

Reading, decoding and preprocessing run in threads ahead of the device; every batch has the same
shape, so the model compiles once.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import ModelConfig
from mine_jax.errors import AlignmentError, CheckpointError, ConfigError, DataError
from mine_jax.features import store
from mine_jax.features.backbone import Backbone, resolve_layer
from mine_jax.memory.chunks import chunk_size
from mine_jax.types import ImageTokens, Stimuli

# Images per shard, rounded down to whole batches.
SHARD_IMAGES = 256
# Threads that read, decode and preprocess: Pillow and NumPy release the interpreter lock, h5py has its own.
MAX_THREADS = 4


@dataclass(frozen=True)
class Extraction:
    """Which image-tokens are kept, where and how; the same for every function of this stage.

    Attributes:
        places: layer, counted from 0 -> its store; None for all keeps them in memory. The first layer is the
            one that a lens reads.
        dtype: of the stored tokens: float16, bfloat16 or float32.
        batch_size: images encoded at once in new stores. Memory only.
    """

    places: Mapping[int, Path | None]
    dtype: str
    batch_size: int

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers, counted from 0."""
        return tuple(self.places)

    @property
    def numpy_dtype(self) -> np.dtype:
        """Dtype of the stored tokens."""
        return store.BFLOAT16 if self.dtype == "bfloat16" else np.dtype(self.dtype)


def configured(config: ModelConfig, n_layers: int, directory: Path | None) -> Extraction:
    """Returns what a configuration keeps of a model of so many blocks.

    Args:
        config: the `[features]` section of a kind that has a model.
        n_layers: blocks of the model.
        directory: store of the main layer; further ones go to `layer-NN` in it. None keeps tokens in memory.

    Returns:
        The extraction; its first layer is the main one.

    Raises:
        ConfigError: if there is no such layer, or no folder for further ones.
    """
    main = resolve_layer(config.layer, n_layers)
    more = sorted({resolve_layer(layer, n_layers) for layer in config.more_layers} - {main})
    if more and directory is None:
        raise ConfigError("`features.more_layers` needs a folder to write to.")
    folders = {number: directory / layer_name(number) for number in more if directory is not None}
    return Extraction({main: directory} | folders, config.dtype, config.batch_size)


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
    number = resolve_layer(layer, backbone.layers)
    extraction = Extraction({number: None if directory is None else Path(directory)}, dtype, batch_size)
    return extract_into(backbone, stimuli, extraction, progress)[number]


def extract_layers(
    backbone: Backbone,
    stimuli: Stimuli,
    *,
    layers: Sequence[int],
    directory: str | Path | None = None,
    dtype: str = "float16",
    batch_size: int = 64,
    progress: Progress = silent,
) -> dict[int, ImageTokens]:
    """Encodes every image once and keeps several layers, each in a store of its own.

    Args:
        backbone: the frozen model.
        stimuli: N images.
        layers: 0 (embeddings) to the number of blocks; negative counts from the end.
        directory: gets one store per layer, `layer-NN`; None keeps tokens in memory.
        dtype: as in `extract`.
        batch_size: as in `extract`.
        progress: called with (images done, N) after each batch.

    Returns:
        Layer, counted from 0 -> tokens [N, P, D].

    Raises:
        MineError: as `extract`.
    """
    numbers = sorted({resolve_layer(layer, backbone.layers) for layer in layers})
    if not numbers:
        raise ConfigError("`layers` names no layer to extract.")
    places = {n: None if directory is None else Path(directory) / layer_name(n) for n in numbers}
    return extract_into(backbone, stimuli, Extraction(places, dtype, batch_size), progress)


def layer_name(number: int) -> str:
    """Returns the folder of a further layer, counted from 0."""
    return f"layer-{number:02d}"


def extract_into(
    backbone: Backbone, stimuli: Stimuli, extraction: Extraction, progress: Progress
) -> dict[int, ImageTokens]:
    """Extracts several layers, each into its folder or all in memory.

    Args:
        backbone: the frozen model.
        stimuli: N images.
        extraction: what is kept.
        progress: called with (images done, N).

    Returns:
        Layer -> tokens [N, P, D].
    """
    stores = {number: folder for number, folder in extraction.places.items() if folder is not None}
    if len(stores) < len(extraction.places):
        return _in_memory(backbone, stimuli, extraction, progress)
    fill_stores(backbone, stimuli, extraction, progress)
    return {number: store.open_store(folder, verify=False) for number, folder in stores.items()}


def _in_memory(
    backbone: Backbone, stimuli: Stimuli, extraction: Extraction, progress: Progress
) -> dict[int, ImageTokens]:
    """Returns layer -> tokens [N, P, D], arrays in memory."""
    image_ids, dtype = np.asarray(stimuli.image_ids, dtype=str), extraction.numpy_dtype
    check_ids(image_ids)
    identities = {number: _identity(backbone, stimuli, number, dtype, None) for number in extraction.layers}
    starts, size = batch_starts(stimuli, extraction.batch_size)
    tokens = {number: np.empty(identity["shape"], dtype) for number, identity in identities.items()}
    for start, batch in encoded(backbone, stimuli, starts, size, extraction.layers, dtype):
        for number, rows in batch.items():
            tokens[number][start : start + len(rows)] = rows
        progress(min(start + size, len(image_ids)), len(image_ids))
    return {
        number: ImageTokens(array, image_ids, grid=backbone.grid, layer=number, model=identities[number]["model"])
        for number, array in tokens.items()
    }


def fill_stores(
    backbone: Backbone,
    stimuli: Stimuli,
    extraction: Extraction,
    progress: Progress,
    part: tuple[int, int] = store.WHOLE,
) -> bool:
    """Writes the shards that the stores of an extraction miss, or those of one part of them.

    Args:
        backbone: the frozen model.
        stimuli: all N images.
        extraction: what is kept; every layer has its store.
        progress: called with (images done, images of the part).
        part: (i, n): every n-th shard from the i-th.

    Returns:
        Whether all stores are whole now.
    """
    check_ids(np.asarray(stimuli.image_ids, dtype=str))
    _, size = batch_starts(stimuli, extraction.batch_size)
    shard_images = size * max(1, SHARD_IMAGES // size)
    contents = store.images_hash(np.asarray(stimuli.hashes, dtype=str)) or _pixels_hash(stimuli, size)
    writers: dict[int, store.TokenWriter] = {}
    for number, folder in extraction.places.items():
        assert folder is not None
        identity = _identity(backbone, stimuli, number, extraction.numpy_dtype, contents)
        sizes = {"shard_images": shard_images, "batch_size": size}
        writers[number] = store.TokenWriter(folder, identity, **sizes, part=part)
        # the first store decides where batches begin, for the others too
        first = next(iter(writers.values()))
        shard_images, size = first.shard_images, first.batch_size
        if (writers[number].shard_images, writers[number].batch_size) != (shard_images, size):
            raise CheckpointError(
                f"{folder} was written in other batches than {next(iter(extraction.places.values()))}, so both cannot "
                "be continued together. Delete one of them to extract it again."
            )
    _fill(writers, backbone, stimuli, extraction.numpy_dtype, progress)
    return all([writer.finish() for writer in writers.values()])


def batch_starts(stimuli: Stimuli, batch_size: int) -> tuple[range, int]:
    """Returns the first row of every batch, and the rows of a batch."""
    n_images = len(stimuli.image_ids)
    size = chunk_size(n_images, batch_size)
    return range(0, n_images, size), size


def _pixels_hash(stimuli: Stimuli, batch_size: int) -> str:
    """Returns one sha256 over the pixels of all images, for those whose files have no hashes."""
    digest = hashlib.sha256()
    for start in range(0, len(stimuli.image_ids), batch_size):
        for image in stimuli.read(stimuli.image_ids[start : start + batch_size].tolist()):
            digest.update(f"{image.shape} {image.dtype} ".encode())
            digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _identity(
    backbone: Backbone, stimuli: Stimuli, layer: int, dtype: np.dtype, contents: str | None
) -> dict[str, Any]:
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
        "images_sha256": contents,
    }


def _fill(
    writers: Mapping[int, store.TokenWriter], backbone: Backbone, stimuli: Stimuli, dtype: np.dtype, progress: Progress
) -> None:
    """Computes the shards that any layer misses, and writes those."""
    first = next(iter(writers.values()))
    n_images, shard_images = len(stimuli.image_ids), first.shard_images
    missing = sorted({shard for writer in writers.values() for shard in writer.missing})
    sizes = {shard: min(shard_images, n_images - shard * shard_images) for shard in first.shards}
    todo = {shard: sizes[shard] for shard in missing}
    total = sum(sizes.values())
    done = total - sum(todo.values())
    progress(done, total)
    starts = [
        start
        for shard, n in todo.items()
        for start in range(shard * shard_images, shard * shard_images + n, first.batch_size)
    ]
    parts: dict[int, list[np.ndarray]] = {number: [] for number in writers}
    for start, batch in encoded(backbone, stimuli, starts, first.batch_size, tuple(writers), dtype):
        shard, n_rows = start // shard_images, 0
        for number, writer in writers.items():
            parts[number].append(batch[number])
            n_rows = len(batch[number])
            if sum(map(len, parts[number])) == todo[shard]:
                if shard in writer.missing:
                    writer.write(shard, np.concatenate(parts[number]))
                parts[number] = []
        done += n_rows
        progress(done, total)


def encoded(
    backbone: Backbone, stimuli: Stimuli, starts: Iterable[int], size: int, layers: tuple[int, ...], dtype: np.dtype
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    """Yields (first row, layer -> tokens [n, P, D]) of the batches at `starts`.

    Args:
        backbone: the frozen model.
        stimuli: N images.
        starts: first rows of the batches wanted.
        size: rows of a batch; a shorter last one is padded for the model, not in the result.
        layers: as `Backbone.encode` takes them.
        dtype: of the tokens.

    Yields:
        As above, in the order of `starts`.

    Raises:
        DataError: for unusable images, or tokens outside the range of `dtype`.
    """
    image_ids = np.asarray(stimuli.image_ids, dtype=str)

    def load(start: int) -> tuple[int, int, np.ndarray]:
        ids = image_ids[start : start + size]
        images = stimuli.read(ids.tolist())
        if len(images) != len(ids):
            raise DataError(f"{len(ids)} images were asked of {stimuli.source or 'the stimuli'}, {len(images)} came.")
        pixels = _preprocessed(backbone, images, ids)
        return start, len(ids), np.concatenate([pixels, np.repeat(pixels[-1:], size - len(ids), axis=0)])

    def fetch(start: int, n_valid: int, tokens: Mapping[int, Any]) -> tuple[int, dict[int, np.ndarray]]:
        batch = {number: np.asarray(states)[:n_valid] for number, states in tokens.items()}
        for rows in batch.values():
            finite = np.isfinite(rows).all((1, 2))
            if not finite.all():
                first = str(image_ids[start + int(np.argmin(finite))])
                raise DataError(
                    f"image {first!r} has image-tokens outside the range of {dtype.name}. "
                    'Set `features.dtype` to "bfloat16" or "float32".'
                )
        return start, batch

    running = None
    for start, n_valid, pixels in ahead(load, starts):
        tokens = backbone.encode(pixels, layers=layers)
        # the device works on this batch while the one before is fetched and written
        waiting, running = running, (start, n_valid, {n: jnp.asarray(t).astype(dtype) for n, t in tokens.items()})
        if waiting is not None:
            yield fetch(*waiting)
    if running is not None:
        yield fetch(*running)


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


def ahead(load: Callable[[int], Any], starts: Iterable[int]) -> Iterator[Any]:
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


def check_ids(image_ids: np.ndarray) -> None:
    """Checks ids [N].

    Raises:
        DataError: if there are none.
        AlignmentError: if one occurs twice.
    """
    if len(image_ids) == 0:
        raise DataError("there are no images to encode. Is `data.images` the right folder?")
    unique, counts = np.unique(image_ids, return_counts=True)
    if len(unique) < len(image_ids):
        raise AlignmentError(f"image ids {unique[counts > 1][:5].tolist()} occur more than once among the stimuli.")
