"""The report of a run: complete, self-contained, safe, and honest about what is missing."""

import base64
import hashlib
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import nibabel
import numpy as np
import pandas as pd
import pytest

from mine_jax import artifacts
from mine_jax.errors import IntegrityError, MissingExtraError, MissingInputError
from mine_jax.report import page, write_demo_report, write_report
from mine_jax.report.sections import validation
from tests.report.planted import truth_voxels

SECTIONS = (
    "answer",
    "explorer",
    "areas",
    "maps",
    "explained",
    "profiles",
    "examples",
    "validation",
    "recovery",
    "accuracy",
    "faithfulness",
    "overview",
)


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = frozenset(("meta", "img", "br", "link", "input", "hr"))

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def run(make_run):
    return make_run()


def test_complete_run(run, reader):
    seen = []
    path = write_report(
        run, read_images=reader, max_examples=2, progress=lambda done, total: seen.append((done, total))
    )
    assert path == run / "report.html"
    page = read(path)
    assert [attrs["id"] for attrs in page.all("h2")] == list(SECTIONS)
    assert [attrs["href"] for attrs in page.all("a")] == ["#content", *(f"#{name}" for name in SECTIONS)]
    assert "This run has no" not in page.text
    assert seen[-1] == (len(SECTIONS), len(SECTIONS))
    for text in ("encoder r2 over ceiling", "Responds to", "FFA: face", "V1: no preference", "face, man inserted"):
        assert text in page.text
    assert not [p.name for p in run.iterdir() if p.name.endswith(".tmp")]


def test_self_contained(run, reader):
    html = write_report(run, read_images=reader, max_examples=2).read_text(encoding="utf-8")
    page = Page(html)
    assert not page.all("link") and not page.all("iframe") and not page.all("base")
    code, values = (re.findall(rf"<script{kind}>(.*?)</script>", html, flags=re.S) for kind in ("", " type[^>]*"))
    assert len(page.all("script")) == 2 and len(code) == len(values) == 1
    assert page.all("script")[0] == {"type": "application/json", "id": "explorer-data"} and json.loads(values[0])
    digest = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in html and html.count("script-src") == 1
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|url\(|@import", html)
    for image in page.all("img"):
        assert image["alt"].strip()
        head, _, data = image["src"].partition(",")
        assert head == "data:image/webp;base64" and base64.b64decode(data, validate=True)[8:12] == b"WEBP"


def test_same_run_same_page(run, reader):
    first = write_report(run, read_images=reader, max_examples=2).read_bytes()
    assert write_report(run, read_images=reader, max_examples=2).read_bytes() == first


@pytest.mark.usefixtures("quick")
def test_figures_say_which_voxels(run, reader):
    html = write_report(run, read_images=reader, max_examples=2).read_text(encoding="utf-8")
    voxels = pd.read_csv(run / "voxels.tsv", sep="\t")
    usable = voxels[voxels["status"] == "ok"]
    assert f"R² of {len(usable)} voxels of {len(voxels)}: status ok, finite R²." in html
    assert f"<bdi>{usable['r2'].mean():.2f}</bdi>" in html
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html, flags=re.S)
    assert len(captions) > 10 and all(caption.strip() for caption in captions)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("validation", "no validation/summary.tsv"),
        ("roi", "no roi/selectivity.tsv"),
        ("maps", "no maps"),
        ("truth.tsv", "There is no truth.tsv"),
        ("attribution", "no attribution/pairs.tsv"),
        ("profile", "no profile/words.tsv"),
        ("voxels.tsv", "no voxels.tsv"),
    ],
)
def test_missing_stage_is_named(run, gone, sentence):
    target = run / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = read(write_report(run, max_examples=1))
    assert sentence in page.text
    assert "Not on this page" in page.text and len(page.all("h2")) <= len(SECTIONS)


@pytest.mark.usefixtures("quick")
def test_only_the_encoder_was_run(make_run, tmp_path):
    full = make_run("full")
    short = tmp_path / "short"
    short.mkdir()
    info = json.loads((full / "run.json").read_text())
    info["stages"] = {"encoder": {"state": "done", "seconds": 1.0}, "attribution": {"state": "failed"}}
    (short / "run.json").write_text(json.dumps(info))
    shutil.copy(full / "voxels.tsv", short)
    page = read(write_report(short))
    assert "run.json gives the state of the stage attribution as 'failed'" in page.text
    assert "the stage roi has not been run" in page.text


@pytest.mark.usefixtures("quick")
def test_without_photos_heat_or_grid(run):
    (run / "attribution/heat.npy").unlink()
    assert "Only the scores of the critical tokens were stored" in read(write_report(run, max_examples=1)).text
    (run / "features/meta.json").unlink()
    text = read(write_report(run, max_examples=1)).text
    assert "The token grid is not recorded" in text and "No image reader was given" in text


@pytest.mark.usefixtures("quick")
def test_tokens_that_are_not_a_grid(run, reader):
    artifacts.write_json(run / "features/meta.json", {"grid": [8, 9]})
    assert "not one per cell of the token grid" in read(write_report(run, read_images=reader, max_examples=1)).text


def test_photos_of_any_shape(run):
    def tall(image_ids):
        return [np.full((300, 100, 3), 90, np.uint8) for _ in image_ids]

    artifacts.write_json(run / "features/meta.json", {"grid": [8, 8], "processor": {"resize": 256, "crop": [224, 224]}})
    write_report(run, read_images=tall, max_examples=1)


def test_hostile_text(run, reader):
    """F-63: nothing of a word runs in the page."""
    hostile = [
        '<script>alert("x")</script>',
        "$\\frac{1}{2$",
        "<img src=x onerror=y>",
        "\u202eevil\x07",
        "猫 & 'q'",
        "{{ 7*7 }}",
        "null",
    ]
    for name in ("description/words.tsv", "profile/words.tsv"):
        table = artifacts.read_table(run / name)
        table["word"] = [hostile[i % len(hostile)] for i in range(len(table))]
        artifacts.write_table(run / name, table)
    table = artifacts.read_table(run / "voxels.tsv")
    table["rois"] = ["$bad_{<b>area</b>;猫" if i % 2 else "V1" for i in range(len(table))]
    table["reason"] = "<script>because()</script>"
    artifacts.write_table(run / "voxels.tsv", table)
    table = artifacts.read_table(run / "roi/selectivity.tsv")
    artifacts.write_table(run / "roi/selectivity.tsv", table.assign(category="<script>", roi="</style><script>x"))
    html = write_report(run, read_images=reader, max_examples=2).read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.all("script")) == 2 and html.count("<script") == 2
    assert not [attrs for attrs in page.all("img") if attrs["src"] == "x"]
    assert "<bdi>null</bdi>" in html
    assert "{{ 7*7 }}" in html and "\u202e" not in html and "\x07" not in html
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in html


@pytest.mark.usefixtures("quick")
def test_nothing_about_the_machine(run, tmp_path):
    """F-98: paths and tokens are redacted."""
    table = artifacts.read_table(run / "voxels.tsv")
    table["reason"] = "cannot read /home/ada/brains/secret.npy with HF_TOKEN=abc123"
    artifacts.write_table(run / "voxels.tsv", table)
    html = write_report(run, max_examples=1).read_text(encoding="utf-8")
    for leak in ("/home/ada", "ada/", str(tmp_path), "/srv/models", "hf_abcdefgh", "abc123"):
        assert leak not in html
    assert "…/nsd" in html and "…/clip-vit" in html and "[redacted]" in html


@pytest.mark.usefixtures("quick")
def test_claims_stand_beside_those_of_decoys(run):
    table = artifacts.read_table(run / "voxels.tsv")
    usable = table[table["status"] == "ok"]
    kinds = [{"kind": "noise", "n": 20, "predicted": 0.05, "words": 0.0}, {"kind": "place", "n": 9, "words": 0.75}]
    artifacts.write_table(run / "truth_claims.tsv", pd.DataFrame(kinds))
    text = read(write_report(run, max_examples=1)).text
    share = re.escape(page.share(usable["explained"].astype(bool).mean()))
    assert re.search(rf"words\s+{usable['explained'].sum()}\s+{share}\s+2%", text)
    assert re.search(r"place\s+9\s+75\s*%", text)


@pytest.mark.usefixtures("quick")
def test_profiles_say_what_stands_beside_them(run):
    table = artifacts.read_table(run / "voxels.tsv")
    voxel = int(table[table["explained"].astype(bool)].sort_values("r2")["voxel_id"].iloc[-1])
    found = {"voxel_id": voxel, "q": 0.01}
    tables = {
        "ledger": [
            {**found, "word": "swimmer", "confound": "color", "survives": True},
            {**found, "word": "beach", "confound": "with swimmer", "survives": False},
        ],
        "drivers": [{**found, "role": "lowers", "word": "dog"}, {**found, "role": "lowers", "word": "key", "q": 0.5}],
        "conjunctions": [{**found, "first": "face", "second": "tool"}],
        "field": [{**found, "x": 0.25, "y": 0.5, "size": 0.1}],
    }
    for name, rows in tables.items():
        artifacts.write_table(run / f"profile/{name}.tsv", pd.DataFrame(rows))
    text = read(write_report(run, max_examples=1)).text
    assert (
        "Holds against confounds: swimmer." in text
        and "Not shown beyond what comes with it: beach (with swimmer)." in text
    )
    assert "Lowered by dog." in text and "face and tool together" in text and "Looks at 25% from the left" in text


@pytest.mark.usefixtures("quick")
def test_no_voxel_explained(run):
    table = artifacts.read_table(run / "voxels.tsv")
    artifacts.write_table(run / "voxels.tsv", table.assign(explained=False, reason="q above 0.05"))
    text = read(write_report(run, max_examples=1)).text
    assert "attributed, but not explained" in text
    assert "No voxel of this run is explained" in text
    assert "not explained: q above 0.05" in text
    first = text[text.index("What was found") : text.index("Explore the voxels")]
    assert re.search(r"What stops most \(\d+\): q above 0\.05\.", first) and "Explained voxels" in first
    (run / "roi/selectivity.tsv").unlink()
    text = read(write_report(run, max_examples=1)).text
    assert "Explained voxels" not in text  # no words and no preference: nothing to list


@pytest.mark.usefixtures("quick")
def test_no_voxel_scored(run):
    table = artifacts.read_table(run / "voxels.tsv")
    artifacts.write_table(run / "voxels.tsv", table.assign(status="constant", r2=np.nan, explained=False))
    assert "No voxel has the status ok and a finite R²" in read(write_report(run, max_examples=1)).text


@pytest.mark.usefixtures("quick")
def test_unknown_ceiling(run):
    table = artifacts.read_table(run / "voxels.tsv")
    artifacts.write_table(run / "voxels.tsv", table.assign(noise_ceiling=np.nan, r2_normalized=np.nan, ncsnr=np.nan))
    assert "The noise ceiling of no voxel is known" in read(write_report(run, max_examples=1)).text


def test_one_voxel(run):
    """F-30: one voxel."""
    table = artifacts.read_table(run / "voxels.tsv")
    one = table[table["explained"].astype(bool)].head(1)
    artifacts.write_table(run / "voxels.tsv", one)
    assert "1 voxel of 1" in read(write_report(run, max_examples=3)).text


@pytest.mark.usefixtures("quick")
def test_large_tables_are_parquet(run, reader, monkeypatch):
    expected = write_report(run, read_images=reader, max_examples=2).read_text(encoding="utf-8")
    for name in ("description/words.tsv", "profile/words.tsv", "attribution/pairs.tsv", "voxels.tsv"):
        table = artifacts.read_table(run / name)
        with monkeypatch.context() as patch:
            patch.setattr(artifacts.tables, "MAX_TSV_ROWS", 0)
            artifacts.write_table(run / name, table)
        assert not (run / name).exists()
    assert write_report(run, read_images=reader, max_examples=2).read_text(encoding="utf-8") == expected


@pytest.mark.usefixtures("quick")
def test_truth_from_elsewhere(run, tmp_path):
    truth = tmp_path / "other.tsv"
    truth.write_text("metric\tvalue\tn\ttarget\tmet\nplanted_words\t0.5\t7\t0.4\ttrue\n")
    text = read(write_report(run, truth=truth, max_examples=1)).text
    assert "planted words" in text and "1 of 1 target met" in text


@pytest.mark.usefixtures("quick")
def test_message(tmp_path, run):
    with pytest.raises(MissingInputError, match="is no run directory"):
        write_report(tmp_path / "nothing")
    (run / "voxels.tsv").write_text("voxel_id\tstatus\n1\tok\n")
    with pytest.raises(IntegrityError, match="lacks r2"):
        write_report(run)
    (run / "run.json").write_text("[]")
    with pytest.raises(IntegrityError, match="one JSON object"):
        write_report(run)


@pytest.mark.parametrize("module", ["jinja2", "matplotlib.figure"])
def test_missing_extra(run, monkeypatch, module):
    """F-86: a package that is not installed."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"mine_jax\[report\]"):
        write_report(run, max_examples=1)


def test_edits_are_sorted_and_stand_beside_the_exact_ones(make_run, reader, quick):
    run = make_run()
    path = run / "validation" / "edits.tsv"
    edits = pd.read_csv(path, sep="\t")
    edits["maker"], edits["image"] = "phantom", [f"images/edits-{row}.png" for row in range(len(edits))]
    edits["shift"] *= np.linspace(2, 1, len(edits))
    edits["after"] = edits["before"] + edits["shift"]
    edits["true_shift"] = edits["shift"] * 2
    exact = edits.assign(maker="oracle", after=edits["before"] + edits["true_shift"], shift=edits["true_shift"])
    artifacts.write_table(path, pd.concat([edits, exact]))
    (run / "manifest.json").unlink(missing_ok=True)
    text = Page(write_report(run, read_images=reader).read_text(encoding="utf-8")).text
    shifts = [float(x) for x in re.findall(r"Predicted shift ([+-][0-9.]+), true shift of the exact edit", text)]
    risen, fallen = [x for x in shifts if x > 0], [x for x in shifts if x < 0]
    assert len(risen) == len(fallen) == 6 and shifts == sorted(risen, reverse=True) + sorted(fallen)
    assert text.count("Exact edit: predicted") == 12
    assert "phantom: r = 1.00 (16 edits); oracle: r = 1.00 (16 edits)" in " ".join(
        image["alt"] for image in Page(write_report(run, read_images=reader).read_text(encoding="utf-8")).all("img")
    )


@pytest.mark.usefixtures("quick")
def test_controls_with_the_prompt_of_the_treatment_are_counted(run, reader):
    path = run / "validation/generation.tsv"
    table = artifacts.read_table(path)
    table["prompt"] = [f"a photo of {c}" for c in table["condition"]]
    voxels = table["voxel_id"].unique()
    same = (table["condition"] == "random") & table["voxel_id"].isin(voxels[:3])
    artifacts.write_table(path, table.assign(prompt=table["prompt"].where(~same, "a photo of description")))
    text = read(write_report(run, read_images=reader, max_examples=1)).text
    assert f"which are left out of the tests: 3 of {len(voxels)} of the random words." in text


def test_voxels_that_their_words_move_are_counted(run, reader):
    table = pd.DataFrame({"voxel_id": range(8), "n_pairs": 6, "effect": 0.5, "p": 0.01, "q": 0.02})
    table["evaluator"], table["causal"] = "judge", [True] * 3 + [False] * 5
    artifacts.write_table(run / "validation" / "voxels.tsv", table)
    text = " ".join(Page(write_report(run, read_images=reader).read_text(encoding="utf-8")).text.split())
    assert "(8 tested, 3 moved, 3 of them not localised)" in text
    assert "All 8 voxels of validation/voxels.tsv" in text and "evaluator (judge)" in text
    assert "moved by their words 3 38% 0.50" in text


@pytest.mark.usefixtures("quick")
def test_what_stages_warn_of_stands_on_the_first_screen(run):
    path = run / "run.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["stages"]["data"]["summary"] = {"test": 9, "warning": "only 9 test images <of few>"}
    path.write_text(json.dumps(info), encoding="utf-8")
    html = write_report(run, max_examples=1).read_text(encoding="utf-8")
    assert html.count('<p class="warning">only 9 test images &lt;of few&gt;</p>') == 1


def test_the_first_screen_is_the_answer(run):
    html = write_report(run, max_examples=1).read_text(encoding="utf-8")
    voxels = pd.read_csv(run / "voxels.tsv", sep="\t", keep_default_na=False)
    first = re.sub(r"<[^>]*>", " ", html[html.index('id="answer"') : html.index('id="explorer"')])
    first = " ".join(first.split())
    n = int((voxels["claim"] == "words").sum())
    share = re.escape(page.share(n / (voxels["status"] == "ok").sum()))
    for rung in ("predicted", "reliable", "explained"):
        assert re.search(rf"{n} {rung} {share}; decoys 1 of 50", first)
    assert re.search(r"0 causal 0% \(not tested\)", first)
    for area, word in (("FFA face", "face"), ("PPA place", "house")):
        assert re.search(rf"{area} [\w, ]*{word}[\w, ]* \d+ of \d+", first)
    assert "V1 no preference" in first


@pytest.mark.usefixtures("quick")
def test_maps_without_a_label_are_not_drawn(run):
    """Where no words are claimed, no voxel has a category."""
    folder = run / "maps"
    image = nibabel.load(folder / "top_category.nii.gz")
    values = np.where(np.isfinite(image.get_fdata()), 0, np.nan).astype(np.float32)
    shutil.copy(folder / "top_category.tsv", folder / "top_word.tsv")
    for name in ("top_category", "top_word"):
        nibabel.save(nibabel.Nifti1Image(values, image.affine), folder / f"{name}.nii.gz")
    html = write_report(run, max_examples=1).read_text(encoding="utf-8")
    text = Page(re.sub(r"<script.*?</script>", "", html, flags=re.S)).text
    assert "Leading" not in text and "most frequent have a color" not in text and "Colors end at" in text
    assert json.loads(re.search(r'id="explorer-data">(.*?)</script>', html, flags=re.S)[1])["category"] is None


@pytest.mark.usefixtures("quick")
def test_without_areas_all_voxels_are_one(run, reader):
    """Recordings of one electrode array, for instance, have none."""
    table = artifacts.read_table(run / "voxels.tsv")
    artifacts.write_table(run / "voxels.tsv", table.assign(rois="").drop(columns=["i", "j", "k"]))
    html = write_report(run, read_images=reader, max_examples=1).read_text(encoding="utf-8")
    text = " ".join(Page(re.sub(r"<script.*?</script>", "", html, flags=re.S)).text.split())
    assert "no area" not in text and re.search(r"all voxels [\w ]+", text)
    explorer = json.loads(re.search(r'id="explorer-data">(.*?)</script>', html, flags=re.S)[1])
    assert [area["name"] for area in explorer["areas"]] == ["all voxels"] and explorer["area_sets"] == [["all voxels"]]


@pytest.mark.usefixtures("quick")
def test_examples_name_split_and_measured_response(run, reader):
    text = " ".join(read(write_report(run, read_images=reader, max_examples=1)).text.split())
    shown = re.search(
        r"Voxel (\d+), EBA .*?Image (\d+) (test|training).*?Predicted ([+-][\d.]+) , measured ([+-][\d.]+)", text
    )
    voxels, pairs = pd.read_csv(run / "voxels.tsv", sep="\t"), pd.read_csv(run / "attribution/pairs.tsv", sep="\t")
    own = pairs[pairs["voxel_id"] == int(shown[1])]
    tests = own[own["image_id"] % 6 == 0]
    assert (shown[3] == "test") == (len(tests) > 0) and int(shown[2]) in (tests if len(tests) else own)[
        "image_id"
    ].tolist()
    column = voxels.index[voxels["voxel_id"] == int(shown[1])][0]
    measured = np.load(run / "data/responses.npy")[int(shown[2]), column]
    assert float(shown[5]) == pytest.approx(measured, abs=0.006)
    assert "Critical tokens read as" in text and "driven by" not in text.lower()


@pytest.mark.usefixtures("quick")
def test_units_of_the_run(run, reader, tmp_path):
    info = json.loads((run / "run.json").read_text())
    info["configuration"]["data"] |= {"unit_name": "neuron", "zscore": "none"}
    (run / "run.json").write_text(json.dumps(info))
    artifacts.write_table(run / "truth_voxels.tsv", truth_voxels())
    pages = [write_report(run, read_images=reader, max_examples=5), write_demo_report(tmp_path, [run])]
    for path in pages:
        html = path.read_text(encoding="utf-8")
        html = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
        told = " ".join([Page(html).text, *re.findall(r'(?:alt|aria-label|title|placeholder)="([^"]*)"', html)])
        assert re.search(r"\d+ neurons of \d+ were fitted", told) and "What each neuron responds to" in told
        assert not re.findall(r".{30}\b[vV]oxels?\b(?!\.tsv).{30}", told)
    text = Page(html := pages[0].read_text(encoding="utf-8")).text
    assert "response units" in text and "z-scored" not in text and "voxels.tsv" in text
    assert "neuron" in json.loads(re.search(r'id="explorer-data">(.*?)</script>', html, flags=re.S)[1])["unit"]


@pytest.mark.usefixtures("quick")
def test_heat_maps_have_the_scale_of_their_voxel(run, reader):
    heat = np.load(run / "attribution/heat.npy")
    table = artifacts.read_table(run / "attribution/pairs.tsv")
    weak = table["voxel_id"] == table["voxel_id"].iloc[0]
    heat[weak] = heat[weak] / 50
    np.save(run / "attribution/heat.npy", heat)
    limits = re.findall(r"Full color at ±([\d.e-]+) per token", read(write_report(run, read_images=reader)).text)
    assert len(limits) > 5
    values = np.array(limits, float)
    assert values.min() < values.max() / 20 or not weak.any()


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("description minus lowest", 0),
        ("description minus original image", 0),
        ("insert minus no-op", 1),
        ("no-op minus remove", 1),
        ("insert minus words of the same area", 2),
        ("other things removed minus remove", 2),
        ("other voxel's words minus no-op", 3),
        ("insert: profile minus description", 4),
        ("correlation of predicted and true shift", 4),
    ],
)
def test_comparisons_stand_under_what_they_answer(name, question):
    assert validation._question({"comparison": name, "voxels": "described"}) == validation.QUESTIONS[question]
    assert validation._question({"comparison": name, "voxels": "exchanged"}) == validation.QUESTIONS[3]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        (
            {"comparison": "insert minus no-op", "source": "profile", "voxels": "described"},
            "Inserting the profile's words, against an edit that changes nothing",
        ),
        (
            {"comparison": "no-op minus remove", "source": "description", "voxels": "exchanged"},
            "An edit that changes nothing, against removing the image's words, "
            "words exchanged between voxels (control)",
        ),
        (
            {"comparison": "remove: profile minus description", "source": "both"},
            "Removing the profile's words, against the image's words",
        ),
        (
            {"comparison": "correlation of predicted and true shift", "source": "both"},
            "Correlation of predicted and true shift",
        ),
    ],
)
def test_comparisons_are_written_in_words(row, label):
    assert validation.comparison(row, page.Unit()) == label


@pytest.mark.usefixtures("quick")
def test_a_page_has_one_name_for_r_squared_and_for_the_rung(run):
    record = json.loads((run / "run.json").read_text())
    record["stages"]["data"]["summary"] = {"warning": "Of copies R2 is no test"}
    (run / "run.json").write_text(json.dumps(record))
    table = artifacts.read_table(run / "voxels.tsv")
    reason = table["reason"].where(table["explained"], "R2 below 0.1")
    artifacts.write_table(run / "voxels.tsv", table.assign(reason=reason))
    text = re.sub(r"<script.*?</script>", "", write_report(run, max_examples=1).read_text(encoding="utf-8"), flags=re.S)
    assert "Of copies R² is no test" in text and "R² below 0.1" in text and not re.search(r"\bR2\b", text)
    assert "explained" in text and not re.search(r"\bdescribed\b(?! in words)", text)
