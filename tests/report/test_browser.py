"""The report in a real browser: what a reader does on it, on which screen, who can use it, and how long it takes.

Needs the extra `browser` and a Chromium: `make test-browser`.
"""

import base64
import io
import shutil
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import screenshots
from mine_jax.report import write_report
from tests.report.conftest import read_images
from tests.report.planted import many_voxels

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make test-browser")
pytestmark = pytest.mark.skipif(screenshots.chromium() is None, reason="no Chromium on this machine")

# From the event to the frame after it was drawn, in milliseconds; the fastest of three.
TIMED = """async (act) => {
  const times = [];
  for (let turn = 0; turn < 3; turn++) {
    const start = performance.now();
    act(turn);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    times.push(performance.now() - start);
  }
  return Math.min(...times);
}"""


@pytest.fixture(scope="module")
def browser():
    with screenshots.browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(original, tmp_path_factory):
    directory = tmp_path_factory.mktemp("browser") / "run"
    shutil.copytree(original, directory)
    return write_report(directory, read_images=read_images, max_examples=2)


@pytest.fixture
def page(browser, report):
    """The report on a wide screen; at the end, that there was no error and nothing was fetched."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: message.type == "error" and said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    assert not said
    assert all(url.startswith("data:") or url == report.as_uri() for url in asked)
    opened.close()


def pixels(page):
    """The map [height, width, 3] as it is drawn."""
    uri = page.evaluate("document.getElementById('explorer-map').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_word_is_searched(page, report):
    before = pixels(page)
    page.fill("#explorer-word", "face")
    page.keyboard.press("Enter")
    words = pd.read_csv(report.parent / "profile/words.tsv", sep="\t")
    voxels = pd.read_csv(report.parent / "voxels.tsv", sep="\t")
    having = set(words.loc[words["word"] == "face", "voxel_id"]) & set(voxels.loc[voxels["explained"], "voxel_id"])
    legend = page.inner_text("#explorer-legend")
    assert "Weight of “face” in the profile" in legend and f"{len(having)} explained voxels" in legend
    assert page.input_value("#explorer-layer") == "word"
    after = pixels(page)
    assert before.shape == after.shape and (before != after).any()
    page.fill("#explorer-word", "nowhere")
    page.keyboard.press("Enter")
    assert "“nowhere” is in no profile of this run." in page.inner_text("#explorer-legend")


def test_a_click_shows_the_voxel_that_lies_there(page, report):
    page.select_option("#explorer-layer", "r2")
    colored = (pixels(page) != 255).any(-1)
    # the middle of the largest block of color: a voxel, not a letter
    rows, columns = np.nonzero(colored & np.roll(colored, 5, 0) & np.roll(colored, 5, 1) & np.roll(colored, -5, 1))
    y, x = rows[len(rows) // 2], columns[len(rows) // 2]
    page.click("#explorer-map", position={"x": int(x), "y": int(y)})
    title = page.inner_text("#explorer-panel h3")
    voxels = pd.read_csv(report.parent / "voxels.tsv", sep="\t", keep_default_na=False).set_index("voxel_id")
    chosen = voxels.loc[int(title.split()[1].rstrip(","))]
    assert title == f"Voxel {chosen.name}, {chosen['rois'].replace(';', ', ')}"
    shown = page.inner_text("#explorer-panel")
    assert f"Claim: {chosen['claim']}." in shown and (chosen["r2"] == "" or f"R² {float(chosen['r2']):.2f}" in shown)
    marked = np.argwhere((pixels(page) == [213, 94, 0]).all(-1))
    assert (marked.min(0) <= [y, x]).all() and ([y, x] <= marked.max(0)).all()
    assert np.ptp(marked, axis=0).max() < 40


def test_heat_maps_are_switched_to_photos(page, report):
    pairs = pd.read_csv(report.parent / "attribution/pairs.tsv", sep="\t")
    page.fill("#explorer-find", str(pairs["voxel_id"].iloc[0]))
    page.keyboard.press("Enter")
    first = "#explorer-panel .examples canvas"

    def colored():
        page.wait_for_function(f"document.querySelector('{first}').toDataURL().length > 5000")
        uri = page.evaluate(f"document.querySelector('{first}').toDataURL()")
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            drawn = np.asarray(image.convert("RGB")).astype(int)
        # sky and grass are blue and green; heat on grey is orange or violet
        return ((drawn[..., 1] > drawn[..., 0] + 20) | (drawn[..., 2] > drawn[..., 0] + 30)).mean()

    heat = colored()
    assert "full color at ±" in page.inner_text("#explorer-panel")
    page.click("#explorer-heat")
    assert colored() > 0.5 > 0.1 > heat
    assert page.evaluate("document.activeElement.textContent") == "Show the heat maps"


def test_maps_are_switched(page):
    seen = {}
    names = page.eval_on_selector_all("#explorer-layer option", "options => options.map((option) => option.value)")
    assert {"r2", "ceiling", "claim", "category", "word"} == set(names)
    for name in names:
        page.select_option("#explorer-layer", name)
        seen[name] = (page.inner_text("#explorer-legend strong"), pixels(page).tobytes())
    assert len({title for title, _ in seen.values()}) == len({drawn for _, drawn in seen.values()}) == len(names)


def test_dark_mode(page):
    color = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    assert light == "rgb(255, 255, 255)" and page.evaluate(color) == "rgb(20, 23, 28)"


@pytest.mark.parametrize("width", [400, 320])
def test_nothing_is_wider_than_a_phone(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    page.fill("#explorer-find", "FFA")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_is_wider_than_paper(page):
    page.set_viewport_size({"width": 720, "height": 1000})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wide = """() => [...document.querySelectorAll("main *")].filter((part) => part.getBoundingClientRect().right > 721)
      .map((part) => part.textContent.slice(0, 80))"""
    assert page.evaluate(wide) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_of_axe(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    page.fill("#explorer-find", "FFA")
    page.keyboard.press("Enter")
    found = axe.Axe().run(page).response["violations"]
    grave = {
        rule["id"]: [node["html"][:200] for node in rule["nodes"][:3]]
        for rule in found
        if rule["impact"] in ("serious", "critical")
    }
    assert not grave


def test_times_at_twenty_thousand_voxels(browser, tmp_path, capsys):
    many_voxels(tmp_path, 20_000)
    path = write_report(tmp_path)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector("#explorer-map", state="visible")
    opened = time.perf_counter() - start
    search = page.evaluate(
        f"""() => ({TIMED})((turn) => {{
          const field = document.getElementById("explorer-word");
          field.value = `word${{turn}}`;
          field.dispatchEvent(new Event("change"));
        }})"""
    )
    click = page.evaluate(
        f"""() => ({TIMED})((turn) => {{
          const map = document.getElementById("explorer-map"), box = map.getBoundingClientRect();
          const at = {{ clientX: box.left + 60 + 9 * turn, clientY: box.top + 60 }};
          map.dispatchEvent(new MouseEvent("click", at));
        }})"""
    )
    assert page.inner_text("#explorer-panel h3").startswith("Voxel ")
    page.close()
    with capsys.disabled():
        sys.stdout.write(f"\n20,000 voxels: opens in {opened:.2f} s, search {search:.0f} ms, click {click:.0f} ms\n")
    assert opened < 3 and search < 300 and click < 200
