"""Prints every dependency of pyproject.toml at the lowest version that it allows, for pip's `-c`."""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?>=([^,;\s]+)")

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
groups = [project["dependencies"], *project["optional-dependencies"].values()]
for requirement in (entry for group in groups for entry in group):
    if bound := REQUIREMENT.match(requirement):
        print(f"{bound[1]}=={bound[2]}")  # noqa: T201
