"""The explorer: its embedded numbers are those of the run, and its script shows them in a browser."""

import base64
import itertools
import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest

from benchmarks.screenshots import chromium
from mine_jax import artifacts
from mine_jax.report import evidence, explorer, reading, write_report
from tests.report.planted import many_voxels

KINDS = {"i1": "<i1", "u1": "<u1", "u2": "<u2", "u4": "<u4", "i4": "<i4", "f4": "<f4", "f8": "<f8"}
BROWSER = chromium()


def decoded(values):
    return {
        name: np.frombuffer(base64.b64decode(value["base64"]), KINDS[value["type"]])
        if isinstance(value, dict) and "base64" in value
        else value
        for name, value in values.items()
    }


def embedded(run, reader=None):
    html = write_report(run, read_images=reader, max_examples=1).read_text(encoding="utf-8")
    return decoded(json.loads(re.search(r'id="explorer-data">(.*?)</script>', html, flags=re.S)[1]))


@pytest.mark.usefixtures("quick")
def test_embeds_the_numbers_of_the_run(make_run, reader):
    run = make_run()
    data = embedded(run, reader)
    voxels = pd.read_csv(run / "voxels.tsv", sep="\t", keep_default_na=False, na_values={"r2": [""]})
    np.testing.assert_array_equal(data["ids"], voxels["voxel_id"])
    np.testing.assert_allclose(data["r2"], voxels["r2"], rtol=1e-6)
    np.testing.assert_array_equal(data["places"].reshape(-1, 3), voxels[["i", "j", "k"]])
    assert [data["claims"][c] for c in data["claim"]] == voxels["claim"].tolist()
    assert [data["reasons"][c] for c in data["reason"]] == voxels["reason"].str.replace("R2", "R²").tolist()
    assert [";".join(data["area_sets"][c]) for c in data["area"]] == voxels["rois"].tolist()
    words = pd.read_csv(run / "profile/words.tsv", sep="\t")
    for place in (0, 7, len(voxels) - 1):
        own = words[words["voxel_id"] == voxels["voxel_id"][place]].sort_values("weight", ascending=False)
        part = slice(*data["first"][place : place + 2])
        assert [data["words"][w] for w in data["word"][part]] == own["word"].tolist()
        np.testing.assert_allclose(data["low"][part], own["low"], rtol=1e-6)


@pytest.mark.usefixtures("quick")
def test_images_are_test_images_first_with_the_measured_response(make_run, reader):
    run = make_run()
    data = embedded(run, reader)
    pairs, images = pd.read_csv(run / "attribution/pairs.tsv", sep="\t"), pd.read_csv(run / "images.tsv", sep="\t")
    is_test = images.set_index("image_id")["split"] == "test"
    responses = np.load(run / "data/responses.npy")
    tokens = np.load(run / "attribution/tokens.npy")
    place = int(np.flatnonzero(np.diff(data["example_first"]))[3])
    own = pairs[pairs["voxel_id"] == data["ids"][place]].copy()
    own["seen"] = ~own["image_id"].map(is_test)
    own = own.sort_values(["seen", "predicted"], ascending=[True, False]).head(3)
    rows = range(*data["example_first"][place : place + 2])
    shown = [data["images"][data["example_image"][row]] for row in rows]
    assert [int(picture["id"]) for picture in shown] == own["image_id"].tolist()
    assert [picture["split"] == "test" for picture in shown] == (~own["seen"]).tolist()
    np.testing.assert_allclose(data["example_measured"][list(rows)], responses[own["image_id"], place])
    # all critical tokens are outlined, one bit each
    bits = np.unpackbits(data["example_critical"], bitorder="little").reshape(len(data["example_image"]), -1)
    np.testing.assert_array_equal(np.flatnonzero(bits[rows[0]]), np.unique(tokens[own.index[0]]))


def shares(run):
    """Patching curves of 4 images a voxel, that fall or rise from 1 or 0 as written, and the shares they stand for."""
    table = artifacts.read_table(run / "attribution/pairs.tsv").drop_duplicates("voxel_id")[["voxel_id"]].iloc[::-1]
    artifacts.write_table(run / "attribution/voxels.tsv", table)
    rng, folder = np.random.default_rng(3), run / "attribution/faithfulness"
    artifacts.write_array(folder / "k_values.npy", np.array([0, 5, 20, 64], np.int32))
    base, scale = rng.normal(size=(len(table), 4, 1)), rng.uniform(0.5, 2, (len(table), 1, 1))
    known = {}
    for kind in ("necessity", "sufficiency"):
        for order in ("ig", "random"):
            known[kind, order] = share = np.sort(rng.uniform(0, 1, (len(table), 1, 4)), axis=2)
            share[..., 0], share[..., -1] = 0, 1
            share[:] = share[..., ::-1] if kind == "necessity" else share
            artifacts.write_array(folder / f"{kind}.{order}.npy", (base + scale * share).astype(np.float32))
    return table["voxel_id"].tolist(), known


@pytest.mark.usefixtures("quick")
def test_heat_maps_curves_and_edits_are_those_of_the_voxel(make_run, reader):
    run = make_run()
    ids, known = shares(run)
    data = embedded(run, reader)
    heat, pairs = np.load(run / "attribution/heat.npy"), pd.read_csv(run / "attribution/pairs.tsv", sep="\t")
    place = int(np.flatnonzero(np.diff(data["example_first"]))[5])
    rows = range(*data["example_first"][place : place + 2])
    names = [int(data["images"][data["example_image"][row]]["id"]) for row in rows]
    own = pairs.reset_index().set_index(["voxel_id", "image_id"])["index"]
    scores = heat[[own[data["ids"][place], name] for name in names]].astype(float)
    limit = np.quantile(np.abs(scores), 0.995)
    assert data["heat_limit"][place] == pytest.approx(limit)
    drawn = data["heat"].reshape(-1, 64)[data["example_heat"][list(rows)] - 1] / 127
    np.testing.assert_allclose(drawn, np.clip(scores / limit, -1, 1), atol=0.5 / 127 + 1e-6)
    assert data["curve_ks"] == [0, 5, 20, 64]
    curves = data["curves"].reshape(len(data["ids"]), 4, 4)
    at, order = ids.index(data["ids"][place]), list(known)
    for c, name in enumerate(order):
        np.testing.assert_allclose(curves[place, c] / 120 - 0.5, known[name][at, 0], atol=0.5 / 120 + 1e-6)
    assert (curves[~np.isin(data["ids"], ids)] == evidence.NO_CURVE).all()
    edits = pd.read_csv(run / "validation/edits.tsv", sep="\t")
    wanted = edits[edits["action"] != "noop"].drop_duplicates(["voxel_id", "action"])
    shown = [(int(data["ids"][e["voxel"]]), e["text"], e["before"], e["after"]) for e in data["edits"]]
    verbs = wanted["words"] + wanted["action"].map({"insert": " inserted", "remove": " removed"})
    assert shown == list(zip(wanted["voxel_id"], verbs, wanted["before"], wanted["after"], strict=True))


@pytest.mark.usefixtures("quick")
def test_heat_maps_beyond_their_bytes_are_those_of_the_weakest_voxels(make_run, reader, monkeypatch):
    run = make_run()
    monkeypatch.setattr(evidence, "MAX_HEAT_BYTES", 64 * 30)
    data = embedded(run, reader)
    voxels = pd.read_csv(run / "voxels.tsv", sep="\t")
    has = np.array([data["example_heat"][first:end].any() for first, end in itertools.pairwise(data["example_first"])])
    could = np.diff(data["example_first"]) > 0
    assert len(data["heat"]) <= 64 * 32 and has.sum() == 10
    assert voxels.loc[has, "explained"].all()
    rest = voxels[could & ~has & voxels["explained"]]
    assert voxels.loc[has, "r2"].min() >= rest["r2"].max()


@pytest.mark.usefixtures("quick")
def test_areas_have_their_enrichments_and_structure(make_run):
    run = make_run()
    data = embedded(run)
    table = pd.read_csv(run / "roi/selectivity.tsv", sep="\t")
    area = next(area for area in data["areas"] if area["name"] == "PPA")
    own = table[table["roi"] == "PPA"].sort_values("enrichment", ascending=False).head(5)
    assert [bar["label"] for bar in area["bars"]] == own["category"].tolist()
    np.testing.assert_allclose(
        [[b["value"], b["low"], b["high"]] for b in area["bars"]], own[["enrichment", "low", "high"]]
    )
    assert area["bars"][0]["note"].endswith("q 0.001") and "Clusters: 2; Cluster stability: 0.81" in area["structure"]


@pytest.mark.usefixtures("quick")
def test_without_geometry_voxels_lie_by_accuracy(make_run):
    run = make_run()
    table = artifacts.read_table(run / "voxels.tsv")
    artifacts.write_table(run / "voxels.tsv", table.drop(columns=["i", "j", "k"]))
    data = embedded(run)
    x, y = data["xy"].reshape(-1, 2).T
    assert data["places"] is None and x.min() == y.min() == 0 and x.max() == y.max() == 1
    usable = table["r2"].notna().to_numpy()
    assert np.corrcoef(x, table["noise_ceiling"])[0, 1] > 0.999
    assert np.corrcoef(y[usable], table["r2"][usable])[0, 1] > 0.99


def on_a_surface(run):
    """Gives the voxels of a run places on two patches of spheres of 100 mm; returns unit vectors and hemispheres."""
    table = artifacts.read_table(run / "voxels.tsv")
    rng = np.random.default_rng(0)
    hemi = np.where(np.arange(len(table)) < len(table) // 2, "lh", "rh")
    middle = np.where(hemi[:, None] == "lh", [-0.6, -0.8, 0.1], [0.6, -0.8, 0.1])
    at = middle + 0.15 * rng.standard_normal((len(table), 3))
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    artifacts.write_table(
        run / "voxels.tsv", table.drop(columns=["i", "j", "k"]).assign(hemi=hemi, vertex=range(len(at)))
    )
    (run / "data").mkdir(exist_ok=True)
    order = rng.permutation(len(at))
    np.save(run / "data" / "voxel_ids.npy", table["voxel_id"].to_numpy()[order])
    np.save(run / "data" / "sphere.npy", (100 * at[order]).astype(np.float32))
    return at, hemi


@pytest.mark.usefixtures("quick")
def test_vertices_lie_on_a_flat_map_of_their_spheres(make_run):
    run = make_run()
    at, hemi = on_a_surface(run)
    data = embedded(run)
    assert data["places"] is None and [name for name, _ in data["flat"]["parts"]] == [
        "left hemisphere",
        "right hemisphere",
    ]
    flat = data["xy"].reshape(-1, 2).astype(float)
    left, right = (np.flatnonzero(hemi == name) for name in ("lh", "rh"))
    assert flat[left, 0].max() < flat[right, 0].min() == pytest.approx(data["flat"]["parts"][1][1], abs=1e-3)
    for part in (left, right):
        # the area of a small triangle is that on the sphere, within what a patch of 30 degrees bends
        a, b, c = (part[i::3][: len(part) // 3] for i in range(3))
        on_sphere = 100**2 * np.linalg.norm(np.cross(at[b] - at[a], at[c] - at[a]), axis=1)
        edges = flat[b] - flat[a], flat[c] - flat[a]
        on_map = np.abs(edges[0][:, 0] * edges[1][:, 1] - edges[0][:, 1] * edges[1][:, 0])
        assert np.corrcoef(on_sphere, on_map)[0, 1] > 0.98 and np.median(on_map / on_sphere) == pytest.approx(
            1, abs=0.1
        )
        # upright, and seen from outside: in front of a viewer behind the head, x grows to the right
        assert np.corrcoef(at[part, 2], flat[part, 1])[0, 1] > 0.9
        assert np.corrcoef(at[part, 0], flat[part, 0])[0, 1] > 0.9


@pytest.mark.usefixtures("quick")
def test_one_vertex_stands_for_a_block_of_the_flat_map(make_run, monkeypatch):
    run = make_run()
    on_a_surface(run)
    monkeypatch.setattr(explorer, "MAX_VOXELS", 40)
    values, rule = explorer.collect(reading.open_run(run))
    data = decoded(values)
    assert 20 <= len(data["ids"]) <= 40 and re.search(r"block of (\d+) x \1, since", rule)
    side = int(re.search(r"block of (\d+) x", rule)[1])
    blocks = np.floor(data["xy"].reshape(-1, 2) / side)
    assert len(np.unique(blocks, axis=0)) == len(blocks)


def test_one_voxel_stands_for_a_block(make_run, monkeypatch):
    run = reading.open_run(make_run())
    monkeypatch.setattr(explorer, "MAX_VOXELS", 40)
    values, rule = explorer.collect(run)
    data = decoded(values)
    assert len(data["ids"]) <= 40 and f"of {len(run.voxels)}: the best predicted one of each block" in rule
    side = int(re.search(r"block of (\d+) x", rule)[1])
    blocks = run.voxels.assign(block=list(map(tuple, run.voxels[["i", "j", "k"]].to_numpy() // side)))
    best = blocks.groupby("block")["r2"].max()
    assert len(best) == len(data["ids"])
    np.testing.assert_allclose(np.sort(data["r2"]), np.sort(best), rtol=1e-6)
    # on a map of blocks, each as wide as several voxels, in millimetres of its middle
    assert len(np.unique(data["places"].reshape(-1, 3), axis=0)) == len(best)
    np.testing.assert_array_equal(data["places"].reshape(-1, 3).min(0), run.voxels[["i", "j", "k"]].min() // side)
    np.testing.assert_allclose(data["step"], 1.8 * side, rtol=1e-6)
    np.testing.assert_allclose(data["origin"], 1.8 * (side - 1) / 2, rtol=1e-6)


@pytest.mark.usefixtures("quick")
def test_twenty_thousand_voxels_stay_below_the_limit(tmp_path):
    n = 20_000
    many_voxels(tmp_path, n)
    values, _ = explorer.collect(reading.open_run(tmp_path))
    # images of 256 tokens add at most 3 x (2 + 4 + 4 + 32) bytes a voxel, and 400 pictures of some 4 KB
    images = n * 3 * 42 * 4 / 3 + 400 * 6e3
    # their heat maps and curves at 11 numbers of tokens; and edits, two pictures each
    beside = (evidence.MAX_HEAT_BYTES + n * 3 * 4 + n * 4 * 11) * 4 / 3 + 2 * evidence.MAX_EDITED * 6e3
    assert len(json.dumps(values)) + images + beside < 20e6


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_voxels_areas_and_words(make_run, reader, quick):
    run = make_run()
    path = write_report(run, read_images=reader, max_examples=2)
    voxels = pd.read_csv(run / "voxels.tsv", sep="\t")
    words = pd.read_csv(run / "profile/words.tsv", sep="\t")
    chosen = voxels[voxels["explained"]].iloc[3]
    word = words[words["voxel_id"] == chosen["voxel_id"]].sort_values("weight")["word"].iloc[-1]

    def panel(address):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{path}{address}"]
        html = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert re.search(r'id="explorer-off" hidden', html), "the script did not run"
        return [re.search(rf'id="explorer-{name}".*?</div>', html, flags=re.S)[0] for name in ("panel", "legend")]

    shown, _ = panel(f"#voxel={chosen['voxel_id']}")
    assert f"Voxel {chosen['voxel_id']}, {chosen['rois'].split(';')[0]}" in shown
    assert "Claim: words." in shown and f">{word}</button>" in shown
    shown, _ = panel("#area=FFA")
    n = voxels["rois"].str.split(";").map(lambda areas: "FFA" in areas)
    assert f"{n.sum()} voxels, {voxels.loc[n, 'explained'].sum()} explained. Prefers face." in shown
    _, legend = panel("#word=face")
    with_face = set(words.loc[words["word"] == "face", "voxel_id"]) & set(voxels.loc[voxels["explained"], "voxel_id"])
    assert "Weight of “face” in the profile" in legend and f"{len(with_face)} explained voxels with it" in legend


DRIVER = """
<script>
const press = (key) => document.getElementById("explorer-map").dispatchEvent(new KeyboardEvent("keydown", {key}));
const title = () => document.querySelector("#explorer-panel h3").textContent;
const seen = {};
press("ArrowRight");
seen.right = title();
press("PageDown");
seen.down = title();
const find = document.getElementById("explorer-find");
find.value = "nowhere";
find.dispatchEvent(new Event("change"));
seen.unknown = document.getElementById("explorer-panel").textContent;
const table = document.querySelector("#answer ~ .answer table") || document.querySelector(".answer table");
table.tHead.rows[0].cells[0].querySelector("button").click();
seen.sorted = Array.from(table.tBodies[0].rows, (row) => row.cells[0].textContent);
const out = document.createElement("pre");
out.id = "seen";
out.textContent = JSON.stringify(seen);
document.body.append(out);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_follows_keys_and_sorts_tables(make_run, quick):
    run = make_run()
    html = write_report(run, max_examples=1).read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (run / "driven.html").write_text(html.replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    voxels = pd.read_csv(run / "voxels.tsv", sep="\t")
    place = voxels[["i", "j", "k"]].to_numpy()
    start = next(v for v in range(len(place)) if _ahead(place, v).any())
    address = f"file://{run}/driven.html#voxel={voxels['voxel_id'][start]}"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', shown)[1].replace("&amp;", "&"))
    right = int(re.match(r"Voxel (\d+),", seen["right"])[1])
    step = np.linalg.norm(place - place[start], axis=1)
    assert step[voxels["voxel_id"] == right] == step[_ahead(place, start)].min()
    right = int(voxels.index[voxels["voxel_id"] == right][0])
    below = place[:, 2] == np.unique(place[place[:, 2] > place[right, 2], 2])[0]
    down = voxels["voxel_id"] == int(re.match(r"Voxel (\d+),", seen["down"])[1])
    away = np.linalg.norm(place[:, :2] - place[right, :2], axis=1)
    assert below[down] and away[down] == away[below].min()
    assert seen["unknown"] == "No voxel and no area here is named “nowhere”."
    assert seen["sorted"] == sorted(seen["sorted"], key=str.lower, reverse=True) and len(seen["sorted"]) >= 6


def _ahead(place, start):
    """Which voxels lie to the right of one, in its slice, within 45 degrees."""
    right, across, slices = (place - place[start]).T
    return (slices == 0) & (right > 0) & (np.abs(across) <= right)
