"""The command line: parses arguments, calls one function, prints its summary.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import mine_jax
from mine_jax._programs import keep_programs
from mine_jax.errors import ConfigError, MineError, Stopped

# XLA's errors end in exceptions anyway; what it logs beside them, such as the names of processor features that a
# kept program was compiled with, is long and helps nobody. Read when jaxlib is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if TYPE_CHECKING:
    from mine_jax.config import Config
    from mine_jax.run.execute import Step
    from mine_jax.run.reporter import Reporter

app = typer.Typer(
    name="mine-jax",
    help="What each voxel of visual cortex responds to, in words, with causal tests.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Run directory.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides a value of the file; repeatable."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=(1 << 63) - 1, help="Seed of everything that is drawn.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mine_jax {mine_jax.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Prints the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Shows tracebacks; may stand anywhere in the command.")
    ] = False,
) -> None:
    del version, debug  # `main` takes --debug out of the arguments, wherever it stands
    from mine_jax.run.signals import raise_on_signals

    raise_on_signals()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("demo"),
    seed: Seed = 0,
) -> None:
    """Runs every stage on the phantom and scores the result."""
    keep_programs()
    from mine_jax.run.demo import demo as run_demo

    typer.echo(run_demo(out, seed=seed, reporter=_reporter()))


@app.command()
def phantom(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the data set goes.", show_default=False)],
    subjects: Annotated[list[str], typer.Option(help="Names, separated by commas, or repeated.")] = ["subj01"],  # noqa: B006
    images: Annotated[int, typer.Option(metavar="N", help="Images per subject.")] = 2500,
    shared: Annotated[int | None, typer.Option(metavar="N", help="Of these, seen by all; by default 16 %.")] = None,
    repeats: Annotated[int, typer.Option(metavar="R", help="Trials per image, 1 to 3.")] = 3,
    repeats_shared: Annotated[
        int | None, typer.Option(metavar="R", help="Trials per shared image, 1 to 20; by default as many.")
    ] = None,
    ceiling: Annotated[
        str, typer.Option(metavar="C", help="Mean noise ceiling between 0 and 1, or the two ends of a range: LOW,HIGH.")
    ] = "0.6",
    shape: Annotated[str, typer.Option(metavar="X,Y,Z", help="Voxels along each axis.")] = "24,24,18",
    seed: Seed = 0,
) -> None:
    """Writes phantom subjects in NSD's own file layout, with the truth."""
    from mine_jax.phantom.write_nsd import write_phantom

    names = [name.strip() for names in subjects for name in names.split(",") if name.strip()]
    with _reporter().task("phantom") as progress:
        write_phantom(
            directory,
            subjects=names,
            n_images=images,
            n_shared=round(0.16 * images) if shared is None else shared,
            n_repeats=repeats,
            n_repeats_shared=repeats_shared,
            ceiling=_ceiling(ceiling),
            shape=_shape(shape),
            seed=seed,
            progress=progress,
        )
    typer.echo(f"wrote {', '.join(names)} to {directory}")


@app.command()
def run(
    config: ConfigFile,
    out: Out,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Goes on with the run in DIR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Deletes the run in DIR first.")] = False,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Prints shapes, memory and work; computes nothing.")
    ] = False,
) -> None:
    """Runs all stages whose inputs have changed."""
    resolved = _config(config, overrides)
    if dry_run:
        from mine_jax.run.execute import plan

        _print(plan(resolved, out, _steps()))
        return
    _execute(resolved, out, until=until, resume=resume, overwrite=overwrite)


def _stage_command(name: str) -> Callable[..., None]:
    def command(config: ConfigFile, out: Out, overrides: Overrides = None) -> None:
        _execute(_config(config, overrides), out, only=name)

    return command


def _features(
    config: ConfigFile,
    out: Out,
    overrides: Overrides = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="One of N processes (I from 0) that share the work; then without."),
    ] = None,
) -> None:
    from mine_jax.run.stages.features import extract_part

    resolved = _config(config, overrides)
    if shard is not None:
        _print(extract_part(resolved, out, _steps(), part=_shard(shard), reporter=_reporter()))
        return
    _execute(resolved, out, only="features")


for _name, _help in mine_jax.STAGES.items():
    app.command(_name, help=f"{_help} The stages before it must be up to date.")(
        _features if _name == "features" else _stage_command(_name)
    )


@app.command()
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Opens and checks every input of every stage; fits and encodes nothing."""
    from mine_jax.run.checks import inputs

    resolved = _config(config, overrides)
    with _reporter().task("check") as progress:
        findings = inputs.check(resolved, progress=progress)
    _print(findings or ["no findings"])


@app.command()
def truth(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run on a phantom.", show_default=False)],
) -> None:
    """Compares a run on a phantom with its truth."""
    from mine_jax.run.recovery import truth as compare

    typer.echo(compare(directory))


@app.command()
def query(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run with profiles.", show_default=False)],
    words: Annotated[
        str,
        typer.Argument(
            metavar="WORDS",
            help="A word, words separated by commas, or a sentence in quotes; a category stands for its words.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Every voxel's answer: a map (.nii.gz) or a table (.tsv)."),
    ] = None,
) -> None:
    """Finds the voxels that prefer a word, a list of words, or what a sentence speaks of.

    A voxel's value is the share of its profile that falls on these words, beyond what images show anyway. q compares
    it with decoys, over all voxels; only voxels whose claim is at least "words" can have a small q. A map has the
    values, and one named FILE_q.nii.gz beside it has q. Words that the vocabulary lacks are an error that names the
    nearest ones.
    """
    from mine_jax.run import queries

    typer.echo(queries.query(directory, words, out=out))


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A finished run.", show_default=False)],
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS", help="Files, folders or zips of photos.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.tsv", help="Receives the table.", show_default=False)],
    voxels: Annotated[
        str | None, typer.Option(metavar="ID,...", help="Voxels; by default all that were fitted.")
    ] = None,
) -> None:
    """Predicts the responses to new photos with the encoders of a run.

    The table has a row for each photo and a column for each voxel, in z-scored beta:

        mine-jax predict runs/subj01 holiday.jpg more_photos/ --out predicted.tsv
    """
    if out.suffix != ".tsv":
        raise ConfigError(f"--out must be a file that ends in .tsv, but is {out}.")
    keep_programs()
    from mine_jax import artifacts
    from mine_jax.run.finished import open_run

    wanted = None if voxels is None else [_whole(part, "--voxels") for part in voxels.split(",")]
    with _reporter().task("photos") as progress:
        table = open_run(directory).predict(list(photos), voxels=wanted, progress=progress)
    table.columns = table.columns.astype(str)
    artifacts.write_table(out, table.reset_index())
    typer.echo(f"predicted {table.shape[1]} voxels for {len(table)} photos: {out}")


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run with profiles.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.", show_default=False)],
) -> None:
    """Writes encoders, lens and profiles of a run to a folder to give away, without photos, responses or paths."""
    from mine_jax.run.finished import publish as write

    typer.echo(f'published: {write(directory, out)}; mine_jax.load("{out}") opens it')


@app.command()
def subjects(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds a run directory per subject.", show_default=False)
    ],
) -> None:
    """Tests what areas prefer with subjects as the unit, and writes DIR/roi_subjects.tsv."""
    from mine_jax.run import queries

    typer.echo(queries.subjects(directory))


@app.command()
def study(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("study"),
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Phantoms of every size.")] = 5,
    images: Annotated[str, typer.Option(metavar="N,...", help="Numbers of images.")] = "500,1000,2000",
    models: Annotated[str, typer.Option(metavar="NAME,...", help="Models of the image-tokens.")] = (
        "phantom,phantom-captions"
    ),
) -> None:
    """Runs many phantoms: how often claims are right, and how often voxels are found.

    The largest number of images is run with every model, the others with the first. True noise ceilings lie
    between .05 and .7. An interrupted study goes on.
    """
    keep_programs()
    from mine_jax.run.recovery import study as studies

    sizes = [_whole(size, "--images") for size in images.split(",")]
    listed = studies.points(seeds=seeds, models=[name.strip() for name in models.split(",")], images=sizes)
    typer.echo(studies.study(out, listed, reporter=_reporter()))


@app.command()
def doctor() -> None:
    """Shows versions, devices, offline flags and missing extras."""
    from mine_jax.run.checks import doctor

    _print(doctor.report())


@app.command()
def bench(
    case: Annotated[str | None, typer.Option(metavar="NAME", help="Sizes to run at.")] = None,
    what: Annotated[str | None, typer.Option(help="Benchmarks, separated by commas.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Writes the rows here too.")] = None,
    suite: Annotated[str | None, typer.Option(metavar="NAME", help='"accelerator": all that a device shows.')] = None,
    size: Annotated[str | None, typer.Option(metavar="NAME", help="Of a suite: smoke, roi, subject, ...")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where a suite writes its JSON file.")] = None,
) -> None:
    """Runs the benchmarks of the repository, or everything that an accelerator has to show."""
    root = Path(mine_jax.__file__).resolve().parent.parent
    if not (root / "benchmarks" / "run.py").is_file():
        raise ConfigError(
            "the benchmarks are not part of the installed package: they need a checkout with benchmarks/run.py."
        )
    if suite not in (None, "accelerator"):
        raise ConfigError(f'--suite must be "accelerator", but is {suite!r}.')
    if (suite is None) != (out is None) or (suite is None and size is not None):
        raise ConfigError("--suite needs --out DIR, and --size and --out need --suite accelerator.")
    if suite is not None and (case, what, json) != (None, None, None):
        raise ConfigError("--suite has its own parts and file: leave --case, --what and --json out.")
    options = {"--case": case, "--what": what, "--json": json and json.resolve()}
    options |= {"--size": size, "--out": out and out.resolve()}
    arguments = [str(part) for option, value in options.items() if value for part in (option, value)]
    # A process of its own: the folder is part of the checkout, not of the installed package.
    command = [sys.executable, "-m", f"benchmarks.{suite or 'run'}", *arguments]
    raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)


def main() -> None:
    """Runs the command line and exits with the code of the contract."""
    # Every model is a local folder: a wrong name must fail at once instead of asking the network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    # transformers is used for tokenizers only: that torch is absent is no news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except MineError as error:
        _fail(type(error).__name__, error, error.exit_code, debug=debug)
    except Stopped as stop:
        _fail("stopped", f"{stop}; finished stages are saved, --resume goes on.", stop.exit_code, debug=debug)
    except BrokenPipeError:
        # who read the output has gone, as `head` does; nothing is left to say, also not at exit
        _silence()
        raise SystemExit(128 + 13) from None
    except Exception as error:
        hint = "" if debug else "\nThis is a fault of mine_jax. --debug shows where it happened."
        _fail(type(error).__name__, f"{error}{hint}", 1, debug=debug)


def _fail(kind: str, message: object, code: int, *, debug: bool) -> None:
    try:
        if debug:
            traceback.print_exc()
        typer.echo(f"mine-jax: {kind}: {message}", err=True)
    except BrokenPipeError:
        _silence()
    raise SystemExit(code)


def _silence() -> None:
    """Sends what is still in the buffers of closed streams nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


def _reporter() -> Reporter:
    """Returns the reporter for this terminal; logs and warnings go through it, so that they do not cut the bar."""
    from mine_jax.run.reporter import default_reporter

    reporter = default_reporter()

    def show(message: Warning | str, *where: Any) -> None:
        del where
        reporter.say(f"warning: {message}")

    warnings.showwarning = cast(Any, show)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            reporter.say(level + record.getMessage())

    logger = logging.getLogger("mine_jax")
    logger.handlers = [Handler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return reporter


def _config(path: Path, overrides: list[str] | None) -> Config:
    from mine_jax.config import read

    config = read(path, overrides=overrides or ())
    keep_programs(config.run.compilation_cache)
    return config


def _execute(config: Config, out: Path, **options: Any) -> None:
    """Runs stages, together with the other processes where there are any; the first one prints."""
    from mine_jax import sharding
    from mine_jax.run.execute import execute
    from mine_jax.run.reporter import Reporter

    reporter = _reporter()
    sharding.start()
    sharding.devices()
    is_first = sharding.process_id() == 0
    record = execute(config, out, _steps(), reporter=reporter if is_first else Reporter(), **options)
    if is_first:
        _print(_summary(record, out))


def _steps() -> Mapping[str, Step]:
    from mine_jax.run.graph import STEPS

    return STEPS


def _ceiling(text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--ceiling must be a number, or two such as .05,.7, but is {text!r}.") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _shape(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--shape must be three whole numbers such as 24,24,18, but is {text!r}.") from None
    return x, y, z


def _whole(text: str, option: str) -> int:
    if not text.strip().isdecimal():
        raise ConfigError(f"{option} must be whole numbers separated by commas, but has {text!r}.")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    try:
        part, count = (int(number) for number in text.split("/"))
    except ValueError:
        raise ConfigError(f"--shard must be two whole numbers such as 0/4, but is {text!r}.") from None
    return part, count


def _summary(record: dict[str, Any], out: Path) -> Iterable[str]:
    for name, stage in record["stages"].items():
        how = "" if name in record["ran"] else ", not run again"
        yield f"{name}: {stage['state']} ({stage.get('seconds', 0):.1f} s{how})"
        for key, value in (stage.get("summary") or {}).items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            yield f"    {key}: {shown}"
    report = out / "report.html"
    yield f"report: {report}" if report.is_file() else f"results: {out}"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
