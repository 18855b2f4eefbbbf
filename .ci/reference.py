"""Writes the reference of all packages as HTML: docstrings, with the README of each folder on the page of its package.

python .ci/reference.py site

Links of a README to another folder lead to the page of that package; other files of the repository that it
links to are copied into site/files.
"""

import importlib
import os
import pkgutil
import re
import shutil
import sys
import warnings
from pathlib import Path

import pdoc

PACKAGES = ("mine_jax", "mine_kernels")
# What pdoc cannot resolve, and shows as it is written: types in generated constructors of tuples and dataclasses, and
# fields that a typed dictionary inherits before Python 3.12.
KNOWN = ("Error parsing type annotation .*__init__", "Cannot determine where .*Settings")
# Scripts on torch and diffusers, run by hand.
LEFT_OUT = "mine_jax.phantom.training"
ROOT = Path(__file__).resolve().parent.parent
READMES = {"mine_jax": ROOT / "README.md", "mine_kernels": ROOT / "kernels" / "README.md"}


# The target of a link or picture: no other site, no place on the same page.
TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def readmes() -> dict[str, Path]:
    """Finds the packages whose page has a README, by name."""
    found = {}
    for package in PACKAGES:
        root = importlib.import_module(package)
        names = [module.name for module in pkgutil.walk_packages(root.__path__, f"{package}.") if module.ispkg]
        for name in [package, *(name for name in names if not name.startswith(LEFT_OUT))]:
            own = Path(str(importlib.import_module(name).__file__)).with_name("README.md")
            found[name] = READMES.get(name, own)
    return {name: path for name, path in found.items() if path.is_file()}


def linked(text: str, readme: Path, page: Path, pages: dict[Path, Path], site: Path) -> str:
    """Turns links to files of the repository into links of the site.

    Args:
        text: of a README.
        readme: its file.
        page: the page that shows it, below the site.
        pages: folder of the repository -> its page.
        site: folder of the site; receives copies of files that have no page.
    """

    def of_site(match: re.Match[str]) -> str:
        target = (readme.parent / match[1]).resolve()
        target = target / "README.md" if target.is_dir() else target
        folder = target.parent if target.name == "README.md" else target
        if folder in pages:
            wanted = pages[folder]
        elif target.is_file() and target.is_relative_to(ROOT):
            wanted = Path("files") / target.relative_to(ROOT)
            (site / wanted).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, site / wanted)
        else:
            return match[0]
        return Path(os.path.relpath(wanted, page.parent)).as_posix()

    return TARGET.sub(of_site, text)


def page_of(package: str) -> Path:
    """The page of a package, below the site."""
    return Path(*package.split(".")).with_suffix(".html")


def add_readmes(site: Path) -> None:
    """Puts the README of each folder below the docstring of its package."""
    found = readmes()
    pages = {path.parent.resolve(): page_of(name) for name, path in found.items()}
    pages[ROOT / "mine_jax"] = page_of("mine_jax")
    for name, path in found.items():
        text = linked(path.read_text(encoding="utf-8"), path, page_of(name), pages, site)
        module = importlib.import_module(name)
        module.__doc__ = f"{module.__doc__}\n\n{text}"


if __name__ == "__main__":
    out = Path(sys.argv[1])
    warnings.simplefilter("error")
    for message in KNOWN:
        warnings.filterwarnings("ignore", message)
    add_readmes(out)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*PACKAGES, f"!{LEFT_OUT}", output_directory=out)
