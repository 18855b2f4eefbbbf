"""A made-up run directory, in the layout that every run has."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from mine_jax import artifacts, types
from mine_jax.report import canvas, page, slices
from mine_jax.roi import maps

GRID = (8, 8)
AREAS = ("FFA", "EBA", "PPA", "VWFA", "food", "V1")
WORDS = {
    "FFA": ("face", "man", "smile"),
    "EBA": ("body", "hand", "dancer"),
    "PPA": ("house", "street", "beach"),
    "VWFA": ("letters", "sign", "book"),
    "food": ("pizza", "cake", "apple"),
    "V1": ("red", "blue", "white"),
}
CATEGORIES = ("face", "body", "place", "word", "food", "color")
OTHERS = ("dog", "clock", "boat", "yellow", "umbrella", "key")
SHAPE = (12, 14, 8)
N_IMAGES, K = 60, 10


def scene(image_id, size=64):
    """Draws one disc whose place and color follow from the image id."""
    number = int(image_id)
    image = Image.new("RGB", (size, size), (150, 190, 225))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(0.7 * size), size, size), fill=(120, 170, 90))
    x, y = place(number)
    x, y, radius = x * size, y * size, 0.16 * size
    color = [(214, 36, 40), (40, 84, 222), (250, 214, 40), (140, 58, 190)][number % 4]
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return np.asarray(image)


def place(number):
    return 0.25 + 0.5 * (number * 7 % 10) / 9, 0.25 + 0.4 * (number * 3 % 10) / 9


def read_images(image_ids):
    return [scene(image_id) for image_id in image_ids]


def _heat(number, rng):
    y, x = (np.mgrid[: GRID[0], : GRID[1]] + 0.5) / GRID[0]
    cx, cy = place(number)
    field = 0.12 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.03) - 0.02 * np.exp(-((x - 1 + cx) ** 2 + y**2) / 0.05)
    return (field + rng.normal(0, 0.004, GRID)).ravel()


def _write(directory, name, rows):
    artifacts.write_table(directory / name, pd.DataFrame(rows))


def _voxels(rng, n_voxels):
    area = np.array(AREAS)[np.sort(rng.integers(0, len(AREAS), n_voxels))]
    ceiling = np.clip(rng.beta(4, 3, n_voxels), 0.02, 0.95)
    r2 = ceiling * np.clip(rng.normal(0.75, 0.2, n_voxels), -0.1, 1) - 0.01
    status = np.where(rng.random(n_voxels) < 0.04, "constant", "ok")
    r2 = np.where(status == "ok", r2, np.nan)
    stability = np.clip(rng.normal(0.65, 0.2, n_voxels), -0.1, 1)
    reason = np.full(n_voxels, "", dtype=object)
    reason[stability < 0.3] = "split-half stability below 0.3"
    reason[~(r2 >= 0.1)] = "R2 below 0.1"
    reason[status != "ok"] = "status constant"
    flat = np.sort(rng.choice(np.prod(SHAPE), n_voxels, replace=False))
    index = np.stack(np.unravel_index(flat, SHAPE), axis=1)
    both = rng.random(n_voxels) < 0.1
    return pd.DataFrame(
        {
            "voxel_id": flat,
            "i": index[:, 0],
            "j": index[:, 1],
            "k": index[:, 2],
            "rois": [f"{a};streams" if b else a for a, b in zip(area, both, strict=True)],
            "ncsnr": np.sqrt(ceiling / (1 - ceiling)),
            "noise_ceiling": ceiling,
            "r2": r2,
            "r": np.sqrt(np.clip(r2, 0, 1)),
            "r2_normalized": np.where(ceiling > 0.05, r2 / ceiling, np.nan),
            "n_train": 50,
            "n_test": 10,
            "status": status,
            "claim": np.where(reason == "", "words", "none"),
            "explained": reason == "",
            "reason": reason,
        }
    )


def _attribution(directory, rng, voxels, ids):
    rows, tokens, scores, heats = [], [], [], []
    for voxel in voxels[voxels["status"] == "ok"]["voxel_id"]:
        for number in rng.choice(len(ids), 6, replace=False):
            heat = _heat(int(ids[number]), rng)
            order = np.argsort(-heat)[:K]
            rows.append(
                {
                    "voxel_id": voxel,
                    "image_id": ids[number],
                    "predicted": 0.2 + heat.sum(),
                    "predicted_baseline": 0.2,
                    "completeness_gap": rng.normal(0, 1e-6),
                    "faithfulness": rng.uniform(0.6, 1.1),
                    "k_adaptive": rng.integers(3, 20),
                    "status": "ok",
                }
            )
            tokens.append(order)
            scores.append(heat[order])
            heats.append(heat)
    _write(directory, "attribution/pairs.tsv", rows)
    artifacts.write_array(directory / "attribution/tokens.npy", np.array(tokens, np.int32))
    artifacts.write_array(directory / "attribution/scores.npy", np.array(scores, np.float32))
    artifacts.write_array(directory / "attribution/heat.npy", np.array(heats, np.float16))
    curves = []
    rate = {"ig": 0.12, "random": 0.035, "lowest": 0.012}
    for kind in ("necessity", "sufficiency"):
        for order, speed in rate.items():
            for k in (0, 1, 2, 5, 10, 20, 30, 40, 50, 64):
                kept = np.exp(-speed * k) * (1 - k / 64)
                value = kept if kind == "necessity" else 1 - kept
                low, high = value - 0.03, value + 0.03
                row = (kind, order, k, value, low, high, len(voxels))
                curves.append(
                    dict(
                        zip(("kind", "order", "k", "relative_performance", "low", "high", "n_voxels"), row, strict=True)
                    )
                )
    _write(directory, "attribution/curves.tsv", curves)
    return pd.DataFrame(rows)


def _data(directory, rng, voxels, ids):
    artifacts.write_array(directory / "data/responses.npy", rng.normal(size=(len(ids), len(voxels))).astype(np.float32))
    artifacts.write_array(directory / "data/voxel_ids.npy", voxels["voxel_id"].to_numpy())
    artifacts.write_json(directory / "data/image_ids.json", ids)


def _word_rows(area, rng, n):
    pool = list(WORDS[area]) + list(rng.permutation(OTHERS))
    weights = np.sort(rng.dirichlet(np.linspace(4, 0.6, n)))[::-1]
    return [(rank, pool[rank], weights[rank]) for rank in range(n)]


def _words(directory, rng, voxels, pairs):
    area_of = {row.voxel_id: row.rois.split(";")[0] for row in voxels.itertuples()}
    rows, sentences = [], []
    for pair in pairs.itertuples():
        keys = {"voxel_id": pair.voxel_id, "image_id": pair.image_id}
        words = _word_rows(area_of[pair.voxel_id], rng, 7)
        rows += [{**keys, "rank": r, "word": w, "weight": s, "n_tokens": 3} for r, w, s in words]
        sentences.append({**keys, "sentence": f"Driven by {words[0][1]}, {words[1][1]} and {words[2][1]}."})
    _write(directory, "description/words.tsv", rows)
    _write(directory, "description/sentences.tsv", sentences)
    rows, sentences, facts = [], [], []
    for voxel in pairs["voxel_id"].unique():
        words = _word_rows(area_of[voxel], rng, 9)
        rows += [
            {"voxel_id": voxel, "rank": r, "word": w, "weight": s, "low": 0.8 * s, "high": 1.25 * s, "log_odds": 1.0}
            for r, w, s in words
        ]
        sentences.append({"voxel_id": voxel, "sentence": f"Responds to {words[0][1]} and {words[1][1]}."})
        facts.append(
            {
                "voxel_id": voxel,
                "n_images": 12,
                "reliability": 0.71,
                "p_words": 5e-4,
                "q_words": 2e-3,
                "r_measured": 0.33,
            }
        )
    _write(directory, "profile/words.tsv", rows)
    _write(directory, "profile/sentences.tsv", sentences)
    _write(directory, "profile/voxels.tsv", facts)
    _write(directory, "profile/decoys.tsv", [{"voxel_id": i, "claim": "none" if i else "words"} for i in range(50)])


def _validation(directory, voxels):
    chosen = voxels[voxels["explained"]].head(8)
    edits, generation = [], []
    for row in chosen.itertuples():
        for action, sign in (("insert", 1), ("remove", -1), ("noop", 0)):
            Image.fromarray(np.roll(scene("3"), 9 * sign, 1)).save(
                _made(directory / f"validation/images/edits-{len(edits)}.png")
            )
            edits.append(
                {"voxel_id": row.voxel_id, "image_id": "3", "source": "profile", "action": action, "words": "face, man"}
                | {"seed": 0, "before": 0.4, "after": 0.4 + 0.3 * sign, "shift": 0.3 * sign, "evaluator": "in-sample"}
                | {"status": "ok" if sign else "unchanged"}
            )
        for condition, value in (("description", 0.9), ("random", 0.1), ("lowest", -0.1)):
            name = f"validation/images/generation-{len(generation)}.png"
            Image.fromarray(scene(str(len(generation)))).save(_made(directory / name))
            generation.append(
                {
                    "voxel_id": row.voxel_id,
                    "image_id": "5",
                    "condition": condition,
                    "seed": 0,
                    "prompt": "a face and a man",
                }
                | {"predicted": value, "original": 1.0, "evaluator": "in-sample", "status": "ok"}
            )
    _write(directory, "validation/edits.tsv", edits)
    _write(directory, "validation/generation.tsv", generation)
    rows = [("insert minus noop", "in-sample", 0.31, 0.2, 0.42, 1e-5, 2e-5, 8)]
    rows += [("remove minus noop", "in-sample", -0.29, -0.4, -0.18, 1e-4, 2e-4, 8)]
    rows += [("insert minus noop", "independent", 0.22, 0.05, 0.39, 0.012, 0.02, 8)]
    names = ("comparison", "evaluator", "effect", "low", "high", "p", "q", "n_pairs")
    _write(directory, "validation/summary.tsv", [dict(zip(names, row, strict=True)) for row in rows])


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _areas(directory, rng, voxels):
    rows, structure = [], []
    for area, own in zip(AREAS, CATEGORIES, strict=True):
        for category in CATEGORIES:
            value = rng.uniform(1.5, 2.5) if category == own and area != "V1" else rng.normal(-0.1, 0.2)
            q = 1e-3 if value > 1 else 0.6
            rows.append(
                {"roi": area, "category": category, "enrichment": value, "low": value - 0.3, "high": value + 0.3}
            )
            rows[-1] |= {"p": q / 3, "q": q}
        structure.append({"roi": area, "n_voxels": 40, "between_distance": 0.31, "noise_distance": 0.22})
        structure[-1] |= {"n_clusters": 2, "cluster_stability": 0.81}
    _write(directory, "roi/selectivity.tsv", rows)
    _write(directory, "roi/structure.tsv", structure)
    n = len(voxels)
    like = types.Responses(
        responses=np.zeros((1, n), np.float32),
        image_ids=np.array(["0"]),
        n_repeats=np.ones(1, int),
        voxel_ids=voxels["voxel_id"].to_numpy(),
        status=voxels["status"].to_numpy(str),
        ncsnr=np.ones(n),
        noise_ceiling=np.ones(n),
        rois=voxels["rois"].to_numpy(str),
        indices=voxels[["i", "j", "k"]].to_numpy(),
        volume=types.Volume(SHAPE, np.diag([1.8, 1.8, 1.8, 1.0])),
    )
    own = dict(zip(AREAS, CATEGORIES, strict=True))
    top = [own[r.split(";")[0]] if e else "" for r, e in zip(voxels["rois"], voxels["explained"], strict=True)]
    maps.write_maps(directory / "maps", like, {"r2": voxels["r2"].to_numpy(), "top_category": np.array(top)})


def fabricate(directory, *, n_voxels=150, seed=0):
    """Writes a run directory with every stage done."""
    directory = Path(directory)
    rng = np.random.default_rng(seed)
    ids = [str(i) for i in range(N_IMAGES)]
    split = ["test" if i % 6 == 0 else "val" if i % 7 == 0 else "train" for i in range(N_IMAGES)]
    voxels = _voxels(rng, n_voxels)
    _write(directory, "images.tsv", {"image_id": ids, "split": split, "n_repeats": 3})
    artifacts.write_table(directory / "voxels.tsv", voxels)
    artifacts.write_json(
        directory / "features/meta.json", {"schema": 1, "type": "ImageTokens", "fields": {"grid": list(GRID)}}
    )
    pairs = _attribution(directory, rng, voxels, ids)
    _data(directory, rng, voxels, ids)
    _words(directory, rng, voxels, pairs)
    _validation(directory, voxels)
    _areas(directory, rng, voxels)
    truth = [
        ("encoder_r2_over_ceiling", 0.82, len(voxels), ">= 0.7", True),
        ("profile_category_recovered", 0.61, 120, ">= 0.7", False),
    ]
    truth += [("false_profiles", 0.0, 30, None, None)]
    _write(
        directory, "truth.tsv", [dict(zip(("metric", "value", "n", "target", "met"), r, strict=True)) for r in truth]
    )
    stages = ("data", "features", "encoder", "attribution", "description", "profile", "validation", "roi")
    info = {
        "schema": 1,
        "package": {"name": "mine_jax", "version": "0.1.0", "git_commit": None},
        "command": ["mine-jax", "run", "/home/ada/brains/config.toml", "--out", str(directory)],
        "versions": {"python": "3.11.9", "jax": "0.9.2", "torch": None},
        "devices": ["cpu:0 cpu"],
        "precision": "highest",
        "seed": 0,
        "configuration": {
            "data": {"kind": "phantom", "root": "/home/ada/brains/nsd", "subject": "subj01"},
            "features": {"kind": "clip", "model": "/srv/models/clip-vit", "hub_token": "hf_abcdefghijklmnop"},
            "encoder": {"kind": "query", "width": 96},
            "profile": {"max_q": 0.05},
            "validation": {"generator": "phantom", "editor": "phantom"},
        },
        "stages": {name: {"state": "done", "seconds": 3.0 * (i + 1) ** 1.5} for i, name in enumerate(stages)},
    }
    (directory / "run.json").write_text(json.dumps(info))
    return directory


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A run directory that nobody changes."""
    return fabricate(tmp_path_factory.mktemp("original") / "run")


@pytest.fixture
def make_run(tmp_path, original):
    """Returns a function that writes a run directory of a given name."""
    return lambda name="run": Path(shutil.copytree(original, tmp_path / name))


@pytest.fixture
def quick(monkeypatch):
    """Leaves out the drawing, for tests that look at the text alone."""
    blank = canvas.pixels(np.zeros((1, 1, 3), np.uint8), alt="")
    monkeypatch.setattr(slices, "SLICES", 1)
    monkeypatch.setattr(canvas, "picture", lambda fig, *, alt, caption="": page.Picture(blank.uri, alt, caption))


@pytest.fixture
def reader():
    """Returns a reader of the made-up scenes."""
    return read_images
