"""Lets pipelines make images in a process of their own, so that JAX and PyTorch never share one.

What the process does is in `worker`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.errors import GenerationError
from mine_jax.validation.makers import pictures
from mine_jax.validation.makers.pictures import Item

_POLL_S = 0.2
_STOP_S = 1.0


def make_in_process(
    items: Sequence[Item],
    loader: dict[str, Any],
    folder: Path,
    *,
    name: str,
    maker: str,
    retries: int = pictures.RETRIES,
    progress: Progress = silent,
) -> dict[str, dict[str, Any]]:
    """Lets a pipeline make the images in a process of its own.

    Args:
        items: what to make.
        loader: keyword arguments of `diffusion.load`, as JSON types.
        folder: where the PNGs and the manifest lie.
        name: of the manifest.
        maker: identity of the pipeline and its settings.
        retries: how often an item that raised is tried again.
        progress: called with (done, total) items; if it raises, the process is ended.

    Returns:
        As `pictures.make_pictures`.

    Raises:
        GenerationError: if the process fails, with the end of what it said.
    """
    if pictures.is_complete(items, folder, name=name, maker=maker):
        progress(len(items), len(items))
        return pictures.read_manifest(folder, name)
    job = folder / f".{name}.job"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    task = {
        "items": [asdict(item) for item in items],
        "loader": loader,
        "folder": str(folder),
        "name": name,
        "maker": maker,
    }
    artifacts.write_json(job / "job.json", {**task, "retries": retries})
    # The worker imports this package, and with it JAX, but must leave the accelerator to PyTorch.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    # Threads that spin while they wait make small models a hundred times slower on a busy machine.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = _work(job, environment, lambda: progress(_count(job / "done.txt"), len(items)))
    log_text = (job / "log.txt").read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(job, ignore_errors=True)
    if code != 0:
        tail = "\n".join(log_text.strip().splitlines()[-15:])
        raise GenerationError(f"the process of the pipeline {loader.get('directory')} ended with code {code}:\n{tail}")
    progress(len(items), len(items))
    return pictures.read_manifest(folder, name)


def _work(job: Path, environment: dict[str, str], report: Callable[[], None]) -> int | None:
    """Runs the worker on a job until it ends, or `report` raises; returns its exit code."""
    command = [sys.executable, "-m", "mine_jax.validation.makers.worker", str(job / "job.json")]
    with (job / "log.txt").open("w", encoding="utf-8") as log:
        # Nothing is ever written to its input: the end of it tells the worker that this process is gone.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                report()
                time.sleep(_POLL_S)
        finally:
            _end(process)
    return process.returncode


def _count(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8") or 0)
    except (OSError, ValueError):
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        process.stdin.close()
