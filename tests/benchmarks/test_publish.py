"""The page of results says what the files say, and nothing else."""

import json

import pytest

from benchmarks import plot, publish, run
from benchmarks.cases import CASES

ROW = {
    "what": "ridge",
    "header": "equal work: all",
    "reference": "peer",
    "seconds": 0.125,
    "peak_mib": 40.2,
    "first_peak_mib": 90.0,
    "max_abs_err": 2e-6,
}


def _write(folder, name, rows, platform="cpu"):
    content = {"platform": platform, "device": "a device", "commit": "0123456789", "versions": {"jax": "1.2"}}
    sizes = {"voxels": 8000, "images": 5, "width": 4, "penalties": 3, "folds": 2}
    (folder / f"{name}.json").write_text(json.dumps({**content, "sizes": sizes, "rows": rows}))


def test_the_committed_page_is_what_the_results_say():
    assert publish.README.read_text(encoding="utf-8") == publish.render(publish.FOLDER / "results")


def test_a_comparison_on_a_cpu_shows_ratios_and_never_seconds(tmp_path):
    _write(tmp_path, "a", [{**ROW, "implementation": "mine_jax", "ratio": 40.589, "same_penalty": 1.0}])
    text = publish.render(tmp_path)
    assert "| `mine_jax` | 40.59 | 40 MiB | 90 MiB | 2.0e-06 | 100.0% |" in text
    assert (
        "a device, commit 0123456" in text
        and "Sizes: voxels 8000, images 5, width 4, penalties 3, folds 2." in text
        and "0.125" not in text
    )


def test_the_share_of_the_roofline_stands_beside_what_bounds_it(tmp_path):
    row = {**ROW, "implementation": "mine_jax", "ratio": 2.0, "roofline": 0.461, "bound": "memory", "signal_r2": 0.83}
    _write(tmp_path, "a", [row, {**ROW, "implementation": "peer", "ratio": 1.0}])
    text = publish.render(tmp_path)
    assert "| error | signal R2 | roofline | bound by |" in text
    assert "2.0e-06 | 0.8300 | 46% | memory |" in text and "2.0e-06 |  |  |  |" in text
    # no curve, no picture
    assert plot.FILE not in text


def test_an_accelerator_shows_seconds_too(tmp_path):
    _write(tmp_path, "a", [{**ROW, "implementation": "mine_jax", "ratio": 3.0}], platform="gpu")
    assert "| `mine_jax` | 3.00 | 0.125 | 40 MiB | 90 MiB | 2.0e-06 |" in publish.render(tmp_path)


def test_scaling_finds_the_exponent(monkeypatch, tmp_path):
    def quadratic(what, case, *, rounds, only):
        assert (what, rounds, only) == ("ridge", 2, "mine_jax")
        return [{**ROW, "implementation": "mine_jax", "seconds": 1e-6 * case.voxels**2}]

    monkeypatch.setattr(run, "benchmark", quadratic)
    rows = run.scaling("ridge", CASES["smoke"], size="voxels", values=[100, 200, 400], rounds=2)
    assert [row["scale"]["exponent"] for row in rows] == pytest.approx([2.0] * 3)
    _write(tmp_path, "a", rows)
    text = publish.render(tmp_path)
    assert "| cost | 1.00 | 4.00 | 16.00 |" in text and "as the power 2.00 of `voxels`" in text
    assert f"results/{plot.FILE}" in text


def test_the_picture_shows_every_curve_relative_to_its_start(tmp_path):
    rows = [
        {"what": "ridge", "seconds": seconds, "scale": {"size": "voxels", "value": value, "exponent": 0.5}}
        for value, seconds in ((100, 3.0), (400, 6.0))
    ]
    other = [{**row, "scale": {**row["scale"], "size": "ig_images"}} for row in rows]
    found = plot.curves({tmp_path / "a": {"rows": rows}, tmp_path / "b": {"rows": [*other, {"what": "ig"}]}})
    assert [(curve["size"], curve["values"], curve["costs"]) for curve in found["ridge"]] == [
        ("voxels", [100, 400], [1.0, 2.0]),
        ("ig_images", [100, 400], [1.0, 2.0]),
    ]
    for name in ("one.svg", "two.svg"):
        plot.draw(found, tmp_path / name, titles={"ridge": "Ridge, drawn"})
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert "voxels 100 to 400: power 0.50" in text and "images 100 to 400" in text and "Ridge, drawn" in text
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")


def test_checks_of_whole_runs_have_sections_of_their_own(tmp_path):
    common = {"device": "cpu", "commit": "0123456789", "images": 800}
    row = {
        "mean_r2_change": 7.4e-5,
        "largest_r2_change": 0.0185,
        "same_critical_tokens": 0.99321,
        "same_claim": 0.998,
        "passes": False,
    }
    (tmp_path / "precision.json").write_text(json.dumps({**common, "precision": {"tf32": row}}))
    quality = {"cpu_of_torch_as_a_multiple_of_ours": 8.72, "learning_rate": 0.01}
    (tmp_path / "time.json").write_text(json.dumps({**common, "quality": quality}))
    text = publish.render(tmp_path)
    assert "| `tf32` | +7e-05 | 2e-02 | 99.32% | 99.80% | no |" in text
    assert "## Time to the same quality" in text and "| cpu of torch as a multiple of ours | 8.72 |" in text
