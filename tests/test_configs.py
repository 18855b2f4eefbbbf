"""The files in configs/: they load, and paper.toml says of every number where it is from."""

import re
import tomllib
from pathlib import Path

import pytest

from mine_jax import config

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").glob("*.toml"))
PAPER = ROOT / "configs" / "paper.toml"
READ = config.read(PAPER)
# of the kinds that paper.toml chooses
DEFAULTS = {section: type(getattr(READ, section))().model_dump() for section in config.Config.model_fields}
TAGS = ("paper", "parent", "ours")


def paper_tags():
    """Returns {(section, key): tag} from the comments of paper.toml."""
    tags, section = {}, None
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section = header.group(1)
        elif entry := re.match(r"(\w+) = .*?#\s*(\w+)", line):
            tags[section, entry.group(1)] = entry.group(2)
    return tags


def stated_in_config():
    """Yields (section, key, comment) of every field of config.py that has a comment."""
    families = {section: type(getattr(READ, section)).__mro__ for section in DEFAULTS}
    names = {model.__name__: section for section, family in families.items() for model in family}
    section = None
    for line in Path(config.__file__).read_text(encoding="utf-8").splitlines():
        if header := re.match(r"class (\w+)\(", line):
            section = names.get(header.group(1))
        elif section and (entry := re.match(r"    (\w+): .*  # (.*)", line)):
            yield section, entry.group(1), entry.group(2)


def is_number(value):
    if isinstance(value, tuple):
        return bool(value) and all(is_number(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loads(path):
    config.read(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_gives_the_command(path):
    assert f"mine-jax run configs/{path.name}" in path.read_text(encoding="utf-8").split("\n[", 1)[0]


def test_paper_lists_every_number_with_its_tag():
    tags = paper_tags()
    wanted = {(s, key) for s, values in DEFAULTS.items() for key, value in values.items() if is_number(value)}
    assert wanted <= set(tags) and set(tags.values()) <= set(TAGS)
    written = tomllib.loads(PAPER.read_text(encoding="utf-8"))
    assert {(s, key) for s, values in written.items() for key in values} == set(tags)


def test_paper_differs_from_the_defaults_only_where_the_paper_says_so():
    tags, values = paper_tags(), READ.model_dump()
    differing = {(s, k) for s in values for k in values[s] if values[s][k] != DEFAULTS[s][k]}
    assert differing and {tags[entry] for entry in differing} == {"paper"}


def test_paper_and_the_comments_of_config_agree():
    tags, values = paper_tags(), READ.model_dump()
    stated = {}
    for section, key, comment in stated_in_config():
        if match := re.search(r"; paper: (\S+)", comment):
            stated[section, key] = match.group(1)
        elif re.match(r"paper\b", comment):
            stated[section, key] = str(DEFAULTS[section][key])
    assert len(stated) >= 8
    for (section, key), value in stated.items():
        number = is_number(values[section][key])
        assert tags[section, key] == "paper", (section, key)
        assert values[section][key] == (float(value) if number else value), (section, key)
    assert {entry for entry, tag in tags.items() if tag == "paper"} - set(stated) == {("data", "kind")}
