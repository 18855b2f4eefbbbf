"""The main job on the embedded phantom: write it, run every stage, score it against its truth."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from mine_jax import data, report, run
from mine_jax.config import Config, PhantomConfig, from_dict
from mine_jax.phantom import scenes
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.run import files, graph
from mine_jax.run.recovery import truth
from mine_jax.run.reporter import Reporter

SUBJECTS = ("subj01", "subj02")
# 8 of the phantom's 64 image-tokens: an object covers about as many.
K = 8


def demo(
    directory: str | Path, *, seed: int = 0, subjects: tuple[str, ...] = SUBJECTS, reporter: Reporter | None = None
) -> str:
    """Runs the whole job on phantom subjects; an interrupted demo goes on where it stopped.

    Args:
        directory: receives phantom/ (the data set), one run per subject, truth.tsv and report.html.
        seed: of the phantom and of the runs.
        subjects: names of the subjects.
        reporter: shows progress; nothing by default.

    Returns:
        The recovery summary and where the report is, ready to print.
    """
    directory, reporter = Path(directory), reporter or Reporter()
    base = PhantomConfig()
    with reporter.task("phantom") as progress:
        write_phantom(
            directory / "phantom",
            subjects=subjects,
            n_images=base.n_images,
            n_shared=base.n_shared,
            n_repeats=base.n_repeats,
            ceiling=base.ceiling,
            shape=base.shape,
            seed=seed,
            progress=progress,
        )
    with_diffusion = importlib.util.find_spec("torch") is not None
    if not with_diffusion:
        reporter.say("torch is not installed: images are drawn exactly; the extra `edit` adds the diffusion models")
    configs = {
        subject: configuration(
            directory / "phantom",
            subject,
            seed=seed,
            # one subject is enough to see what diffusion models do; the exact ones stand beside them
            models="phantom" if with_diffusion and subject == subjects[0] else "oracle",
        )
        for subject in subjects
    }
    for subject, config in configs.items():
        reporter.say(f"{subject}:")
        out = directory / subject
        resume = files.is_run(out)
        run.execute(config, out, graph.STEPS, until="roi", resume=resume, reporter=reporter)
    # the reports show the truth, so it comes first
    summary = truth(directory)
    for subject, config in configs.items():
        run.execute(config, directory / subject, graph.STEPS, resume=True, reporter=reporter)
    stimuli = data.open_stimuli(configs[subjects[0]].data)
    runs = [directory / subject for subject in subjects]
    page = report.write_demo_report(directory, runs, read_images=stimuli.read)
    return f"{summary}\nreport: {page}"


def configuration(root: Path, subject: str, *, seed: int = 0, models: str = "oracle") -> Config:
    """Returns the demo's configuration of one subject; `configs/phantom.toml` holds the same.

    Args:
        root: of the phantom data set.
        subject: its name.
        seed: of the run.
        models: what makes images: "oracle" (exact) or "phantom" (the embedded diffusion models).
    """
    values: dict[str, Any] = {
        "data": {"kind": "phantom", "root": str(root), "subject": subject},
        "features": {"kind": "clip", "model": "phantom"},
        "attribution": {"k": K},
        "validation": {"generator": models, "editor": models},
        "roi": {"categories": {name: list(concepts) for name, concepts in scenes.CATEGORIES.items()}},
        "run": {"seed": seed},
    }
    return from_dict(values)
