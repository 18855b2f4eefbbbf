"""The stage graph: which stage is stale, run, resume, stop.

A stage is skipped when everything that decides its result is unchanged (the
configuration it reads, its input files, the stages before it, the package version, the
code that it names) and every file it wrote still has the sha256 recorded in `run.json`.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax import artifacts, features, memory, sharding
from mine_jax._numbers import duration, plural
from mine_jax._progress import Progress
from mine_jax._signals import StopFlag, stop_flag
from mine_jax.config import Config
from mine_jax.errors import CheckpointError, ConfigError, MineError, ResourceError, Stopped
from mine_jax.run.record import directory as run_directory
from mine_jax.run.record import frozen, lock
from mine_jax.run.record import manifest as manifest_file
from mine_jax.run.record.summary import sentence
from mine_jax.run.reporter import Reporter

logger = logging.getLogger("mine_jax")

# Why a stage runs for the first time.
_NEW = "not run yet"
_RESOURCE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Step:
    """One stage of a run.

    Attributes:
        compute: does the work in a directory and returns numbers for `run.json` and the summary.
        needs: stages whose outputs it reads.
        sections: configuration that changes its result: sections, or `section.key`.
        outputs: globs of the files it owns, below the run directory; several stages may own one file. Files that
            appear while it runs and are not among these belong to somebody else.
        inputs: files and folders outside the run directory whose change makes the result stale.
        code: packages and modules of which any change of the source makes the result stale, also within a version: for
            results that are cheap to make anew.
        makes_inputs: those of its inputs that it may write itself; they count as they are after it, all others as
            they were before.
        partial: globs of outputs that survive a stop or failure and that a re-run may keep as they
            are: the stage itself makes sure that they are valid.
        plan: lines about shapes, memory and work for `--dry-run`, from the configuration and the run
            directory; must not compute.
        check: raises for inputs that are not there and settings that cannot work with the sizes known so far, from
            names and headers of files; called before every stage that runs, until this one has run.
        found: what the numbers of `compute` say, in parts with fields in braces; see `sentence`.
        share: with several processes, what the others do while process 0 does `compute`: the
            same calls where they take shares of the work; it writes nothing.
    """

    compute: Callable[[Config, Path, Progress], dict[str, Any]]
    needs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    inputs: Callable[[Config], list[Path]] = lambda config: []
    code: tuple[str, ...] = ()
    makes_inputs: Callable[[Config], list[Path]] = lambda config: []
    partial: tuple[str, ...] = ()
    plan: Callable[[Config, Path], list[str]] | None = None
    check: Callable[[Config, Path], None] | None = None
    found: tuple[str, ...] = ()
    share: Callable[[Config, Path, Progress], Any] | None = None


def execute(
    config: Config,
    directory: str | Path,
    steps: Mapping[str, Step],
    *,
    until: str | None = None,
    only: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    source: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Runs the stages that are not up to date and records them in `run.json`.

    With several processes all call this; process 0 decides, writes and returns the record, and
    the others take their shares of the stages that have any.

    Args:
        config: the configuration.
        directory: the run directory; made if needed.
        steps: the stages, in order.
        until: last stage to run.
        only: the one stage to run; those that it needs must be up to date. Implies `resume`.
        resume: whether to go on with the run in `directory`.
        overwrite: whether to delete that run first. Files that no run made stay.
        source: the file of the configuration: inputs must be those of the list beside it, where there is one.
        reporter: shows progress. Default: nothing.

    Returns:
        The content of `run.json`, with the stages run now named in `ran` (not written to the file).

    Raises:
        ConfigError: for an unknown stage, devices that are not there, or a directory with files and neither `resume`
            nor `overwrite`.
        IntegrityError: if an input is not the one that the list beside the configuration names.
        CheckpointError: if `run.json` cannot be trusted, or `only` needs a stage that is not up to date.
        ResourceError: if memory or disk are not enough, or another process uses the directory.
        Stopped: after a signal; what was finished is saved.
    """
    for name in (until, only):
        _check_stage(name, steps)
    if resume and overwrite:
        raise ConfigError("`resume` and `overwrite` exclude each other.")
    sharding.devices()
    with sharding.telling_others():
        if sharding.process_id() > 0:
            return _follow(config, Path(directory), steps)
        record = _lead(config, Path(directory), steps, until, only, resume, overwrite, source, reporter)
        sharding.exchange()  # no stage to follow: the others may go
    return record


def _lead(
    config: Config,
    directory: Path,
    steps: Mapping[str, Step],
    until: str | None,
    only: str | None,
    resume: bool,
    overwrite: bool,
    source: Path | None,
    reporter: Reporter | None,
) -> dict[str, Any]:
    directory = run_directory.make(directory)
    with lock.locked(directory):
        manifest = run_directory.opened(
            directory, _owned(steps), resume=resume or only is not None, overwrite=overwrite
        )
        run = _Run(config, directory, steps, manifest, reporter or Reporter())
        manifest.update(manifest_file.header(config), state="running")
        if source is not None:
            run.verify(source)
        run.save()
        return run.all(_wanted(steps, until=until, only=only), only=only)


def _follow(config: Config, directory: Path, steps: Mapping[str, Step]) -> dict[str, Any]:
    """Takes shares of the stages that process 0 names, until it names none."""
    ran = []
    with stop_flag() as flag:

        def progress(done: int, total: int) -> None:
            del done, total
            flag.check()

        while name := sharding.exchange()[0]:
            _compute(steps[name].share or (lambda *given: None), config, directory, progress)
            ran.append(name)
    return {"stages": {}, "ran": ran}


def stale(config: Config, directory: str | Path, steps: Mapping[str, Step]) -> dict[str, str | None]:
    """Says for each stage why it would run, or None where it would be skipped; changes nothing."""
    directory = Path(directory)
    run = _Run(config, directory, steps, manifest_file.read(directory) or manifest_file.empty(), Reporter())
    reasons: dict[str, str | None] = {}
    for name, step in steps.items():
        waiting = [need for need in step.needs if reasons.get(need)]
        reasons[name] = run.reason(name) or (f"stage {waiting[0]} runs before it" if waiting else None)
    return reasons


def inputs_of(config: Config, steps: Mapping[str, Step]) -> list[Path]:
    """Names the files and folders outside the run directory that any stage reads, but for a model of the hub.

    That is pinned by its commit already, and lies in a cache that every machine has elsewhere.
    """
    pinned = features.hub_files(config.features)
    named = dict.fromkeys(path for step in steps.values() for path in step.inputs(config))
    return [path for path in named if path not in pinned]


def plan(config: Config, directory: str | Path, steps: Mapping[str, Step]) -> list[str]:
    """Describes what a run would do: stages, why, shapes, memory and work. Computes nothing."""
    lines = []
    for name, reason in stale(config, directory, steps).items():
        lines.append(f"{name}: {'up to date, skipped' if reason is None else f'runs ({reason})'}")
        check = steps[name].check
        if reason is not None and check is not None:
            try:
                check(config, Path(directory))
            except MineError as error:
                lines.append(f"    would stop the run: {error}")
        details = steps[name].plan
        if details is not None:
            lines.extend(f"    {line}" for line in details(config, Path(directory)))
    return lines


class _Run:
    """One execution: the manifest and what keeps it true."""

    def __init__(
        self, config: Config, directory: Path, steps: Mapping[str, Step], manifest: dict[str, Any], reporter: Reporter
    ) -> None:
        self.config = config
        self.directory = directory
        self.steps = steps
        self.manifest = manifest
        self.reporter = reporter
        self._inputs: dict[Path, str | dict[str, str]] = {}
        self._hashes: dict[str, tuple[Any, str]] = {}

    def save(self) -> None:
        manifest_file.write(self.directory, self.manifest)

    def verify(self, source: Path) -> None:
        """Compares all inputs with the list beside the configuration, and records what need not be read again."""
        known = self.manifest.get("frozen")
        with stop_flag() as flag, self.reporter.task("inputs") as report:

            def progress(done: int, total: int) -> None:
                flag.check()
                report(done, total)

            paths = inputs_of(self.config, self.steps)
            self.manifest["frozen"] = frozen.verify(source, paths, known=known, progress=progress)

    def all(self, names: list[str], *, only: str | None) -> dict[str, Any]:
        ran = []
        with stop_flag() as flag:
            try:
                skipped = list[str]()
                for name in names:
                    flag.check()
                    reason = self.reason(name)
                    if only is not None and name != only and reason is not None:
                        raise CheckpointError(
                            f"stage {only} needs stage {name}, which is not up to date: {reason}. "
                            "Run it first, with the same configuration and --out: "
                            f"mine-jax {name}, or mine-jax run with --resume."
                        )
                    if only is not None and name != only:
                        continue
                    if reason is None:
                        skipped.append(name)
                    else:
                        self._say_skipped(skipped)
                        self._check(names[names.index(name) :])
                        self._one(name, reason, flag)
                        ran.append(name)
                self._say_skipped(skipped)
            except BaseException as error:
                self.manifest["state"] = "stopped" if isinstance(error, (Stopped, KeyboardInterrupt)) else "failed"
                with contextlib.suppress(OSError, MineError):
                    self.save()
                raise
        done = [self.manifest["stages"].get(name, {}).get("state") == "done" for name in self.steps]
        self.manifest["state"] = "done" if all(done) else "incomplete"
        self.save()
        return {**self.manifest, "ran": ran}

    def _say_skipped(self, names: list[str]) -> None:
        """Says in one line which stages were skipped since the last one that ran."""
        if names:
            self.reporter.say(f"{', '.join(names)}: unchanged, skipped")
        names.clear()

    def _check(self, names: list[str]) -> None:
        """Finds settings that a later stage could not work with before an earlier one computes."""
        for name in names:
            check = self.steps[name].check
            if check is not None:
                check(self.config, self.directory)

    def reason(self, name: str) -> str | None:
        """Says why a stage must run; None where its recorded result stands."""
        entry = self.manifest["stages"].get(name)
        if entry is None:
            return _NEW
        is_done, depended_on = entry.get("state") == "done", entry.get("depends_on", {})
        changes = manifest_file.differences(depended_on, self._depends_on(name)) if is_done or depended_on else []
        said = [*([] if is_done else [f"{entry.get('state')} before"]), *changes]
        if said:
            return "; ".join(said[:5]) + (f" and {len(said) - 5} more" if len(said) > 5 else "")
        order = list(self.steps)
        for file in entry.get("files", ()):
            record = self.manifest["files"].get(file)
            if record is None or not (self.directory / file).is_file():
                return f"{file} is missing"
            if record.get("stage") not in order or order.index(record["stage"]) < order.index(name):
                return f"{file} was rewritten by stage {record.get('stage')}"
            if self._sha256(file) != record.get("sha256"):
                logger.warning("%s is damaged or was edited: its sha256 is not the one in run.json", file)
                return f"{file} is damaged or was edited"
        return None

    def _depends_on(self, name: str) -> dict[str, Any]:
        step = self.steps[name]
        inputs = {}
        for path in step.inputs(self.config):
            if path not in self._inputs:
                self._inputs[path] = manifest_file.input_state(path)
            inputs[path] = self._inputs[path]
            self.manifest.setdefault("inputs", {})[str(path)] = self._inputs[path]
        needs = {need: self.manifest["stages"].get(need, {}).get("fingerprint", "") for need in step.needs}
        return manifest_file.depends_on(self.config, sections=step.sections, inputs=inputs, needs=needs, code=step.code)

    def _one(self, name: str, reason: str, flag: StopFlag) -> None:
        logger.info("%s: runs%s", name, "" if reason == _NEW else f" ({reason})")
        parts, before, start = self._depends_on(name), run_directory.snapshot(self.directory), time.monotonic()
        old = self.manifest["stages"].get(name, {}).get("files", [])
        made = self.steps[name].makes_inputs(self.config)
        entry: dict[str, Any] = {"state": "running", "started": manifest_file.now(), "files": old, "depends_on": parts}
        self.manifest["stages"][name] = entry
        self.save()
        try:
            with self.reporter.task(name) as report:

                def progress(done: int, total: int) -> None:
                    flag.check()
                    report(done, total)

                if self.steps[name].share is not None:
                    sharding.exchange(name)
                summary = _compute(self.steps[name].compute, self.config, self.directory, progress)
        except BaseException as error:
            entry["state"] = "stopped" if isinstance(error, (Stopped, KeyboardInterrupt)) else "failed"
            entry.update(seconds=round(time.monotonic() - start, 3), error=f"{type(error).__name__}: {error}"[:2000])
            self._discard(name, before)
            raise
        made = {*made, *self.steps[name].makes_inputs(self.config)}
        if made:
            for path in made:
                self._inputs.pop(path, None)
                self.manifest["inputs"].pop(str(path), None)
            parts = self._depends_on(name)
        entry.update(
            state="done",
            seconds=round(time.monotonic() - start, 3),
            fingerprint=manifest_file.fingerprint(parts),
            depends_on=parts,
            devices=self.manifest["devices"],
            summary=summary,
            files=self._record(name, before, old),
        )
        self.save()
        found = sentence(self.steps[name].found, summary, units=plural(self.config.data.unit_name))
        self.reporter.found(f"{name}: done in {duration(entry['seconds'], 1)}" + (f": {found}" if found else ""))

    def _record(self, name: str, before: dict[str, Any], old: Iterable[str]) -> list[str]:
        """Hashes what a stage wrote, deletes what an earlier version of it left; returns its files."""
        step, after = self.steps[name], run_directory.snapshot(self.directory)
        written = {file for file in _changed(before, after) if run_directory.matches(file, step.outputs)}
        kept = {file for file in after if run_directory.matches(file, step.partial)}
        old = [file for file in old if run_directory.matches(file, step.outputs)]
        left = {file for file in old if file in after and file not in written | kept and not self._shared(file)}
        run_directory.remove(self.directory, left)
        for file in [file for file in self.manifest["files"] if file not in after or file in left]:
            del self.manifest["files"][file]
        files = sorted(written | kept)
        self._own(name, files)
        return files

    def _own(self, name: str, files: Iterable[str]) -> None:
        for file in files:
            size = (self.directory / file).stat().st_size
            self.manifest["files"][file] = {"sha256": self._sha256(file), "bytes": size, "stage": name}

    def _discard(self, name: str, before: dict[str, Any]) -> None:
        """Removes those of its files that a failed stage left half done and that were not there before."""
        run_directory.sweep(self.directory)
        step, after = self.steps[name], run_directory.snapshot(self.directory)
        changed = [file for file in _changed(before, after) if run_directory.matches(file, step.outputs)]
        changed = [file for file in changed if not run_directory.matches(file, step.partial)]
        run_directory.remove(self.directory, [file for file in changed if file not in before])
        # Whole, since written atomically: stages before this one stay valid if they share them.
        self._own(name, [file for file in changed if file in before])

    def _shared(self, file: str) -> bool:
        return sum(run_directory.matches(file, step.outputs) for step in self.steps.values()) > 1

    def _sha256(self, file: str) -> str:
        path = self.directory / file
        state = run_directory.state(path)
        if self._hashes.get(file, (None, ""))[0] != state:
            self._hashes[file] = (state, artifacts.sha256(path))
        return self._hashes[file][1]


def _owned(steps: Mapping[str, Step]) -> list[str]:
    return [glob for step in steps.values() for glob in (*step.outputs, *step.partial)]


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Files that are new or others than before, of two snapshots."""
    return [file for file in after if after[file] != before.get(file)]


def _compute(work: Callable[..., Any], config: Config, directory: Path, progress: Progress) -> Any:
    """Does a stage's work at the wanted precision; a lack of memory or disk, which no stage could help, gets a name."""
    import jax

    try:
        # programs are written for the usual promotion of types, whatever a variable of the environment says
        with jax.default_matmul_precision(config.run.precision), jax.numpy_dtype_promotion("standard"):
            return work(config, directory, progress)
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_exhausted(error):
            raise
        raise ResourceError(
            f"out of device memory: {str(error).splitlines()[0][:300]}. "
            "Set a smaller run.voxel_chunk, run.image_chunk or features.batch_size; "
            "`mine-jax run ... --dry-run` says what each part needs."
        ) from error
    except MemoryError as error:
        raise ResourceError(
            f"out of memory: {error}. Set a smaller run.voxel_chunk and run.image_chunk, or select fewer voxels."
        ) from error
    except OSError as error:
        if isinstance(error, MineError) or error.errno not in _RESOURCE_ERRNOS:
            raise
        raise ResourceError(f"{error}. Free space or memory, then go on with --resume.") from error


def _check_stage(name: str | None, steps: Mapping[str, Step]) -> None:
    if name is None or name in steps:
        return
    nearest = difflib.get_close_matches(name, steps, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Stages: {', '.join(steps)}."
    raise ConfigError(f"there is no stage {name!r}. {hint}")


def _wanted(steps: Mapping[str, Step], *, until: str | None, only: str | None) -> list[str]:
    """Returns the stages to look at, in order: up to `until`, or `only` and all that it needs."""
    order = list(steps)
    if only is None:
        return order if until is None else order[: order.index(until) + 1]
    wanted = {only}
    for name in reversed(order):
        if name in wanted:
            wanted.update(steps[name].needs)
    return [name for name in order if name in wanted]
