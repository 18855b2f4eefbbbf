"""The index over several runs."""

import re
import shutil

import pandas as pd
import pytest

from mine_jax.errors import MissingInputError
from mine_jax.report import write_demo_report, write_report

pytestmark = pytest.mark.usefixtures("quick")


def test_index(make_run, tmp_path, reader):
    first, second = make_run("subj01"), make_run("subj <b> 02")
    write_report(first, max_examples=1)
    shutil.copy(first / "truth.tsv", tmp_path / "truth.tsv")
    path = write_demo_report(tmp_path, [first, second], read_images=reader)
    html = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.html"
    assert re.findall(r'href="([^#"]+)"', html) == ["subj01/report.html"]
    assert "subj &lt;b&gt; 02 (its report has not been written)" in html
    assert "0.610 (not met)" in html and "1 of 2 targets met" in html
    assert html.count('alt="Scene') == 10
    assert html.count("<script") == 1 and str(tmp_path) not in html


def test_link_of_a_strange_name(make_run, tmp_path):
    run = make_run('a "b" & c')
    write_report(run, max_examples=1)
    assert 'href="a%20%22b%22%20%26%20c/report.html"' in write_demo_report(tmp_path, [run]).read_text(encoding="utf-8")


def test_without_truth(make_run, tmp_path):
    run = make_run()
    (run / "truth.tsv").unlink()
    html = write_demo_report(tmp_path, [run]).read_text(encoding="utf-8")
    assert "nothing has been compared yet" in html and "Scenes" not in html


def test_message(tmp_path):
    with pytest.raises(MissingInputError, match="is no run directory"):
        write_demo_report(tmp_path, [tmp_path / "x"])


def test_the_first_screen_is_the_answer_over_all_subjects(make_run, tmp_path):
    runs = [make_run("subj01"), make_run("subj02")]
    html = write_demo_report(tmp_path, runs).read_text(encoding="utf-8")
    assert html.count("subj01, the first subject.") == 1
    text = re.sub(r"<[^>]*>", " ", html)
    text = " ".join(text[text.index("What was found") : text.index("Subjects")].split())
    voxels = pd.read_csv(runs[0] / "voxels.tsv", sep="\t", keep_default_na=False)
    assert f"{2 * (voxels['claim'] == 'words').sum()} explained" in text
    assert re.search(r"FFA face \(2 of 2\) [\w, ]*face", text) and "V1 no preference" in text
