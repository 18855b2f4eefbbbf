"""Redaction, numbers and bars of a page."""

import json

import pytest

from mine_jax.report import page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ada/data/photos.zip", "…/photos.zip"),
        ("/home/ada", "~"),
        ("file in ~/brains/x.npy.", "file in …/x.npy."),
        ("C:\\Users\\ada\\x.npy", "…/x.npy"),
        ("cannot open '/data/nsd/a.hdf5': no", "cannot open '…/a.hdf5': no"),
        ("roi/selectivity.tsv", "roi/selectivity.tsv"),
        ("and/or, 1/2, R2 / ceiling", "and/or, 1/2, R2 / ceiling"),
        ("hf_abcdefghijkl", "[redacted]"),
        ("HF_TOKEN=abc", "HF_TOKEN=[redacted]"),
        ("hf_token: abc123", "hf_token: [redacted]"),
        ("password: swordfish", "password: [redacted]"),
        ("api_key=abc", "api_key=[redacted]"),
        ("worse than ridge on the mean token: try more", "worse than ridge on the mean token: try more"),
        ("tokens: 50", "tokens: 50"),
        ("image-token 5", "image-token 5"),
    ],
)
def test_redact(text, shown):
    """F-98: tokens and paths."""
    assert page.redact(text) == shown


def test_bars_hold_zero():
    bars = page.Bars("x", [page.Bar("a", 2.0, 1.0, 3.0), page.Bar("b", -1.0)])
    assert bars.span() == (-1.0, 3.0)
    assert bars.place(0.0) == 25.0 and bars.place(3.0) == 100.0 and bars.place(9.0) == 100.0
    assert page.Bars("x", []).span() == (0.0, 1.0)


def test_number_columns_are_found():
    table = page.Table("", ("a", "b", "c", "d"), [("1", "2,000", "0.1 to 0.2", "yes"), ("2", "not known", "", "no")])
    assert [table.is_number(i) for i in range(4)] == [False, True, True, False]


def test_units_are_written_in_the_right_number():
    assert f"{page.Unit()} {page.Unit('neuron').many} {page.Unit('vertex').many}" == "voxel neurons vertices"
    assert page.Unit("vertex").count(1) == "1 vertex" and page.Unit("vertex").count(1200) == "1,200 vertices"
    assert page.capital(page.Unit("MUA site")) == "MUA site" and page.capital(page.Unit("neuron").many) == "Neurons"


def test_json_cannot_end_its_script():
    text = page.Json('{"a": "</script><b>&"}')
    assert not set("<>&") & set(text.__html__()) and json.loads(text.__html__()) == {"a": "</script><b>&"}


def test_r2_is_written_as_pages_do():
    assert page.squared("R2 below 0.1 (r2_selection, R2); CR2, R21") == "R² below 0.1 (r2_selection, R²); CR2, R21"
