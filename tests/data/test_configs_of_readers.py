"""The configurations of data sets: `--dry-run` of each works without any data."""

import pathlib

import pytest
from typer.testing import CliRunner

from mine_jax.cli import app

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
NAMES = ("nsd", "nsd-fsaverage", "bids", "laion_fmri", "things", "algonauts2023", "bold5000")


@pytest.mark.parametrize("name", NAMES)
def test_dry_run(name, tmp_path):
    root = [] if name == "bids" else ["--set", f"data.root={tmp_path}"]
    more = ["--out", str(tmp_path / "out"), "--set", "features.model=phantom", *root, "--dry-run"]
    done = CliRunner().invoke(app, ["run", str(CONFIGS / f"{name}.toml"), *more])
    assert done.exit_code == 0, done.output
    assert "data" in done.output and not (tmp_path / "out/data").exists()
