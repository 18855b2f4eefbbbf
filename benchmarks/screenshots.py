"""Takes pictures of a report in a browser: on wide and usual screens, on a phone, dark; and prints it to PDF.

    python -m benchmarks.screenshots DIR/report.html --out shots/

`--first FILE.png` writes the first screen alone, as the README shows it. Needs the extra `browser` and a Chromium.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Name -> size of the window, and what the page is told of the screen.
VIEWS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "wide": ((1600, 1000), {"color_scheme": "light"}),
    "usual": ((1280, 900), {"color_scheme": "light"}),
    "narrow": ((400, 800), {"color_scheme": "light"}),
    "dark": ((1280, 900), {"color_scheme": "dark"}),
    # the width of A4 without its margins
    "print": ((720, 1000), {"media": "print"}),
}
# Of the first screen.
WIDTH = 1180


def chromium() -> str | None:
    """Returns the path of an installed Chromium; None without one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser() -> Generator[Any]:
    """Yields an installed Chromium, or the one that playwright brought."""
    # an extra of its own, which the type check does without
    api = importlib.import_module("playwright.sync_api")
    with api.sync_playwright() as playwright:
        # root, as in containers, has no sandbox
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def take(report: Path, out: Path) -> list[Path]:
    """Writes one picture of the whole page for each view, and the PDF that it prints to.

    Args:
        report: HTML file.
        out: folder of the pictures.

    Returns:
        The files.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with browser() as started:
        for name, ((width, height), media) in VIEWS.items():
            page = started.new_page(viewport={"width": width, "height": height})
            page.emulate_media(**media)
            page.goto(report.resolve().as_uri())
            if media.get("media") == "print":
                page.evaluate("dispatchEvent(new Event('beforeprint'))")
            # pictures are loaded when they come into view
            page.evaluate("document.querySelectorAll('img').forEach((image) => (image.loading = 'eager'))")
            page.wait_for_function("Array.from(document.images).every((image) => image.complete)")
            written.append(out / f"{name}.png")
            page.screenshot(path=written[-1], full_page=True)
            if media.get("media") == "print":
                written.append(out / "print.pdf")
                page.pdf(path=written[-1], format="A4")
            page.close()
    return written


def take_first(report: Path, path: Path) -> None:
    """Writes a picture of the first section, the answer of the run.

    Args:
        report: HTML file.
        path: PNG file that is written, in 128 colors to be small.
    """
    from PIL import Image

    with browser() as started:
        page = started.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto(report.resolve().as_uri())
        answer = page.locator("main section").first.bounding_box()
        height = answer["y"] + answer["height"]
        page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    with Image.open(path) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Reads the arguments and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--first", type=Path)
    arguments = parser.parse_args()
    if arguments.first:
        take_first(arguments.report, arguments.first)
    for path in take(arguments.report, arguments.out) if arguments.out else [arguments.first]:
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
