"""Figures for papers: what they draw, their size and type, text as it is, and what is left out of a run."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import matplotlib
import matplotlib.backends.backend_agg
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mine_jax import artifacts
from mine_jax.errors import ConfigError
from mine_jax.report import figures, plates, reading, write_figures
from mine_jax.report.figures import heat, style
from mine_jax.report.sections import accuracy
from tests.report.conftest import GRID, read_images, scene
from tests.report.planted import truth_voxels


@pytest.fixture(scope="module")
def with_truth(original, tmp_path_factory):
    """A run whose voxels have planted truth and whose edits have true shifts; nobody changes it."""
    run = shutil.copytree(original, tmp_path_factory.mktemp("figures") / "run")
    artifacts.write_table(run / "truth_voxels.tsv", truth_voxels())
    edits = artifacts.read_table(run / "validation/edits.tsv")
    artifacts.write_table(run / "validation/edits.tsv", edits.assign(true_shift=2 * edits["shift"]))
    return run


def widths(fig):
    return fig.get_size_inches()[0] * 25.4


def test_every_figure_of_a_run_is_written(with_truth, reader, tmp_path):
    written, left_out = write_figures(with_truth, tmp_path / "figs", kind="svg", read_images=reader)
    assert not left_out and len(written) == 12 and all(path.parent == tmp_path / "figs" for path in written)
    for path in written:
        root = xml.etree.ElementTree.parse(path).getroot()
        width = float(root.get("width").removesuffix("pt")) / 72 * 25.4
        assert style.SINGLE - 0.1 <= width <= style.DOUBLE + 0.1
        text = path.read_text(encoding="utf-8")
        sizes = {float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", text)}
        assert sizes and 7 <= min(sizes) and max(sizes) <= 8


def test_what_is_missing_is_left_out_with_its_reason(make_run, tmp_path, reader):
    run = make_run()
    shutil.rmtree(run / "validation")
    (run / "attribution/curves.tsv").unlink()
    table = artifacts.read_table(run / "voxels.tsv")
    artifacts.write_table(run / "voxels.tsv", table.assign(noise_ceiling=np.nan, explained=False))
    written, left_out = write_figures(run, tmp_path / "figs", kind="png", read_images=reader)
    assert set(left_out) == {
        "accuracy_against_ceiling", "faithfulness", "profiles", "area_words",
        "edit_pairs", "edit_shifts", "true_shifts", "worth_of_claims",
    }  # fmt: skip
    assert "no attribution/curves.tsv" in left_out["faithfulness"]
    assert "noise ceiling of no voxel is known" in left_out["accuracy_against_ceiling"]
    assert "validation/summary.tsv" in left_out["edit_pairs"]
    assert {path.stem for path in written} == set(plates._FIGURES) - set(left_out)
    without_photos = write_figures(run, tmp_path / "figs").left_out
    assert without_photos["heat_maps"] == "The photos of this run cannot be read."


def test_message(with_truth, tmp_path):
    with pytest.raises(ConfigError, match="pdf, svg, png, not as 'jpeg'"):
        write_figures(with_truth, tmp_path, kind="jpeg")


def test_same_tables_same_file(with_truth, tmp_path):
    curves = artifacts.read_table(with_truth / "attribution/curves.tsv")
    for kind in style.KINDS:
        first, second = (
            figures.save(figures.faithfulness_curves(curves), tmp_path / f"{n}.{kind}").read_bytes() for n in range(2)
        )
        assert first == second


def test_a_figure_is_written_whole_or_not_at_all(tmp_path):
    """The one that was there stays, and nothing lies beside it."""
    path = tmp_path / "x.svg"
    path.write_text("the old one", encoding="utf-8")

    class Broken:
        def savefig(self, file, **_):
            file.write_text("half of ", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figures.save(Broken(), path)
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ["the old one"]


@pytest.mark.parametrize("settings", [{}, {"text.usetex": True, "font.size": 30, "axes.grid": False}])
def test_text_is_drawn_as_it_is_whatever_the_user_set(tmp_path, settings):
    hostile = ["$\\frac{x}{$", "<b>&", "a\x07\u202eb", "猫"]
    words = pd.DataFrame({"word": hostile, "weight": [0.4, 0.3, 0.2, 0.1], "low": 0.0, "high": 0.5})
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context(settings):
        fig = figures.profile_bars({"$bad_{": words})
        text = figures.save(fig, tmp_path / "x.svg").read_text(encoding="utf-8")
    assert dict(matplotlib.rcParams) == before
    shown = "".join(xml.etree.ElementTree.fromstring(text).itertext())
    assert all(word in shown for word in ("$\\frac{x}{$", "<b>&", "ab", "?", "$bad_{"))


def test_points_and_line_of_the_ceiling():
    rng = np.random.default_rng(1)
    voxels = pd.DataFrame({"noise_ceiling": rng.uniform(size=50), "r2": rng.uniform(-0.2, 0.9, 50)})
    (ax,) = figures.accuracy_against_ceiling(voxels).axes
    np.testing.assert_allclose(ax.collections[0].get_offsets(), voxels[["noise_ceiling", "r2"]])
    groups = figures.accuracy_against_ceiling(voxels.assign(explained=voxels["r2"] > 0.4)).axes[0].collections
    assert sorted(len(group.get_offsets()) for group in groups) == sorted((voxels["r2"] > 0.4).value_counts())


def test_ladder_shows_the_highest_claim_of_each_voxel():
    voxels = pd.DataFrame(
        {"area": ["a"] * 4 + ["b"] * 2, "claim": ["none", "words", "words", "causal", "none", "none"]}
    )
    (ax,) = figures.claims_by_area(voxels).axes
    by_claim = {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers}
    assert by_claim == {
        "none": [25, 100], "predicted": [0, 0], "reliable": [0, 0], "words": [50, 0], "localised": [0, 0],
        "causal": [25, 0],
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a (4)", "b (2)"]


def test_area_words_are_mean_shares_of_the_profile():
    rows = [("a", 1, "face", 0.6), ("a", 2, "face", 0.2), ("a", 2, "dog", 0.3), ("b", 3, "dog", 0.5)]
    words = pd.DataFrame(rows, columns=["area", "voxel_id", "word", "weight"])
    ax = figures.area_words(words, n_words=1).axes[0]
    columns = [label.get_text() for label in ax.get_xticklabels()]
    areas = [label.get_text() for label in ax.get_yticklabels()]
    drawn = pd.DataFrame(np.asarray(ax.images[0].get_array()), index=areas, columns=columns)
    assert drawn.to_dict() == {
        "face": {"a (2)": pytest.approx(0.4), "b (1)": 0}, "dog": {"a (2)": pytest.approx(0.15), "b (1)": 0.5}
    }  # fmt: skip


def test_marks_of_categories():
    rows = [("a", "face", 0.9, 0.01, True), ("a", "dog", 0.2, 0.04, False), ("b", "face", -0.3, 0.01, False)]
    table = pd.DataFrame(rows, columns=["roi", "category", "enrichment", "q", "preferred"])
    ax = figures.area_categories(table).axes[0]
    assert {(text.get_text(), *text.get_position()) for text in ax.texts} == {("★", 0, 0), ("·", 1, 0)}


def test_false_discoveries_are_counted_among_the_claimed():
    voxels = pd.DataFrame({"kind": ["concept"] * 3 + ["noise"], "explained": [True, True, False, False]})
    voxels = voxels.assign(true_ceiling=0.5, q_predicted=0.001, q_reliable=0.001, q_words=[0.01, 0.02, 0.03, 0.06])
    (ax,) = figures.false_discoveries(voxels).axes
    claimed, false = ax.containers[0].lines[0].get_data()
    share = dict(zip(claimed.tolist(), false.tolist(), strict=True))
    assert share[0.05] == 0 and share[0.075] == share[0.2] == 0.25


@pytest.mark.parametrize(("sizes", "panels"), [((1000,), 2), ((500, 1000), 3)])
def test_a_study_has_a_panel_for_each_question(sizes, panels):
    fig = figures.worth_of_claims(truth_voxels(seeds=2, sizes=sizes, models=("phantom", "phantom-captions")))
    assert len(fig.axes) == panels and widths(fig) == pytest.approx(style.DOUBLE)
    labels = [text.get_text() for text in fig.axes[1].get_legend().get_texts()]
    assert {"concept", "place", "phantom", "phantom-captions"} == set(labels)


def test_power_is_the_share_at_each_ceiling():
    voxels = truth_voxels()
    (ax,) = figures.power_against_ceiling(voxels).axes
    concept = next(line for line in ax.lines if line.get_label() == "concept")
    x, y = concept.get_data()
    part = voxels[(voxels["kind"] == "concept") & voxels["true_ceiling"].between(0.35, 0.45, inclusive="left")]
    assert y[np.argmin(np.abs(x - 0.4))] == pytest.approx(part["explained"].mean())


def test_areas_of_a_few_voxels_are_left_out():
    voxels = pd.DataFrame({"rois": ["a"] * 3 + ["b"] * 2 + ["c;a"] * 3, "r2": np.arange(8.0)})
    values = accuracy.by_area(voxels)
    assert list(values) == ["c", "a"] and values["a"].tolist() == [0, 1, 2, 5, 6, 7]


def test_intervals_are_those_of_student_and_need_three_seeds():
    voxels = truth_voxels(seeds=4)
    (ax,) = figures.power_against_ceiling(voxels[voxels["kind"] == "concept"]).axes
    band = ax.collections[0].get_paths()[0].vertices
    part = voxels[(voxels["kind"] == "concept") & voxels["true_ceiling"].between(0.35, 0.45, inclusive="left")]
    shares = part.groupby("seed")["explained"].mean().to_numpy()
    low, high = scipy.stats.t.interval(0.95, 3, shares.mean(), scipy.stats.sem(shares))
    at = np.sort(band[np.isclose(band[:, 0], 0.4), 1])
    np.testing.assert_allclose([at[0], at[-1]], np.clip([low, high], 0, 1), atol=1e-9)
    (ax,) = figures.power_against_ceiling(truth_voxels(seeds=2)).axes
    assert all(np.ptp(path.vertices[np.isclose(path.vertices[:, 0], 0.4), 1]) == 0
               for collection in ax.collections for path in collection.get_paths())  # fmt: skip


def test_backend_of_a_notebook_that_is_not_here_stops_nothing():
    """MPLBACKEND as every notebook's shell exports it, in an environment without notebooks."""
    code = "from mine_jax import _optional; _optional.require('matplotlib', extra='report', why='draw')"
    environment = {**os.environ, "MPLBACKEND": "module://no_such_package.backend_inline"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def drawn(with_truth):
    """Name of each function of the library -> a figure of it, drawn."""
    run = reading.open_run(with_truth, read_images=read_images)
    made = {name: draw(run) for name, draw in plates._FIGURES.items()}
    voxels, truth = accuracy.scored(run.voxels), artifacts.read_table(with_truth / "truth_voxels.tsv")
    long = "an-area-with-a-name-much-longer-than-any-axis-has-room-for"
    photo = heat.fit_to_grid(scene("3"), GRID, crop=None)
    shown = figures.HeatMap("", photo, np.linspace(-1, 1, 64), np.arange(5), GRID, 1.0)
    made |= {
        "faithfulness_curves": made.pop("faithfulness"),
        "profile_bars": made.pop("profiles"),
        "accuracy_distribution": figures.accuracy_distribution(voxels["r2"].to_numpy(), limits=(-0.1, 1.0)),
        "accuracy_by_area, long names": figures.accuracy_by_area({long: np.linspace(-0.2, 0.9, 30)}),
        "claims_by_area, long names": figures.claims_by_area(pd.DataFrame({"area": [long], "claim": ["words"]})),
        "false_discoveries": figures.false_discoveries(truth),
        "power_against_ceiling": figures.power_against_ceiling(truth),
        "worth_of_claims, by images": figures.worth_of_claims(
            truth_voxels(seeds=2, sizes=(500, 2000), models=("phantom", "phantom-captions"))
        ),
        "heat_map": figures.heat_map(shown),
        "heat_scale": figures.heat_scale(),
    }
    for fig in made.values():
        matplotlib.backends.backend_agg.FigureCanvasAgg(fig).draw()
    return made


def ticks(axis):
    """The labels of an axis, by whether they are drawn: those of ticks outside its limits, or of no axis, never are."""
    low, high = sorted(axis.get_view_interval())
    near = 1e-6 * (high - low)
    labels = {True: [], False: []}
    for tick in axis.get_major_ticks() + axis.get_minor_ticks():
        is_inside = low - near <= tick.get_loc() <= high + near
        labels[bool(is_inside and axis.axes.axison)] += [tick.label1, tick.label2]
    return labels


def test_no_text_of_any_figure_leaves_its_canvas(drawn):
    library = {name for name, value in vars(figures).items() if callable(value)} - {"HeatMap", "EditPair", "save"}
    assert library == {name.split(",")[0] for name in drawn}
    for name, fig in drawn.items():
        axes = [axis for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)]
        never = {id(label) for axis in axes for label in ticks(axis)[False]}
        texts = [text for text in fig.findobj(matplotlib.text.Text) if text.get_visible() and id(text) not in never]
        seen = [text for text in texts if text.get_text().strip()]
        assert seen or name == "heat_map"
        for text in seen:
            box = text.get_window_extent()
            is_inside = min(box.x0, box.y0) >= -0.5 and box.x1 <= fig.bbox.x1 + 0.5 and box.y1 <= fig.bbox.y1 + 0.5
            assert is_inside, f"{name}: {text.get_text()!r} at {box.extents} of {fig.bbox.extents}"


def test_every_axis_of_numbers_says_what_they_are(drawn):
    number = re.compile(r"[\u2212-]?[\d.,]+(?:e[\u2212-]?\d+)?")
    n_axes = 0
    for name, fig in drawn.items():
        for ax in fig.axes:
            for axis, over_all in ((ax.xaxis, fig.get_supxlabel()), (ax.yaxis, fig.get_supylabel())):
                labels = [label.get_text() for label in ticks(axis)[True] if label.get_visible()]
                labels = [label for label in labels if label]
                if labels and all(number.fullmatch(label) for label in labels):
                    n_axes += 1
                    assert axis.get_label_text() or over_all, f"{name}: no label for {labels}"
    assert n_axes >= len(drawn)
