"""Words in prompt templates -> token ids -> word vectors of a contrastive model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax._progress import Progress
from mine_jax.config import ClipConfig
from mine_jax.errors import ConfigError, DataError, MissingExtraError, WeightsError
from mine_jax.features.lens import check_words, text_lens_vectors
from mine_jax.features.ports import weights

TEMPLATES: tuple[str, ...] = ClipConfig.model_fields["templates"].default
# Texts encoded at once; memory only.
TEXT_BATCH = 128


def word_vectors(
    words: np.ndarray,
    templates: Sequence[str],
    *,
    tokenize: Callable[[list[str]], np.ndarray],
    encode: Callable[[np.ndarray], Any],
    progress: Progress,
) -> np.ndarray:
    """Encodes every word in every template and averages the templates.

    Args:
        words: [W] str.
        templates: prompts with one `{}`.
        tokenize: texts -> ids [B, T] int32.
        encode: ids -> text vectors [B, J].
        progress: called with (texts done, all texts).

    Returns:
        Centered unit vectors [W, J] float32, see `text_lens_vectors`.

    Raises:
        ConfigError: if a template has no place for the word.
    """
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ConfigError(f"`templates` must each hold one {{}} for the word, but are {list(templates)!r}.")
    ids = tokenize([template.replace("{}", word) for word in words for template in templates])
    vectors = []
    for start in range(0, len(ids), TEXT_BATCH):
        batch = ids[start : start + TEXT_BATCH]
        padded = np.concatenate([batch, np.repeat(batch[-1:], min(TEXT_BATCH, len(ids)) - len(batch), 0)])
        vectors.append(np.asarray(encode(padded))[: len(batch)])
        progress(start + len(batch), len(ids))
    return text_lens_vectors(np.concatenate(vectors).reshape(len(words), len(templates), -1))


def load_tokenizer(directory: Path) -> Any:
    """Loads the tokenizer of a checkpoint; nothing is downloaded or run from it.

    Raises:
        WeightsError: if its files are missing or unusable.
        MissingExtraError: if it needs a package that is not installed.
    """
    from transformers import AutoTokenizer

    tokenizer_config = directory / "tokenizer_config.json"
    if tokenizer_config.is_file():
        weights.read_model_json(tokenizer_config)
    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise MissingExtraError(
            f"the tokenizer in {directory} needs a package that is missing ({' '.join(str(error).split()):.200}). "
            "Tokenizers of SentencePiece need: pip install sentencepiece protobuf"
        ) from error
    except Exception as error:
        # parsers in Python and Rust raise whatever damaged files lead them to, also plain exceptions
        raise WeightsError(f"no usable tokenizer in {directory} ({error!s:.500}). Copy its files too.") from error


def check_tokenizer(tokenizer: Any, directory: Path, rows: int) -> None:
    """Compares the size of a tokenizer with the rows of the embedding that it indexes.

    Raises:
        WeightsError: if it has more tokens than rows, or less than half.
    """
    if not rows / 2 <= len(tokenizer) <= rows:
        raise WeightsError(
            f"the tokenizer in {directory} has {len(tokenizer)} tokens, but the text embedding has "
            f"{rows} rows. Are its files missing, or of another checkpoint?"
        )


def token_ids(tokenizer: Any, texts: Sequence[str], *, limit: int, length: int | None = None, pad: int = 0) -> Any:
    """Tokenizes texts, with the special tokens that the model was trained with.

    Args:
        tokenizer: of transformers.
        texts: the prompts.
        limit: most tokens that the text tower takes.
        length: tokens per row; None for the longest text.
        pad: id that fills rows at their end.

    Returns:
        Ids [B, T] int32.

    Raises:
        DataError: if a text is longer than `limit`.
    """
    rows = tokenizer(list(texts), add_special_tokens=True)["input_ids"]
    longest = max(len(row) for row in rows)
    if longest > limit:
        worst = max(range(len(rows)), key=lambda i: len(rows[i]))
        raise DataError(f"{texts[worst]!r} has {longest} tokens; the text tower takes {limit}. Shorten it.")
    ids = np.full((len(rows), length or longest), pad, np.int32)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids


def lens_defaults(directory: Path) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Returns words [W] and templates of `lens.json`; None where it has none.

    Raises:
        WeightsError: if they are no lists of strings.
    """
    path = directory / "lens.json"
    if not path.is_file():
        return None, None
    values = weights.read_model_json(path, max_bytes=weights.MAX_INDEX_BYTES)
    words, templates = values.get("words"), values.get("templates")
    for name, value in (("words", words), ("templates", templates)):
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise WeightsError(f"{path}: `{name}` must be a list of strings.")
    return (
        None if words is None else check_words(words, source=str(path)),
        None if templates is None else tuple(templates),
    )
