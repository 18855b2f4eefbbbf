"""Tokens, ids and words from files -> checked image-tokens and a lens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._checks import check_shape
from mine_jax._numbers import count
from mine_jax._progress import Progress, silent
from mine_jax.data.ids import read as read_ids
from mine_jax.errors import AlignmentError, DataError, MissingInputError
from mine_jax.features.store import ShardedTokens, memory_map
from mine_jax.types import ImageTokens, Lens

_log = logging.getLogger("mine_jax")

# Bytes of tokens that are scanned for NaN at once.
BLOCK_BYTES = 1 << 26
DTYPES = ("float16", "bfloat16", "float32")


def load_precomputed(
    tokens: str | Path,
    image_ids: str | Path,
    *,
    mask: str | Path | None = None,
    unembedding: str | Path | None = None,
    unembedding_bias: str | Path | None = None,
    words: str | Path | None = None,
    grid: tuple[int, int] | None = None,
    layer: int = -1,
    name: Callable[[np.ndarray, str], np.ndarray] | None = None,
    progress: Progress = silent,
) -> tuple[ImageTokens, Lens | None]:
    """Opens image-tokens that were computed elsewhere, and checks every value once.

    Args:
        tokens: .npy [N, P, D] of float16, bfloat16 or float32; memory-mapped, never copied.
        image_ids: one id per line, or .npy [N]; row order of `tokens`.
        mask: .npy [N, P] bool, True where a token is real.
        unembedding: .npy [W, D]: a token's score for a word is their product.
        unembedding_bias: .npy [W].
        words: W words, one per line.
        grid: rows and columns of the tokens (row-major); their product is P.
        layer: where the tokens come from, for the record.
        name: takes the ids [N] and the name of their file, returns the image ids that they mean.
        progress: called with (images scanned, N).

    Returns:
        Tokens [N, P, D], and the lens over W words (no norm, no projection), or None without
        `unembedding`.

    Raises:
        MissingInputError: if a file is not there.
        AlignmentError: if the number of ids differs from N, or an id has two contents.
        DataError: for another dtype or shape, NaN or infinity (naming the first image).
    """
    path = Path(tokens)
    array = _open_tokens(path)
    ids = read_ids(image_ids)
    ids = ids if name is None else name(ids, str(image_ids))
    if len(ids) != len(array):
        raise AlignmentError(
            f"{path} holds tokens of {len(array)} images, but {image_ids} lists {len(ids)} ids. "
            "Each row of the tokens needs its id, in the same order."
        )
    n_tokens, width = array.shape[1:]
    if grid is not None and grid[0] * grid[1] != n_tokens:
        raise DataError(
            f"`features.grid` {list(grid)} has {grid[0] * grid[1]} positions, but {path} holds {n_tokens} tokens per "
            "image. Is a class token among them? Drop it."
        )
    real = None if mask is None else _read_mask(Path(mask), ids, n_tokens)
    _check_finite(array, ids, path, progress)
    rows = _first_rows(array, real, ids, path)
    lens = _lens(unembedding, unembedding_bias, words, width)
    if rows is not None:
        ids, real = ids[rows], None if real is None else real[rows]
    model = f"precomputed:{path.name}"
    return ImageTokens(ShardedTokens([array], rows), ids, mask=real, grid=grid, layer=layer, model=model), lens


def _open_tokens(path: Path) -> np.ndarray:
    header = artifacts.read_array(path, mmap=True)
    name = "bfloat16" if header.dtype == np.dtype("V2") else header.dtype.name
    if name not in DTYPES:
        raise DataError(f"{path} must be {', '.join(DTYPES)}, but is {header.dtype}. Save it as float16 or float32.")
    check_shape("features.tokens", header, "N P D", hint="For one vector per image save [N, 1, D]; drop class tokens.")
    if 0 in header.shape:
        raise DataError(f"{path} has shape {header.shape}: there are no tokens in it.")
    return memory_map(path)


def _read_mask(path: Path, ids: np.ndarray, n_tokens: int) -> np.ndarray:
    mask = artifacts.read_array(path)
    if mask.dtype != bool:
        raise DataError(
            f"{path} must be bool, but is {mask.dtype}. Save `mask.astype(bool)`, True where a token is real."
        )
    check_shape("features.mask", mask, "N P", N=len(ids), P=n_tokens)
    empty = ~mask.any(1)
    if empty.any():
        raise DataError(
            f"{path} masks every token of {count(empty.sum(), 'image')}, first {str(ids[empty.argmax()])!r}."
        )
    return mask


def _check_finite(array: np.ndarray, ids: np.ndarray, path: Path, progress: Progress) -> None:
    step = max(1, BLOCK_BYTES // (array[0].size * array.dtype.itemsize))
    for start in range(0, len(array), step):
        finite = np.isfinite(array[start : start + step]).all((1, 2))
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(
                f"{path} holds NaN or infinity, first in image {str(ids[row])!r} (row {row}). Extract it again."
            )
        progress(min(start + step, len(array)), len(array))


def _first_rows(array: np.ndarray, mask: np.ndarray | None, ids: np.ndarray, path: Path) -> np.ndarray | None:
    """Returns the first row of each id [N]; None if every id occurs once."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    if len(first) == len(ids):
        return None
    for row in np.flatnonzero(first[inverse] != np.arange(len(ids))):
        other = first[inverse[row]]
        same = np.array_equal(array[row], array[other]) and (mask is None or np.array_equal(mask[row], mask[other]))
        if not same:
            raise AlignmentError(
                f"{path}: image {str(ids[row])!r} has different tokens in rows {other} and {row}. "
                "Keep one row per image, or give the rows different ids."
            )
    _log.warning("%s: %d repeated rows with equal tokens are dropped", path, len(ids) - len(first))
    return np.sort(first)


def _lens(unembedding: str | Path | None, bias: str | Path | None, words: str | Path | None, width: int) -> Lens | None:
    if unembedding is None:
        return None
    if words is None:
        raise DataError("`features.unembedding` needs `features.words`, one word per row.")
    names = _read_vocabulary(Path(words))
    matrix = _read_float(Path(unembedding), "features.unembedding")
    check_shape(
        "features.unembedding", matrix, "W D", W=len(names), D=width, hint="One row per word, as wide as a token."
    )
    offsets = np.zeros(len(names), np.float32)
    if bias is not None:
        offsets = _read_float(Path(bias), "features.unembedding_bias")
        check_shape("features.unembedding_bias", offsets, "W", W=len(names))
    return Lens(words=names, unembedding=matrix, bias=offsets)


def _read_vocabulary(path: Path) -> np.ndarray:
    """Reads words [W], one per line; repeated and empty ones stay: lines are rows."""
    if not path.is_file():
        raise MissingInputError(f"no word list at {path}. Write one word per row of the unembedding.")
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    if lines[-1] == "":
        lines.pop()
    return np.asarray([line.rstrip("\r") for line in lines], dtype=str)


def _read_float(path: Path, name: str) -> np.ndarray:
    array = artifacts.read_array(path)
    if array.dtype.kind != "f":
        raise DataError(f"`{name}` must be float16, float32 or float64, but {path} is {array.dtype}.")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(1)))
        raise DataError(f"`{name}` holds NaN or infinity in float32, first in row {row} of {path}.")
    return array
