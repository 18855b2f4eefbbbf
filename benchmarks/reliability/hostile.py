"""A tiny data set on disk, and files in place of its own that were made to hurt."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from mine_jax.phantom.write_nsd import write_phantom

N_IMAGES, N_VOXELS, GRID, WIDTH = 48, 4, (4, 4), 16
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
n_images = 4
[profile]
n_permutations = 50
[validation]
generator = "none"
editor = "none"
[roi]
n_permutations = 50
"""
# A second data set beside it, whose values are in HDF5.
HDF5_CONFIG = """\
[data]
kind = "nsd"
root = "nsd"
roi = []
[features]
model = "phantom"
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


def write_hdf5_data_set(folder: Path) -> None:
    """Writes a small data set in HDF5, and `hdf5.toml` that names it."""
    write_phantom(folder / "nsd", subjects=("subj01",), n_images=30, n_shared=6, shape=(8, 8, 8))
    (folder / "hdf5.toml").write_text(HDF5_CONFIG, encoding="utf-8")


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


def _json(inputs: Path, rng: np.random.Generator) -> str:
    """Names test images in a JSON file that nests deeply, holds other types, or is damaged."""
    depth, kind = int(rng.integers(500, 200_000)), str(rng.choice(["lists", "tables", "types", "mutated", "numbers"]))
    ids = [f"image{i:03d}" for i in range(12)]
    made = {
        "lists": '{"test_ids": ' + "[" * depth + "]" * depth + "}",
        "tables": '{"variants": ' * depth + "1" + "}" * depth,
        "types": json.dumps({"test_ids": rng.choice(np.array([None, 3, "x", [[]], {}], dtype=object))}),
        "numbers": '{"test_ids": [' + "9" * depth + ", 1e999, NaN]}",
        "mutated": json.dumps({"test_ids": ids}),
    }
    content = made[kind].encode()
    (inputs / "split.json").write_bytes(_mutated(content, rng) if kind == "mutated" else content)
    config = (inputs / "config.toml").read_text(encoding="utf-8")
    (inputs / "config.toml").write_text(config.replace("test = 0.25", 'test = "split.json"'), encoding="utf-8")
    return kind


def _hdf5(inputs: Path, rng: np.random.Generator) -> str:
    """Puts an HDF5 file that reaches, nests, claims or is of other types in the place of betas or images."""
    name, pattern = [("betas", "betas_session01.hdf5"), ("imgBrick", "nsd_stimuli.hdf5")][rng.integers(2)]
    (path,) = (inputs / "nsd").rglob(pattern)
    with h5py.File(path) as file:
        values = file[name][...]
    kind = str(rng.choice(["mutated", *_HDF5]))
    if kind == "mutated":
        path.write_bytes(_mutated(path.read_bytes(), rng))
    else:
        path.unlink()
        with h5py.File(path, "w") as file:
            _HDF5[kind](file, name, values)
    return f"{kind} {pattern}"


def _external(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_dataset(name, values.shape, values.dtype, external=[("/etc/passwd", 0, values.nbytes)])


def _virtual(file: h5py.File, name: str, values: np.ndarray) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource("/tmp/other.h5", name, shape=values.shape)
    file.create_virtual_dataset(name, layout)


def _deep(file: h5py.File, name: str, values: np.ndarray) -> None:
    group = file
    for _ in range(3000):
        group = group.create_group("g")
    group[name] = values
    file[name] = h5py.SoftLink("/" + "g/" * 3000 + name)


def _cyclic(file: h5py.File, name: str, values: np.ndarray) -> None:
    group, file[name] = file, values
    for number in range(40):
        below = group.create_group(f"a{number}")
        group["b"], below["up"] = below, file
        group = below


def _compound(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_dataset(name, values.shape, np.dtype([("a", "i2"), ("b", "f4", (3,))]))


# How an HDF5 file is hostile -> writes values into it under a name.
_HDF5: dict[str, Callable[[h5py.File, str, np.ndarray], None]] = {
    "external": _external,
    "virtual": _virtual,
    "deep": _deep,
    "cyclic": _cyclic,
    "compound": _compound,
    "link": lambda file, name, values: file.update({name: h5py.ExternalLink("/tmp/other.h5", "/x")}),
    "dangling": lambda file, name, values: file.update({name: h5py.SoftLink("/nowhere")}),
    "itself": lambda file, name, values: file.update({name: h5py.SoftLink(f"/{name}")}),
    "group": lambda file, name, values: file.create_group(name),
    "type": lambda file, name, values: file.update({name: np.dtype("f8")}),
    "texts": lambda file, name, values: file.update({name: values.astype("S4")}),
    "references": lambda file, name, values: file.create_dataset(name, values.shape, h5py.ref_dtype),
    "huge": lambda file, name, values: file.create_dataset(name, (1 << 40,) * 4, values.dtype, chunks=(8,) * 4),
    "wide": lambda file, name, values: file.create_dataset(name, (30, 1 << 20, 1 << 20, 3), "u1", chunks=(1, 8, 8, 3)),
    "scalar": lambda file, name, values: file.create_dataset(name, data=values.ravel()[0]),
    "nothing": lambda file, name, values: file.create_dataset(name, data=h5py.Empty(values.dtype)),
    "empty": lambda file, name, values: None,
}


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
    "json": _json,
    "hdf5": _hdf5,
}
