"""Writes the reference of all packages as HTML: docstrings, with the README of each folder on the page of its package.

python .ci/reference.py site
"""

import importlib
import pkgutil
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
ROOT = Path(__file__).parent.parent
READMES = {"mine_jax": ROOT / "README.md", "mine_kernels": ROOT / "kernels" / "README.md"}


def add_readmes(package: str) -> None:
    """Puts the README of each folder below the docstring of its package."""
    root = importlib.import_module(package)
    found = [module.name for module in pkgutil.walk_packages(root.__path__, f"{package}.") if module.ispkg]
    for name in [package, *(name for name in found if not name.startswith(LEFT_OUT))]:
        module = importlib.import_module(name)
        readme = READMES.get(name, Path(str(module.__file__)).with_name("README.md"))
        if readme.is_file():
            module.__doc__ = f"{module.__doc__}\n\n{readme.read_text(encoding='utf-8')}"


if __name__ == "__main__":
    warnings.simplefilter("error")
    for message in KNOWN:
        warnings.filterwarnings("ignore", message)
    for package in PACKAGES:
        add_readmes(package)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*PACKAGES, f"!{LEFT_OUT}", output_directory=Path(sys.argv[1]))
