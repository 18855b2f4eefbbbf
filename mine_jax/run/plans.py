"""What `--dry-run` says of each stage: shapes, memory and work, from headers of files alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from mine_jax import artifacts, encoder, memory, sharding
from mine_jax.config import Config, FolderConfig, PhantomConfig, PrecomputedConfig, QueryConfig, RidgeConfig
from mine_jax.encoder import needs

_UNKNOWN = "sizes are known after the data and features stages"


def data_plan(config: Config, directory: Path) -> list[str]:
    """Says how many rows and voxels will be read."""
    del directory
    d = config.data
    if isinstance(d, PhantomConfig):
        return [f"phantom {d.subject}: {d.n_images} images x {d.n_repeats} repeats, written to disk where missing"]
    shape = _responses_shape(config)
    if shape is None:
        return [f"{d.kind}: voxels and images are counted when the files are opened"]
    return [f"responses [{shape[0]}, {shape[1]}]: {memory.readable(4 * shape[0] * shape[1])}"]


def features_plan(config: Config, directory: Path) -> list[str]:
    """Says how large the image-tokens are."""
    shape, f = _tokens_shape(config, directory), config.features
    if shape is None:
        source = (
            "the file" if isinstance(f, PrecomputedConfig) else f"{f.model or 'the model'}, batches of {f.batch_size}"
        )
        return [f"image-tokens of {source}"]
    return [f"image-tokens {list(shape)}, memory-mapped: {memory.readable(int(np.prod(shape)) * 2)} in half precision"]


def encoder_plan(config: Config, directory: Path) -> list[str]:
    """Says how many voxels are fitted at once, what that holds in memory, and how much is computed."""
    sizes = _sizes(config, directory)
    e, mesh, free = config.encoder, sharding.mesh(config.run.mesh), sharding.free_bytes()
    lines = _devices(mesh, free)
    if sizes is None:
        # one cell, no image, and tokens no narrower than the encoder: what does not fit then never will
        least = {"n_images": 0, "token_shape": (e.pool**2, e.width)}
        return [_UNKNOWN] + (_what_would_fit(e, 1, free, **least) if isinstance(e, QueryConfig) else [])
    n_images, n_voxels, n_tokens, token_width = sizes
    if isinstance(e, RidgeConfig):
        n_voxels_each = -(-n_voxels // sharding.n_shards(mesh, *sharding.DEVICES))
        planned = encoder.plan_ridge(
            e,
            n_images=n_images,
            n_voxels=n_voxels_each,
            token_shape=(n_tokens, token_width),
            wanted=config.run.voxel_chunk,
        )
        lines += [f"{n_voxels} voxels, {n_images} images, {e.folds} folds x {e.penalties} penalties"]
        return lines + _chunks(planned)
    n_voxels_each = -(-n_voxels // sharding.n_shards(mesh, sharding.VOXEL))
    planned = encoder.plan_query(
        e, n_images=n_images, n_voxels=n_voxels_each, token_shape=(n_tokens, token_width), wanted=config.run.voxel_chunk
    )
    n_cells, width = n_tokens // e.pool**2, min(e.width, token_width)
    # three products per training step, two products and one Gram matrix per closed-form readout
    work = 2 * n_images * n_voxels * e.heads * width * (5 * n_cells + e.heads * width) * (e.epochs + 1)
    lines += [f"{n_voxels} voxels, {n_images} images x {n_cells} cells x width {width}"]
    lines += [*_chunks(planned), f"work at most {work / 1e12:.2g} TFLOP"]
    return lines + _what_would_fit(e, planned.chunk, free, n_images=n_images, token_shape=(n_tokens, token_width))


def attribution_plan(config: Config, directory: Path) -> list[str]:
    """Says how many pairs will be attributed."""
    sizes = _sizes(config, directory)
    if sizes is None:
        return [_UNKNOWN]
    n_images, n_voxels, n_tokens, _ = sizes
    pairs = n_voxels * min(config.attribution.n_images, n_images)
    scores = memory.readable(6 * pairs * n_tokens)
    return [f"at most {pairs} (voxel, image) pairs x {n_tokens} tokens: {scores} of scores on the host"]


def _devices(mesh: Mesh | None, free: int) -> list[str]:
    if mesh is None:
        return [f"1 device, {memory.readable(free)} free"]
    axes = " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items())
    return [f"{mesh.size} devices ({axes}), {memory.readable(free)} free on each"]


def _what_would_fit(
    e: QueryConfig, n_voxels: int, free: int, *, n_images: int, token_shape: tuple[int, int]
) -> list[str]:
    """Says that so many voxels at once exceed the free bytes of a device, and which settings would not."""

    def need(**settings) -> memory.Need:
        changed = e.model_copy(update=settings)
        return needs.query_need(changed, n_images=n_images, token_shape=token_shape)

    text, width, one = memory.readable, min(e.width, token_shape[1]), need()
    held = one.fixed + n_voxels * one.each
    if held <= free:
        return []
    voxels = "1 voxel" if n_voxels == 1 else f"{n_voxels} voxels"
    least = "about" if n_images else f"where image-tokens have {width} columns, at least"
    lines = [f"DOES NOT FIT: {voxels} at once on a device: {least} {text(held)}; {text(free)} are free"]
    size, together = e.heads * width, memory.fitting(one, free)
    if e.trunk == "shared":
        way = f"voxels that share a trunk are fitted together: about {together} fit (see data.roi), or add devices"
        return [*lines, way]
    if together:
        return [*lines, f"set run.voxel_chunk = {together}, or leave it out"]
    lines += [
        f"with a fixed trunk each of {e.heads} heads reads all {width} columns: "
        f"matrices of {size} x {size}, {text(4 * size**2)} each, for every voxel"
    ]
    if e.heads > 1 and width % e.heads == 0:
        lines += [
            f'set encoder.trunk = "shared": each head has {width // e.heads} columns of its own, '
            f"matrices of {width} x {width}, about {text(need(trunk='shared').each)} for every voxel"
        ]
    if n_images == 0:
        return lines
    heads = next((h for h in (e.heads >> n for n in range(1, 16)) if h and memory.fitting(need(heads=h), free)), None)
    return lines + ([] if heads is None else [f"or keep the fixed trunk with encoder.heads = {heads}"])


def _chunks(planned: memory.Planned) -> list[str]:
    held = memory.readable(planned.bytes)
    return [f"run.voxel_chunk = {planned.chunk} on each device, image-tokens included: about {held}"]


def _sizes(config: Config, directory: Path) -> tuple[int, int, int, int] | None:
    """Images, voxels, tokens per image and their width, where headers of inputs or earlier stages tell them."""
    responses = _npy_shape(str(directory / "data" / "responses.npy")) or _responses_shape(config)
    tokens = _tokens_shape(config, directory)
    if responses is None or tokens is None or len(responses) != 2 or len(tokens) != 3:
        return None
    return responses[0], responses[1], tokens[1], tokens[2]


def _tokens_shape(config: Config, directory: Path) -> tuple[int, ...] | None:
    store = directory / "features" / "meta.json"
    if store.is_file():
        shape = artifacts.read_json(store).get("shape")
        if shape:
            return tuple(shape)
    return _npy_shape(config.features.tokens) if isinstance(config.features, PrecomputedConfig) else None


def _responses_shape(config: Config) -> tuple[int, ...] | None:
    return _npy_shape(config.data.responses) if isinstance(config.data, FolderConfig) else None


def _npy_shape(path: str | None) -> tuple[int, ...] | None:
    if path is None or not path.endswith(".npy") or not Path(path).is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (ValueError, OSError):
        # a damaged file is an error of the data stage, which says more
        return None
