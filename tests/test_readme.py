"""The pages for people. README: its script runs, its configuration is valid; links of all pages lead somewhere."""

import re
from pathlib import Path

import pytest

from mine_jax import config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_scripts_run(tmp_path, monkeypatch, capsys):
    """Each goes on with the arrays of those before."""
    monkeypatch.chdir(tmp_path)
    first, second, third = blocks("python")
    assert len([line for line in first.splitlines() if line]) <= 8
    names = {}
    exec(compile(first, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("Verdicts: ") and Path("voxels.tsv").is_file()
    assert names["verdicts"].profiles.explained.mean() > 0.5
    exec(compile(second, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("The critical tokens of this image read as ")
    exec(compile(third, "README.md", "exec"), names)
    accuracy, sentence = capsys.readouterr().out.splitlines()
    assert float(accuracy.rpartition(" ")[2]) > 0.2 and sentence.startswith(
        "The critical tokens of this image read as "
    )


def test_the_configuration_is_valid(tmp_path):
    (text,) = blocks("toml")
    path = tmp_path / "v4.toml"
    path.write_text(text, encoding="utf-8")
    assert config.read(path).encoder.pool == 2


PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(ROOT.glob("[a-z]*/**/README.md"))]


def headings(page):
    lines = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^a-z0-9 _-]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", [pytest.param(ROOT / page, id=str(page).removeprefix(f"{ROOT}/")) for page in PAGES])
def test_local_links_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        led_to = page.parent / name if name else page
        assert led_to.exists(), target
        assert not heading or heading in headings(led_to), target
