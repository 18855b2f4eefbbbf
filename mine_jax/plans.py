"""What `--dry-run` says of each stage: shapes, memory and work, from file headers alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mine_jax.config import Config

_UNKNOWN = "sizes are known after the data stage"


def data_plan(config: Config) -> list[str]:
    """Says how many rows and voxels will be read."""
    d = config.data
    if d.kind == "phantom":
        return [f"phantom {d.subject}: {d.n_images} images x {d.n_repeats} repeats, written to disk where missing"]
    shape = _npy_shape(d.responses)
    if shape is None:
        return [f"{d.kind}: voxels and images are counted when the files are opened"]
    return [f"responses [{shape[0]}, {shape[1]}]: {_bytes(4 * shape[0] * shape[1])}"]


def features_plan(config: Config) -> list[str]:
    """Says how large the image-tokens are."""
    shape = _npy_shape(config.features.tokens)
    if shape is None:
        return [f"image-tokens of {config.features.model or 'the model'}, batches of {config.features.batch_size}"]
    return [f"image-tokens {list(shape)}, memory-mapped: {_bytes(int(np.prod(shape)) * 2)} in half precision"]


def encoder_plan(config: Config) -> list[str]:
    """Says what the fit holds in memory and how much it computes."""
    sizes = _sizes(config)
    if sizes is None:
        return [_UNKNOWN]
    n_images, n_voxels, n_tokens = sizes
    e = config.encoder
    n_cells = n_tokens // e.pool**2
    chunk = min(n_voxels, config.run.voxel_chunk or 256)
    held = 4 * (n_images * n_cells * e.width + chunk * (e.heads * e.width) ** 2)
    # three products per training step, two products and one Gram matrix per closed-form readout
    work = 2 * n_images * n_voxels * e.heads * e.width * (5 * n_cells + e.heads * e.width) * (e.epochs + 1)
    if e.kind == "ridge":
        return [f"{n_voxels} voxels, {n_images} images, {e.folds} folds x {e.penalties} penalties"]
    return [
        f"{n_voxels} voxels in chunks of {chunk}, {n_images} images x {n_cells} cells x width {e.width}",
        f"memory about {_bytes(held)}, work at most {work / 1e12:.2g} TFLOP",
    ]


def attribution_plan(config: Config) -> list[str]:
    """Says how many pairs will be attributed."""
    sizes = _sizes(config)
    if sizes is None:
        return [_UNKNOWN]
    n_images, n_voxels, n_tokens = sizes
    pairs = n_voxels * min(config.attribution.n_images, n_images)
    return [f"at most {pairs} (voxel, image) pairs x {n_tokens} tokens: {_bytes(6 * pairs * n_tokens)} of scores"]


def _sizes(config: Config) -> tuple[int, int, int] | None:
    """Images, voxels and tokens per image, where file headers or the configuration tell them."""
    responses, tokens = _npy_shape(config.data.responses), _npy_shape(config.features.tokens)
    if responses is None or tokens is None:
        return None
    return responses[0], responses[1], tokens[1]


def _npy_shape(path: str | None) -> tuple[int, ...] | None:
    if path is None or not path.endswith(".npy") or not Path(path).is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (ValueError, OSError):
        # a damaged file is an error of the data stage, which says more
        return None


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
