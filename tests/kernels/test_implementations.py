"""Every op has its parts, its suite and its row in the table: what is forgotten fails here."""

import importlib
from pathlib import Path

import mine_kernels
import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = Path(mine_kernels.__file__).parent
OPS = sorted(path.parent.name for path in FOLDER.glob("*/op.py"))
PARTS = {"__init__", "op", "specs"}
README = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("op", OPS)
def test_every_file_of_an_op_is_an_implementation(op):
    implementations = importlib.import_module(f"mine_kernels.{op}.op").IMPLEMENTATIONS
    assert {path.stem for path in (FOLDER / op).glob("*.py")} == {*PARTS, *implementations}
    assert implementations[0] == "reference"


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_suite_over_its_implementations(op):
    suite = (Path(__file__).parent / f"test_{op}.py").read_text(encoding="utf-8")
    assert f"from mine_kernels.{op}.op import IMPLEMENTATIONS" in suite
    specs = importlib.import_module(f"mine_kernels.{op}.specs").SPECS
    assert {"smoke", "one", "roi", "subject", "whole_brain"} <= set(specs)


@pytest.mark.parametrize("name", mine_kernels.__all__)
def test_the_table_has_every_op(name):
    rows = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    for file in [part for part in rows[0].split("`") if part.endswith(".py")]:
        assert (ROOT / file).is_file(), file
