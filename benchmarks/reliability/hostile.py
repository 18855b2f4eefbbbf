"""A tiny data set on disk, and files in place of its own that were made to hurt."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

N_IMAGES, N_VOXELS, GRID, WIDTH = 48, 8, (4, 4), 16
WORDS = [f"w{letter}{other}" for letter in "abcdef" for other in "aeiou"]
CONFIG = """\
[data]
kind = "folder"
images = "photos"
responses = "responses.npy"
image_ids = "image_ids.txt"
test = 0.25
[features]
kind = "precomputed"
tokens = "tokens.npy"
token_image_ids = "image_ids.txt"
unembedding = "unembedding.npy"
words = "words.txt"
grid = [4, 4]
low_level = false
[encoder]
kind = "ridge"
folds = 3
decoys = 8
[attribution]
k = 4
n_images = 8
[profile]
n_permutations = 50
[validation]
generator = "none"
editor = "none"
[roi]
n_permutations = 50
"""


def write_data_set(folder: Path) -> Path:
    """Writes photos, tokens, responses and words of a few voxels, and returns the configuration that names them."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir(parents=True)
    ids = [f"image{i:03d}" for i in range(N_IMAGES)]
    for image_id in ids:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "photos" / f"{image_id}.png")
    tokens = rng.standard_normal((N_IMAGES, GRID[0] * GRID[1], WIDTH)).astype(np.float32)
    unembedding = rng.standard_normal((len(WORDS), WIDTH)).astype(np.float32)
    responses = 4 * tokens.mean(1) @ unembedding[:N_VOXELS].T + rng.standard_normal((N_IMAGES, N_VOXELS))
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "unembedding.npy", unembedding)
    np.save(folder / "responses.npy", responses.astype(np.float32))
    (folder / "image_ids.txt").write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    return folder / "config.toml"


def _photo(inputs: Path, rng: np.random.Generator) -> str:
    """Puts a photo of another format, size or of random bytes in the place of one."""
    made = io.BytesIO()
    kind = str(rng.choice(["bytes", "eps", "bomb", "mutated", "html", "frames", "deep"]))
    if kind == "bomb":
        Image.new("1", (20_000, 20_000)).save(made, format="PNG")
    elif kind == "mutated":
        form = str(rng.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF"]))
        Image.new("RGB", (16, 16), (9, 90, 9)).save(made, format=form)
        made = io.BytesIO(_mutated(made.getvalue(), rng))
    elif kind == "frames":
        Image.new("P", (16, 16)).save(made, format="GIF", save_all=True, append_images=[Image.new("P", (16, 16), 3)])
    elif kind == "deep":
        Image.new("I;16", (3, 1)).save(made, format="PNG")
    else:
        content = {"bytes": rng.bytes(300), "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"}
        made = io.BytesIO(content.get(kind, b"<html><script>alert(1)</script>"))
    (inputs / "photos" / f"image{rng.integers(N_IMAGES):03d}.png").write_bytes(made.getvalue())
    return kind


def _array(inputs: Path, rng: np.random.Generator) -> str:
    """Changes bytes of the header of an array, or writes one that claims much or holds objects."""
    path = inputs / str(rng.choice(["tokens.npy", "responses.npy", "unembedding.npy"]))
    content, kind = path.read_bytes(), str(rng.choice(["mutated", "huge", "objects", "nested", "nan"]))
    if kind == "mutated":
        path.write_bytes(_mutated(content[:128], rng) + content[128:])
    elif kind == "nan":
        values = np.load(path)
        values.ravel()[rng.integers(values.size, size=3)] = rng.choice([np.nan, np.inf, -np.inf])
        np.save(path, values)
    elif kind == "objects":
        np.save(path, np.array([{"a": 1}, [2]], dtype=object), allow_pickle=True)
    else:
        shape = "(9999999999, 9999999999)" if kind == "huge" else "(" * 60
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + content[128:])
    return f"{kind} {path.name}"


def _volume(inputs: Path, rng: np.random.Generator) -> str:
    """Names a NIfTI file with a random header as the responses."""
    header = bytearray(352)
    header[:4], header[344:348] = (348).to_bytes(4, "little"), b"n+1\0"
    header[40:56] = rng.integers(-3, 32_000, 8).astype("<i2").tobytes()
    header[70:74] = rng.choice([2, 4, 16, 64, 999, -1], 2).astype("<i2").tobytes()
    (inputs / "responses.nii").write_bytes(bytes(header) + rng.bytes(100))
    config = (inputs / "config.toml").read_text(encoding="utf-8")
    (inputs / "config.toml").write_text(config.replace("responses.npy", "responses.nii"), encoding="utf-8")
    return "header"


def _configuration(inputs: Path, rng: np.random.Generator) -> str:
    """Nests, repeats or damages the configuration."""
    path, kind = inputs / "config.toml", str(rng.choice(["nested", "tables", "mutated", "repeated", "large"]))
    text = path.read_text(encoding="utf-8")
    depth = int(rng.integers(100, 50_000))
    added = {
        "nested": "categories = " + "[" * depth,
        "tables": "categories = " + "{a = " * depth,
        "repeated": "[data]\nkind = 'folder'\n",
        "large": "# " + "x" * (2 << 20),
    }
    path.write_bytes(_mutated(text.encode(), rng) if kind == "mutated" else f"{text}{added[kind]}\n".encode())
    return kind


def _list(inputs: Path, rng: np.random.Generator) -> str:
    """Damages a list of ids or words."""
    path = inputs / str(rng.choice(["image_ids.txt", "words.txt"]))
    kind = str(rng.choice(["mutated", "bytes", "nul", "long", "repeated"]))
    content = path.read_bytes()
    made = {"bytes": rng.bytes(500), "nul": content.replace(b"\n", b"\0\n", 3), "long": content + b"x" * (1 << 20)}
    made |= {"repeated": content + content, "mutated": _mutated(content, rng)}
    path.write_bytes(made[kind])
    return f"{kind} {path.name}"


def _mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes a few bytes, or cuts the end off."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] = rng.integers(256)
    return bytes(changed[: rng.integers(1, len(changed))] if rng.random() < 0.2 else changed)


# What a file is in the place of -> writes it into the inputs, and says what it is.
FILES: dict[str, Callable[[Path, np.random.Generator], str]] = {
    "photo": _photo,
    "array": _array,
    "volume": _volume,
    "configuration": _configuration,
    "list": _list,
}
