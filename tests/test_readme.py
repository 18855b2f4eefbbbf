"""The pages for people. README: its script runs, its configuration is valid; links of all pages lead somewhere."""

import re
from pathlib import Path

import pytest

from mine_jax import config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_script_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("python")
    exec(compile(script, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("The response to this image is driven by ")


def test_the_configuration_is_valid(tmp_path):
    (text,) = blocks("toml")
    path = tmp_path / "v4.toml"
    path.write_text(text, encoding="utf-8")
    assert config.read(path).encoder.pool == 2


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_local_links_exist(page):
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
