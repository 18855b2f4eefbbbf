"""Makes the images of a plan, once each: retries, statuses, and a manifest to resume from.

Every image is a PNG named by its row; beside them a manifest of JSON lines keeps prompt,
seed, status and sha256. What the manifest vouches for is not made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.validation.makers.protocols import Editor, Generator, Instruction, NotApplicableError, check_picture

RETRIES = 2
logger = logging.getLogger("mine_jax")


@dataclass(frozen=True)
class Item:
    """One image to make.

    Attributes:
        file: name of the PNG.
        text: prompt or instruction.
        seed: of the model's noise.
        action: "generate", or that of an `Instruction`.
        words: those meant by the text.
        image_id: image that is edited; "" for a new one.
        strength: 0..1, dose of an edit.
        size: height and width; None for the model's own.
        source: PNG of the image that is edited.
        mask: PNG, white where it may change; "" for everywhere.
    """

    file: str
    text: str
    seed: int
    action: str = "generate"
    words: tuple[str, ...] = ()
    image_id: str = ""
    strength: float = 1.0
    size: tuple[int, int] | None = None
    source: str = ""
    mask: str = ""


def make_pictures(
    items: Sequence[Item],
    model: Generator | Editor,
    folder: Path,
    *,
    name: str,
    maker: str,
    retries: int = RETRIES,
    batch_size: int = 4,
    progress: Progress = silent,
) -> dict[str, dict[str, Any]]:
    """Makes every image that the manifest does not have yet.

    Args:
        items: what to make; different file names.
        model: a generator for "generate" items, an editor for the others.
        folder: where the PNGs and the manifest lie.
        name: of the manifest, `<name>.jsonl`.
        maker: identity of the model: another one makes all images again.
        retries: how often an item that raised is tried again.
        batch_size: images asked for at once. Memory only.
        progress: called with (done, total) items.

    Returns:
        File name -> its record: status, seed, prompt, sha256, truncated_tokens, refit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = {item.file: _key(item, maker) for item in items}
    records = _valid(folder, name, keys)
    _write_manifest(folder, name, records)
    for path in _images(folder, name):
        if path.name not in records:
            path.unlink()
    same = {record["key"]: record for record in records.values()}
    todo = [item for item in items if item.file not in records]
    first = {keys[item.file]: item for item in reversed(todo) if keys[item.file] not in same}
    todo = [item for item in todo if first.get(keys[item.file]) is item]
    progress(len(items) - len(todo), len(items))
    for start in range(0, len(todo), batch_size):
        for item, answer, n_tries in _attempt(todo[start : start + batch_size], model, retries):
            record = {**_store(item, answer, folder), "key": keys[item.file], "n_tries": n_tries}
            records[item.file] = same[record["key"]] = record
            _append(folder, name, record)
        progress(len(items) - len(todo) + min(start + batch_size, len(todo)), len(items))
    for item in items:
        if item.file not in records:
            # the very same image was asked for twice
            records[item.file] = record = {**same[keys[item.file]], "file": item.file}
            if record["sha256"]:
                with artifacts.atomic(folder / item.file) as temporary:
                    shutil.copyfile(folder / same[keys[item.file]]["file"], temporary)
            _append(folder, name, record)
    return records


def read_manifest(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Reads a manifest of images.

    Args:
        folder: where it lies.
        name: of the manifest, without suffix.

    Returns:
        File name -> record; a line cut short by a kill is left out.
    """
    records = {}
    path = folder / f"{name}.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            record = json.loads(line)
            records[record["file"]] = record
    return records


def is_complete(items: Sequence[Item], folder: Path, *, name: str, maker: str) -> bool:
    """Tells whether the manifest vouches for every item.

    Args:
        items: what shall be there.
        folder: where the PNGs and the manifest lie.
        name: of the manifest.
        maker: identity of the model.
    """
    return len(_valid(folder, name, {item.file: _key(item, maker) for item in items})) == len(items)


def clear(folder: Path, name: str) -> None:
    """Deletes the images of a manifest and the manifest."""
    for path in (*_images(folder, name), folder / f"{name}.jsonl"):
        path.unlink(missing_ok=True)


def _images(folder: Path, name: str) -> list[Path]:
    """Lists the images of a manifest, and what a killed process left of one."""
    return [*folder.glob(f"{name}-*.png"), *folder.glob(f".{name}-*.png.*.tmp")]


def item_from_dict(values: dict[str, Any]) -> Item:
    """Restores an item from the JSON types of `dataclasses.asdict`."""
    known = {field.name: values[field.name] for field in fields(Item)}
    known["words"] = tuple(known["words"])
    known["size"] = None if known["size"] is None else tuple(known["size"])
    return Item(**known)


def write_png(path: Path, pixels: np.ndarray) -> str:
    """Writes uint8 [h, w, 3], or bool [h, w] as black and white, and returns the path as text."""
    array = np.asarray(pixels)
    image = Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array)
    # the manifest's sha256 tells a whole file from a torn one
    with artifacts.atomic(path, is_synced=False) as temporary:
        image.save(temporary, format="PNG")
    return str(path)


def read_png(path: str | Path) -> np.ndarray:
    """Reads uint8 [h, w, 3]."""
    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


class _Attempt(NamedTuple):
    """What a model answered for an item: an image, the status of one that there is not, or None."""

    item: Item
    answer: Any
    n_tries: int


def _attempt(items: list[Item], model: Any, retries: int) -> list[_Attempt]:
    """Makes a batch; if it fails or has the wrong length, each item alone."""
    if len(items) > 1:
        try:
            answers = list(_call(model, items))
        except NotApplicableError:
            pass  # one of them; which one shows when each is asked for alone
        except Exception as error:
            logger.info("a batch of %d images failed (%s); one by one now", len(items), error)
        else:
            if len(answers) == len(items):
                return [_Attempt(item, answer, 1) for item, answer in zip(items, answers, strict=True)]
    return [_alone(item, model, retries) for item in items]


def _alone(item: Item, model: Any, retries: int) -> _Attempt:
    for attempt in range(retries + 1):
        try:
            answers = list(_call(model, [item]))
        except NotApplicableError:
            return _Attempt(item, "not_applicable", attempt + 1)
        except Exception as error:
            # Any model may stand behind the protocol, so any error may come; the item is lost, the rest is not.
            logger.warning(
                "%s: %s: %s (try %d of %d)", item.file, type(error).__name__, error, attempt + 1, retries + 1
            )
        else:
            if len(answers) == 1:
                return _Attempt(item, answers[0], attempt + 1)
            logger.warning("%s: %d images came instead of one", item.file, len(answers))
    return _Attempt(item, None, retries + 1)


def _call(model: Any, items: list[Item]) -> Sequence[Any]:
    seeds = [item.seed for item in items]
    if items[0].action == "generate":
        return model.generate([item.text for item in items], seeds=seeds, size=items[0].size)
    instructions = [
        Instruction(item.text, action=item.action, words=item.words, image_id=item.image_id, strength=item.strength)
        for item in items
    ]
    masks = [read_png(item.mask)[..., 0] > 127 for item in items] if all(item.mask for item in items) else None
    return model.edit([read_png(item.source) for item in items], instructions, seeds=seeds, masks=masks)


def _store(item: Item, answer: Any, folder: Path) -> dict[str, Any]:
    """Checks and writes one image; returns its record."""
    record: dict[str, Any] = {"file": item.file, "prompt": item.text, "seed": item.seed, "sha256": ""}
    if isinstance(answer, str):
        return {**record, "status": answer, "truncated_tokens": 0, "refit": False}
    before = read_png(item.source) if item.source else None
    picture = check_picture(answer, size=item.size, before=before, may_stay=item.action == "noop")
    if picture.pixels is not None:
        write_png(folder / item.file, picture.pixels)
        record["sha256"] = artifacts.sha256(folder / item.file)
    return {**record, "status": picture.status, "truncated_tokens": picture.truncated_tokens, "refit": picture.refit}


def _key(item: Item, maker: str) -> str:
    """Hash of everything that decides an image."""
    parts = {**asdict(item), "maker": maker}
    for name in ("source", "mask"):
        if parts[name]:
            parts[name] = artifacts.sha256(Path(parts[name]))
    del parts["file"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _valid(folder: Path, name: str, keys: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Records that still stand: same key, undamaged file; failed items are tried again."""
    valid = {}
    for file, record in read_manifest(folder, name).items():
        if record.get("key") != keys.get(file) or record.get("status") == "failed":
            continue
        path = folder / file
        if record["sha256"] and not (path.is_file() and artifacts.sha256(path) == record["sha256"]):
            continue
        valid[file] = record
    return valid


def _append(folder: Path, name: str, record: dict[str, Any]) -> None:
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _write_manifest(folder: Path, name: str, records: dict[str, dict[str, Any]]) -> None:
    artifacts.write_text(folder / f"{name}.jsonl", "".join(json.dumps(record) + "\n" for record in records.values()))
