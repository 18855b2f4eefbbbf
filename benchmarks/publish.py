"""Writes `benchmarks/README.md` from the committed results: every number there comes from a file beside it.

python -m benchmarks.publish           writes it, and the picture of the scaling curves
python -m benchmarks.publish --check   fails if it is not what the results say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import plot
from mine_jax import artifacts

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
INTRODUCTION = """\
# Benchmarks

This file is generated from `results/*.json` by `python -m benchmarks.publish`.

```
python -m benchmarks.run --list
python -m benchmarks.run --case roi --what query,ig
python -m benchmarks.run --case cpu --what ridge --rounds 1 --json benchmarks/results/cpu_ridge.json
python -m benchmarks.run --case roi --what ridge --scale voxels=1000,2000,4000 --json benchmarks/results/scale.json
python -m benchmarks.check_whole_brain_ridge --json benchmarks/results/whole_brain_ridge_check.json
python -m benchmarks.check_whole_brain --voxels 10000,30000,100000,300000 \\
  --json benchmarks/results/whole_brain.json
python -m benchmarks.check_whole_brain --encoder query --epochs 3 --voxels 10000,30000 \\
  --json benchmarks/results/whole_brain_query.json
python -m benchmarks.check_reliability --kills 20 --damages 50 --inputs 25
python -m benchmarks.check_parallel --devices 2
python -m benchmarks.check_estimator
python -m benchmarks.check_profiles --voxels 2000,4000
python -m benchmarks.check_reading
python -m benchmarks.check_precision --json benchmarks/results/precision.json
taskset -c 1 python -m benchmarks.check_time_to_quality --json benchmarks/results/time_to_quality.json
python -m benchmarks.accelerator --size subject --out benchmarks/results
python -m benchmarks.publish
```

How to read the tables:

- **Speed** is how many times faster an implementation is than the reference of its table, in one run, in turn,
  medians over rounds. On CPUs these are ratios of CPU seconds of the process on one core, and absolute times are
  never quoted; on accelerators, of wall seconds.
- **Error** is the largest difference from the reference, relative to its largest value: a speed without equal
  results means nothing.
- **Memory** is the most that the process held above what it held before the call, over the counted calls; **first** is
  that of the first call, with its compilation.
- Peers run where they are installed (`pip install -e '.[test]'`). Slow peers are timed on fewer voxels and scaled,
  as the table says.
- **Roofline** is the least time that the work can take, as a share of the time taken. The least time is the largest of
  three: operations at the device's rate of matrix products, bytes of inputs and results at its rate of streaming, and
  exponentials at its rate of these. The rates are measured in the same run, each the best of several; **bound by**
  names the kind of work that decides. The operations are those of our algorithm, counted in the `bench_*.py` files;
  elementwise ones count like those of a matrix product, which no device does as fast.
- **Signal R2** is that of the planted, noise-free signal on images that nobody was fitted on: what a choice of
  penalties is worth.

`check_clip_text_lens.py` looks at real CLIP text vectors, given as an argument, through the lens: nearest words before
and after centring.
"""
SCALING = f"""\
## Scaling

![Cost against size, both relative to the smallest]({"results/" + plot.FILE})

Where a curve is flatter than the dashed line, work that does not depend on that size still counts. The power of
each curve is the slope of a straight line through its logarithms; the tables below have the numbers.
"""
ACCELERATOR = """\
## Everything on one device

Written by `mine-jax bench --suite accelerator --size SIZE --out DIR`. **Seconds** are until results are ready, without
those of the **compiler**; **planned** is what the plan of a stage counts with on the device, **used** the most that
the device held above its inputs (on a CPU the process). A part that broke stands below its table.
"""
TITLES = {
    "kernels": "Fused operations beside their definitions",
    "ridge": "Ridge with a penalty per voxel",
    "query": "One training step of the query encoder",
    "fit": "Epochs of a whole query fit",
    "ig": "Integrated gradients over image-tokens",
    "lens": "The best words of every image-token",
    "features": "Image-tokens of frozen models",
    "end_to_end": "From image-tokens to profiles",
}
# What decides the work of a benchmark.
SIZES = {
    "kernels": ("voxels", "batch", "ig_voxels", "ig_images", "tokens", "width", "heads"),
    "fit": ("voxels", "images", "tokens", "width"),
    "ridge": ("voxels", "images", "width", "penalties", "folds"),
    "query": ("voxels", "tokens", "width", "heads", "batch"),
    "ig": ("ig_voxels", "ig_images", "tokens", "width", "heads"),
    "lens": ("ig_images", "tokens", "width"),
    "features": ("feature_batch",),
    "end_to_end": ("ig_voxels", "ig_images", "tokens"),
}
# Measures of a row that are shown where a benchmark gives them: key -> column, format.
EXTRA = {
    "same_penalty": ("same penalty", "{:.1%}"),
    "completeness_gap": ("completeness gap", "{:.1e}"),
    "same_description": ("same description", "{:.1%}"),
    "signal_r2": ("signal R2", "{:.4f}"),
    "roofline": ("roofline", "{:.0%}"),
    "bound": ("bound by", "{}"),
    "images_per_s": ("images/s", "{:,.0f}"),
    "tokens_per_s": ("tokens/s", "{:,.0f}"),
}


def main() -> int:
    """Writes the file, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the file is out of date")
    args = parser.parse_args()
    text = render(FOLDER / "results")
    if args.check:
        is_same = README.is_file() and README.read_text(encoding="utf-8") == text
        print("up to date" if is_same else f"{README} is out of date: python -m benchmarks.publish")
        return 0 if is_same else 1
    artifacts.write_text(README, text)
    curves = plot.curves(_with_rows(FOLDER / "results"))
    if curves:
        plot.draw(curves, FOLDER / "results" / plot.FILE, titles=TITLES)
    return 0


def render(results: Path) -> str:
    """Returns the README of a folder of results.

    Args:
        results: folder with the JSON files that `benchmarks.run --json` writes.

    Returns:
        Markdown: the scaling curves, one section per benchmark, one table per file.
    """
    files = _with_rows(results)
    parts = [INTRODUCTION, *([SCALING] if plot.curves(files) else [])]
    for what, title in TITLES.items():
        tables = [text for path, content in files.items() for text in _tables(path, content, what)]
        if tables:
            parts += [f"## {title}\n", *tables]
    suites = [_suite(path, content) for path, content in _read(results).items() if "suite" in content]
    parts += [ACCELERATOR, *suites] if suites else []
    checks = [_check(path, content) for path, content in _read(results).items() if "numbers" in content]
    parts += ["## A whole brain from a file\n", *checks] if checks else []
    parts += [
        section(path, content)
        for path, content in _read(results).items()
        for key, section in SECTIONS.items()
        if key in content
    ]
    return "\n".join(parts)


def _read(results: Path) -> dict[Path, dict[str, Any]]:
    """Contents of all files of a folder."""
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}


def _with_rows(results: Path) -> dict[Path, dict[str, Any]]:
    """Contents of the files with rows of benchmarks, which stand beside each other in tables."""
    return {path: content for path, content in _read(results).items() if "rows" in content and "suite" not in content}


def _suite(path: Path, content: dict[str, Any]) -> str:
    """One table of all parts on one device: absolute seconds of an accelerator, shares of the whole on a CPU."""
    is_cpu, rows = content.get("platform") == "cpu", content["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in content.get("versions", {}).items())
    whole = sum(part["seconds"] for part in content["parts"])
    took = "" if is_cpu else f" All parts together took {whole:.0f} s."
    lines = [
        f"**`{path.name}`**: {content.get('device', 'no device')}, commit {content.get('commit', '')[:7]}, {versions}. "
        f"Sizes: {', '.join(f'{key} {value}' for key, value in content['sizes'].items())}.{took}",
        "",
    ]
    titles = ["part", "implementation", *([] if is_cpu else ["seconds", "compiler s"]), "error", "roofline"]
    titles += ["bound by", "planned", "used"]
    lines += [_line(titles), _line(["---"] * len(titles))]
    for row in rows:
        used = row["device_peak_mib"] if "device_peak_mib" in row else row["peak_mib"] if is_cpu else None
        seconds = [] if is_cpu else [f"{row['seconds']:.4g}", f"{row['compile_s']:.2g}"]
        error = "" if row["implementation"] == row["reference"] else f"{row['max_abs_err']:.1e}"
        cells = [row["what"], f"`{row['implementation']}`", *seconds, error]
        cells += [f"{row['roofline']:.0%}" if "roofline" in row else "", row.get("bound", "")]
        cells += ["" if size is None else f"{size:,.0f} MiB" for size in (row.get("planned_mib"), used)]
        lines.append(_line(cells))
        if not is_cpu and "epoch_s" in row:
            lines.append(_line(["one epoch", "", f"{row['epoch_s']:.4g}", *[""] * (len(titles) - 3)]))
    failures = [failure for part in content["parts"] for failure in part["failures"]]
    lines += ["", *(f"- `{failure['step']}` failed: {failure['error']}" for failure in failures)]
    return "\n".join(lines).rstrip() + "\n"


def _check(path: Path, content: dict[str, Any]) -> str:
    """Numbers of a check, without its absolute times."""
    shown = {name: value for name, value in content["numbers"].items() if not name.endswith("_s")}
    lines = [f"**`{path.name}`**: {content['device']}, commit {content['commit'][:7]}.", "", _line(["what", "value"])]
    lines.append(_line(["---", "---"]))
    lines += [
        _line([name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else str(value)])
        for name, value in shown.items()
    ]
    return "\n".join(lines) + "\n"


def _precision(path: Path, content: dict[str, Any]) -> str:
    """What runs in other arithmetics change, against products of float32."""
    lines = [
        "## What fewer digits cost\n",
        f"**`{path.name}`**: a phantom of {content['images']} images on {content['device']}, commit "
        f"{content['commit'][:7]}; see `check_precision.py`.",
        "",
        _line(["arithmetic", "mean R2", "worst voxel", "same critical tokens", "same claims", "passes"]),
        _line(["---"] * 6),
    ]
    for name, row in content["precision"].items():
        changes = [f"{row['mean_r2_change']:+.0e}", f"{row['largest_r2_change']:.0e}"]
        shares = [f"{row['same_critical_tokens']:.2%}", f"{row['same_claim']:.2%}"]
        lines.append(_line([f"`{name}`", *changes, *shares, "yes" if row["passes"] else "no"]))
    return "\n".join(lines) + "\n"


def _quality(path: Path, content: dict[str, Any]) -> str:
    """Ratios of CPU time until fits predict equally well."""
    check = _check(path, {**content, "numbers": content["quality"]})
    return f"## Time to the same quality\n\nWhole fits; see `check_time_to_quality.py`.\n\n{check}"


# Key of a file -> its section.
SECTIONS = {"precision": _precision, "quality": _quality}


def _tables(path: Path, content: dict[str, Any], what: str) -> Iterator[str]:
    """One table per reference and variant of a benchmark in a file."""
    own = [row for row in content["rows"] if row["what"].partition(":")[0] == what]
    for name in dict.fromkeys(row["what"] for row in own):
        rows = [row for row in own if row["what"] == name]
        yield _scaling(path, content, rows) if "scale" in rows[0] else _comparison(path, content, rows)


def _comparison(path: Path, content: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    is_cpu = content["platform"] == "cpu"
    shown = {key: value for key, value in EXTRA.items() if any(key in row for row in rows)}
    columns = ["implementation", "speed", *([] if is_cpu else ["seconds"]), "memory", "first", "error"]
    lines = [_heading(path, content, rows), "", _line([*columns, *(title for title, _ in shown.values())])]
    lines.append(_line(["---"] * (len(columns) + len(shown))))
    for row in rows:
        cells = [f"`{row['implementation']}`", f"{row['ratio']:,.2f}", *([] if is_cpu else [f"{row['seconds']:.4g}"])]
        cells += [f"{row['peak_mib']:,.0f} MiB", f"{row['first_peak_mib']:,.0f} MiB", f"{row['max_abs_err']:.1e}"]
        cells += [form.format(row[key]) if key in row else "" for key, (_, form) in shown.items()]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _scaling(path: Path, content: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Cost against one size, relative to the smallest: never absolute times of a CPU."""
    lines = [_heading(path, content, rows), ""]
    size = rows[0]["scale"]["size"]
    values = [row["scale"]["value"] for row in rows]
    lines += [_line([size, *(f"{value:,}" for value in values)]), _line(["---"] * (len(values) + 1))]
    lines.append(_line(["cost", *(f"{row['seconds'] / rows[0]['seconds']:.2f}" for row in rows)]))
    lines.append(_line(["memory", *(f"{row['peak_mib']:,.0f} MiB" for row in rows)]))
    if all("roofline" in row for row in rows):
        lines.append(_line(["roofline", *(f"{row['roofline']:.0%}" for row in rows)]))
    exponent = rows[-1]["scale"]["exponent"]
    return "\n".join(lines) + f"\n\nThe cost grows as the power {exponent:.2f} of `{size}`.\n"


def _heading(path: Path, content: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    keys = SIZES[rows[0]["what"].partition(":")[0]]
    sizes = ", ".join(f"{key} {content['sizes'][key]}" for key in keys if key != rows[0].get("scale", {}).get("size"))
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    model = f", {rows[0]['model']}" if "model" in rows[0] else ""
    header = rows[0]["header"]
    return (
        f"**`{path.name}`**{model}: {content['device']}, commit {content['commit'][:7]}, {versions}.\n"
        f"{header[0].upper()}{header[1:]}. Sizes: {sizes}. Reference: `{rows[0]['reference']}`."
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
