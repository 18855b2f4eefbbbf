"""Are words that the lens calls alike really alike? A check on real CLIP text vectors.

    python benchmarks/check_clip_text_lens.py DIRECTORY [--wordnet DIR] [--json FILE]

DIRECTORY holds CLIP ViT-B/32 text vectors of object names, as in `datasets/metadata` of
facebookresearch/Detic: `lvis_v1_clip_a+cname.npy` with `lvis_v1_train_cat_info.json`,
`o365_clip_a+cnamefix.npy` with `Objects365_names_fix.csv`, `oid_clip_a+cname.npy` with
`oid_names.txt`. Every vector is read through the lens of this package as if it were an image-token,
once with raw unit vectors of all words and once centered on both sides, as `ClipBackbone.lens` and
`center_lens` do. Printed for each:

- same name: share of names that stand in two lists whose nearest word among the other list's is the
  same name (chance: one over the length of that list);
- same kind: share of LVIS names whose nearest other LVIS name shares their WordNet category (animal,
  food, ...) and a hypernym at most three steps up (needs --wordnet, a folder with `data.noun` of
  WordNet 3.0), against two random names;
- shared word: share of names whose nearest other name shares a word with them;
- mean cosine of two words, and hubs: share of names whose nearest word is one of the 1 % most frequent ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import artifacts
from mine_jax.features import lens_scores
from mine_jax.features.lens import text_lens_vectors
from mine_jax.types import Lens

EXAMPLES = ("zebra", "sofa", "pizza", "traffic light", "violin", "banana", "sink", "bus", "crocodile", "laptop")
STEPS_UP = 3


def plain_name(name: str) -> str:
    """Returns a name in lower case without remarks, underscores and plural s."""
    name = re.sub(r"_?\(.*?\)", "", name).split("/")[0].replace("_", " ").strip().lower()
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def read_lists(directory: Path) -> dict[str, tuple[list[str], np.ndarray, list[str]]]:
    """Returns list -> (names, vectors [W, J], synsets or "")."""
    lvis = json.loads((directory / "lvis_v1_train_cat_info.json").read_text(encoding="utf-8"))
    lvis = sorted(lvis, key=lambda entry: entry["id"])
    with (directory / "Objects365_names_fix.csv").open(encoding="utf-8") as file:
        o365 = [row[2] for row in csv.reader(file) if row]
    oid = (directory / "oid_names.txt").read_text(encoding="utf-8").split("\n")
    files = {
        "LVIS": ("lvis_v1_clip_a+cname.npy", [e["name"] for e in lvis], [e["synset"] for e in lvis]),
        "Objects365": ("o365_clip_a+cnamefix.npy", o365, [""] * len(o365)),
        "Open Images": ("oid_clip_a+cname.npy", [n for n in oid if n.strip()], []),
    }
    lists = {}
    for title, (file_name, names, synsets) in files.items():
        vectors = np.load(directory / file_name, allow_pickle=False).astype(np.float32)
        if len(vectors) != len(names):
            raise SystemExit(f"{file_name} has {len(vectors)} rows, but there are {len(names)} names of {title}.")
        lists[title] = ([plain_name(name) for name in names], vectors, synsets or [""] * len(names))
    return lists


def scores_of(tokens: np.ndarray, words: np.ndarray, names: list[str], *, centered: bool) -> np.ndarray:
    """Reads vectors [N, J] through a lens over word vectors [W, J]: scores [N, W]."""
    unit = words / np.linalg.norm(words, axis=1, keepdims=True)
    center = (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).mean(0)
    lens = Lens(
        words=np.asarray(names),
        unembedding=text_lens_vectors(words[:, None]) if centered else unit,
        bias=np.zeros(len(words), np.float32),
        center=center if centered else None,
        normalize=True,
    )
    return np.array(lens_scores(lens, tokens))


def read_wordnet(folder: Path) -> dict[str, tuple[int, str, list[str]]]:
    """Returns offset -> (category, words, hypernym offsets) of nouns."""
    nouns = {}
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split(" ")
        n_words = int(fields[3], 16)
        pointers = fields[4 + 2 * n_words :]
        triples = [pointers[1 + 4 * i : 4 + 4 * i] for i in range(int(pointers[0]))]
        up = [target for kind, target, part in triples if kind in ("@", "@i") and part == "n"]
        nouns[fields[0]] = (int(fields[1]), fields[4], up)
    return nouns


def kinds(synsets: list[str], folder: Path) -> list[tuple[int, set[str]] | None]:
    """Returns (category, near hypernyms) of each synset; None where unknown."""
    nouns, offsets = read_wordnet(folder), {}
    for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split()
            offsets[fields[0]] = fields[6 + int(fields[3]) :]
    found: list[tuple[int, set[str]] | None] = []
    for synset in synsets:
        word, _, number = synset.rpartition(".n.")
        senses = offsets.get(word.lower(), [])
        if not number.isdigit() or int(number) > len(senses):
            found.append(None)
            continue
        start = senses[int(number) - 1]
        near, frontier = {start}, {start}
        for _ in range(STEPS_UP):
            frontier = {up for offset in frontier for up in nouns[offset][2]}
            near |= frontier
        found.append((nouns[start][0], near))
    return found


def compare(lists: dict[str, Any], wordnet: Path | None, *, centered: bool) -> dict[str, Any]:
    """Returns the measures of one kind of lens."""
    same = {}
    for first, (names, vectors, _) in lists.items():
        for second, (others, words, _) in lists.items():
            if first == second:
                continue
            best = scores_of(vectors, words, others, centered=centered).argmax(1)
            both = [i for i, name in enumerate(names) if name in set(others)]
            same[f"{first} in {second}"] = (float(np.mean([others[best[i]] == names[i] for i in both])), len(both))
    names, vectors, synsets = lists["LVIS"]
    scores = scores_of(vectors, vectors, names, centered=centered)
    scores[np.equal.outer(np.asarray(names), np.asarray(names))] = -np.inf
    nearest = scores.argmax(1)
    counts = np.sort(np.bincount(nearest, minlength=len(names)))[::-1]
    unit = text_lens_vectors(vectors[:, None]) if centered else vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    result = {
        "same name": same,
        "shared word": float(
            np.mean([bool(set(names[i].split()) & set(names[j].split())) for i, j in enumerate(nearest)])
        ),
        "mean cosine": float((cosines.sum() - len(unit)) / (len(unit) * (len(unit) - 1))),
        "hubs": float(counts[: max(1, len(counts) // 100)].sum() / counts.sum()),
        "examples": {name: names[nearest[names.index(name)]] for name in EXAMPLES if name in names},
    }
    if wordnet is not None:
        kind = kinds(synsets, wordnet)
        known = [i for i, j in enumerate(nearest) if kind[i] and kind[j]]
        others = np.random.default_rng(0).permutation(len(names))
        for title, partner in (("same kind", nearest), ("same kind, random pairs", others)):
            pairs = [(kind[i], kind[partner[i]]) for i in known if kind[partner[i]]]
            result[f"{title}: category"] = float(np.mean([a[0] == b[0] for a, b in pairs]))  # ty: ignore
            result[f"{title}: hypernym"] = float(np.mean([bool(a[1] & b[1]) for a, b in pairs]))  # ty: ignore
    return result


def main() -> None:
    """Prints both lenses side by side."""
    parser = argparse.ArgumentParser(description="Checks neighbors of words in real CLIP text vectors.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--wordnet", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lists = read_lists(arguments.directory)
    results = {
        "raw": compare(lists, arguments.wordnet, centered=False),
        "centered": compare(lists, arguments.wordnet, centered=True),
    }
    raw, centered = results["raw"], results["centered"]
    print(f"{'measure':44}{'raw':>10}{'centered':>10}")
    for key, (share, n) in raw["same name"].items():
        print(f"{f'same name, {key} (n = {n})':44}{share:10.3f}{centered['same name'][key][0]:10.3f}")
    for key, value in raw.items():
        if isinstance(value, float):
            print(f"{key:44}{value:10.3f}{centered[key]:10.3f}")
    for name in raw["examples"]:
        print(f"nearest to {name!r}: raw {raw['examples'][name]!r}, centered {centered['examples'][name]!r}")
    if arguments.json:
        artifacts.write_json(arguments.json, results)


if __name__ == "__main__":
    main()
