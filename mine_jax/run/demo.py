"""The main job on the embedded phantom: write it, run every stage, score it against its truth."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import mine_jax
from mine_jax import data, report, run, sharding
from mine_jax._signals import stop_flag
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
        The recovery summary, where the report is and what to look at in it, ready to print.
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
    first, *others = subjects
    # one subject is enough to see what diffusion models do; the exact ones stand beside them
    models = {subject: "phantom" if with_diffusion and subject == first else "oracle" for subject in subjects}
    reporter.say(f"{first}:")
    # encoders of a few hundred voxels keep one core busy
    with _aside(directory, others if _has_room() else [], seed, reporter) as wait:
        run_subject(directory, first, seed=seed, models=models[first], reporter=reporter)
        done = wait()
    for subject in others:
        if subject not in done:
            reporter.say(f"{subject}:")
            run_subject(directory, subject, seed=seed, models=models[subject], reporter=reporter)
    # the reports show the truth, so it comes first
    summary = truth(directory)
    for subject in subjects:
        reporter.say(f"{subject}:")
        config = configuration(directory / "phantom", subject, seed=seed, models=models[subject])
        run.execute(config, directory / subject, graph.STEPS, only="report", reporter=reporter)
    stimuli = data.open_stimuli(configuration(directory / "phantom", first).data)
    runs = [directory / subject for subject in subjects]
    page = report.write_demo_report(directory, runs, read_images=stimuli.read)
    return "\n".join([summary, f"report: {page}", *_to_look_at(page, runs[0])])


def run_subject(directory: Path, subject: str, *, seed: int, models: str, reporter: Reporter | None = None) -> None:
    """Runs all stages but the report of one subject of a demo whose phantom is written, or goes on with them.

    Args:
        directory: of the demo.
        subject: its name.
        seed: of the run.
        models: what makes images, as for `configuration`.
        reporter: shows progress; nothing by default.
    """
    config, out = configuration(directory / "phantom", subject, seed=seed, models=models), directory / subject
    run.execute(config, out, graph.STEPS, until="roi", resume=files.is_run(out), reporter=reporter)


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


def _to_look_at(page: Path, run_directory: Path) -> list[str]:
    """Names the three things of a demo that are worth a look first."""
    own = run_directory / "report.html"
    return [
        "three things to look at:",
        f"  what drives a voxel: the explorer of {own}; click a voxel, or type a word such as face",
        f'  whether it is the cause: "Validation" in {own}, photos with words put in and taken out',
        f"  whether it is true: {page}, what was claimed beside what was planted, in both subjects",
    ]


def _has_room() -> bool:
    """Whether a second process has a core of its own, and needs no accelerator that this one holds."""
    import jax

    return sharding.available_cores() > 1 and jax.default_backend() == "cpu"


@contextlib.contextmanager
def _aside(
    directory: Path, subjects: list[str], seed: int, reporter: Reporter
) -> Generator[Callable[[], list[str]], None, None]:
    """Runs subjects in a process of its own each, one after the other, while the block runs.

    Yields:
        A function that waits for them, and says which are done; others go on from where they stopped.
    """
    done, left, running = list[str](), list(subjects), list[subprocess.Popen]()

    def work() -> None:
        while left:
            subject = left.pop(0)
            # where no process can be started, the subject runs later, in this one
            with contextlib.suppress(OSError), _started(directory, subject, seed) as process:
                running.append(process)
                for line in process.stdout or ():
                    reporter.say(f"{subject}: {line.rstrip()}")
                if process.wait() == 0:
                    done.append(subject)

    thread = threading.Thread(target=work, daemon=True)

    def wait() -> list[str]:
        with stop_flag() as flag, reporter.task(", ".join(subjects)):
            while thread.is_alive():
                flag.check()
                time.sleep(0.1)
        return done

    try:
        thread.start()
        yield wait
    finally:
        left.clear()
        for process in running:
            process.terminate()
        thread.join(timeout=5)


def _started(directory: Path, subject: str, seed: int) -> subprocess.Popen:
    """Starts a process that runs a subject with the exact models, and gives way to this one."""
    command = [sys.executable, "-m", "mine_jax", "demo", "--out", str(directory), "--seed", str(seed)]
    paths = [str(Path(mine_jax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [*command, "--subject", subject],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
