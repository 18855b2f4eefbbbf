"""Prints what users install at the lowest versions that pyproject.toml allows, for pip's `-c`; test tools are any."""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?>=([^,;\s]+)")

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
groups = [project["dependencies"], *(extras[name] for name in extras if name not in ("browser", "docs", "test"))]
for requirement in (entry for group in groups for entry in group):
    if bound := REQUIREMENT.match(requirement):
        print(f"{bound[1]}=={bound[2]}")  # noqa: T201
