"""The best words of every image-token, beside a plain matrix product with a full sort-free top-k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.peaks import Work
from mine_jax import description
from mine_jax.types import ImageTokens, Lens

HEADER = "equal work: ten best of the vocabulary for every token; the peer writes all scores first"
REFERENCE = "jax_plain"
M = 10


def inputs(case: Case, *, seed: int = 0) -> dict[str, Any]:
    """Makes tokens of a few images and a vocabulary of 64 E words."""
    rng = np.random.default_rng(seed)
    n_words = 64 * case.width
    tokens = rng.standard_normal((case.ig_images, case.tokens, case.width)).astype(np.float32)
    words = np.array([_letters(i) for i in range(n_words)])
    lens = Lens(words, rng.standard_normal((n_words, case.width)).astype(np.float32), np.zeros(n_words, np.float32))
    return {"lens": lens, "tokens": ImageTokens(tokens, np.array([str(i) for i in range(len(tokens))]))}


def implementations(case: Case, data: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; results are the best entries [I, P, M]."""
    del case
    lens, tokens = data["lens"], data["tokens"]
    unembedding = jnp.asarray(lens.unembedding)

    @jax.jit
    def plain(x: jax.Array) -> jax.Array:
        return jax.lax.top_k(jnp.einsum("ipd,wd->ipw", x, unembedding, precision="highest"), M)[1]

    def ours() -> dict[str, Any]:
        return {"best": description.top_words(lens, tokens, m=M).word_ids}

    return {"mine_jax": ours, "jax_plain": lambda: {"best": np.asarray(plain(jnp.asarray(tokens.tokens)))}}


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the share of tokens whose ten best differ, as the error."""
    same = (np.sort(result["best"], -1) == np.sort(reference["best"], -1)).all(-1)
    return {"max_abs_err": float(1 - same.mean())}


def work(case: Case, data: dict[str, Any]) -> dict[str, Work]:
    """Counts the product of tokens and words, both once and the best words, and one exponential per score."""
    n_words, width = data["lens"].unembedding.shape
    n_tokens = case.ig_images * case.tokens
    n_bytes = 4 * (n_tokens * width + n_words * width + 2 * n_tokens * M)
    return {"mine_jax": Work(2.0 * n_tokens * n_words * width, n_bytes, n_tokens * n_words)}


def _letters(number: int) -> str:
    """Writes a number as letters, so that it counts as a word."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:06d}") + "x"
