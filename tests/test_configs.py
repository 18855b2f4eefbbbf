"""The files in configs/: they load, and paper.toml says of every number where it is from."""

import re
import tomllib
from pathlib import Path

import pytest

from mine_jax import config
from mine_jax.config import keys

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").glob("*.toml"))
PAPER = ROOT / "configs" / "paper.toml"
READ = config.read(PAPER)
# of the kinds that paper.toml chooses
DEFAULTS = {section: type(getattr(READ, section))().model_dump() for section in config.Config.model_fields}
# what the models of these kinds say of each key but `kind`
KEYS = {
    (section, key.name): key
    for section in DEFAULTS
    for key in keys.keys(section)
    if not key.kinds or getattr(READ, section).kind in key.kinds
}


def paper_tags():
    """Returns {(section, key): tag} from the comments of paper.toml."""
    tags, section = {}, None
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section = header.group(1)
        elif entry := re.match(r"(\w+) = .*?#\s*(\w+)", line):
            tags[section, entry.group(1)] = entry.group(2)
    return tags


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
    assert wanted <= set(tags) and set(tags.values()) <= set(keys.TAGS)
    written = tomllib.loads(PAPER.read_text(encoding="utf-8"))
    assert {(s, key) for s, values in written.items() for key in values} == set(tags)


def test_paper_differs_from_the_defaults_only_where_the_paper_says_so():
    tags, values = paper_tags(), READ.model_dump()
    differing = {(s, k) for s in values for k in values[s] if values[s][k] != DEFAULTS[s][k]}
    assert differing and {tags[entry] for entry in differing} == {"paper"}


def test_paper_and_the_descriptions_agree():
    tags, values = paper_tags(), READ.model_dump()
    of_paper = set()
    for (section, name), key in KEYS.items():
        source, _, stated = key.instead.partition(": ")
        if key.tag == "paper" or source == "paper":
            of_paper.add((section, name))
            stated = stated or DEFAULTS[section][name]
            assert values[section][name] == (float(stated) if is_number(values[section][name]) else stated), name
        elif (section, name) in tags:
            assert tags[section, name] == key.tag, name
    assert len(of_paper) >= 8
    # the controls are named, not numbered, and the kinds of data and encoder are no keys with a description
    assert of_paper - {("validation", "conditions")} == {
        entry for entry, tag in tags.items() if tag == "paper" and entry[1] != "kind"
    }


@pytest.mark.parametrize("section", config.Config.model_fields)
def test_every_key_says_what_it_means_and_where_its_default_is_from(section):
    assert config.Config.model_fields[section].description
    assert all(model.__doc__ for model in keys.models(section).values())
    for key in keys.keys(section):
        assert key.description.endswith((".", "...")) and key.description.count(". ") <= 1, key
        assert (key.tag in keys.TAGS) == (key.default is not None), key
