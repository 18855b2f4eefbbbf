"""The command line: parses arguments, calls one function, prints its summary.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import mine_jax
from mine_jax._numbers import count
from mine_jax._signals import end_if_stopped, end_in_time, raise_on_signals
from mine_jax.errors import ConfigError, MineError, Stopped, of_system

# XLA's errors end in exceptions anyway; what it logs beside them, such as the names of processor features that a
# kept program was compiled with, is long and helps nobody. Read when jaxlib is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# variables of the environment that `stay_offline` has set and may lift
_set_here: set[str] = set()
# What a subject that `demo` runs aside leaves to the first one.
_ASIDE_NICE = 5

if TYPE_CHECKING:
    from mine_jax.config import Config
    from mine_jax.run.execute import Step
    from mine_jax.run.reporter import Reporter

app = typer.Typer(
    name="mine-jax",
    help="What each voxel of visual cortex responds to, in words, with causal tests.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Run directory.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides a value of the file; repeatable."),
]
GoesOn = Annotated[bool, typer.Option("--resume", help="As for `run`: a stage always goes on with the run in DIR.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=(1 << 63) - 1, help="Seed of everything that is drawn.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mine_jax {mine_jax.__version__}")
        raise typer.Exit


def _stages() -> list[str]:
    return list(mine_jax.STAGES)


def _sections() -> list[str]:
    """The sections of a configuration, without loading it: shells wait for the answer."""
    return [*(name for name in mine_jax.STAGES if name != "report"), "run"]


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


@app.command(epilog="Example: mine-jax demo --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("demo"),
    seed: Seed = 0,
    subject: Annotated[str | None, typer.Option(hidden=True, help="Only this one, as `demo` does aside.")] = None,
) -> None:
    """Runs every stage on the phantom and scores the result.

    Reads nothing. Writes the phantom, a run for each of its two subjects, truth.tsv and report.html into DIR. An
    interrupted demo goes on.
    """
    from mine_jax.run.programs import keep_programs

    keep_programs()
    from mine_jax.run import demo as whole

    if subject is not None:
        if hasattr(os, "nice"):
            os.nice(_ASIDE_NICE)
        whole.run_subject(out, subject, seed=seed, models="oracle", reporter=_reporter())
        return
    typer.echo(whole.demo(out, seed=seed, reporter=_reporter()))


@app.command(epilog="Example: mine-jax phantom phantom --images 500 --subjects subj01")
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
    """Writes phantom subjects as NSD's files, with the truth.

    Reads nothing. Writes nsddata, nsddata_betas, nsddata_stimuli, phantom.json and phantom_truth.tsv into DIR.
    """
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


@app.command(epilog="Example: mine-jax run my.toml --out runs/subj01 --set encoder.epochs=20")
def run(
    config: ConfigFile,
    out: Out,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Goes on with the run in DIR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Deletes the run in DIR first.")] = False,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Last stage to run.", autocompletion=_stages)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Prints shapes, memory and work; computes nothing.")
    ] = False,
) -> None:
    """Runs all stages whose inputs have changed.

    Reads CONFIG and the files that it names. Writes tables, arrays, maps and report.html into DIR; run.json there
    has the sha256 of each.
    """
    if dry_run:
        from mine_jax.run.execute import plan

        _print(plan(_config(config, overrides), out, _steps()))
        return
    _execute(config, overrides, out, until=until, resume=resume, overwrite=overwrite)


def _stage_command(name: str) -> Callable[..., None]:
    def command(config: ConfigFile, out: Out, overrides: Overrides = None, resume: GoesOn = False) -> None:
        del resume  # also without
        _execute(config, overrides, out, only=name)

    return command


def _features(
    config: ConfigFile,
    out: Out,
    overrides: Overrides = None,
    resume: GoesOn = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="One of N processes (I from 0) that share the work; then without."),
    ] = None,
) -> None:
    del resume  # also without
    from mine_jax.run.stages.features import extract_part

    if shard is not None:
        part = _shard(shard)
        resolved, reporter = _config(config, overrides), _reporter()
        _print(extract_part(resolved, out, _steps(), part=part, reporter=reporter, source=config))
        return
    _execute(config, overrides, out, only="features")


for _name, _help in mine_jax.STAGES.items():
    _read = (
        "the files that it names" if _name == "data" else "what the stages before it wrote, which must be up to date"
    )
    app.command(
        _name,
        help=f"{_help}\n\nReads CONFIG and {_read}. Writes its own files into DIR.",
        epilog=f"Example: mine-jax {_name} my.toml --out runs/subj01",
    )(_features if _name == "features" else _stage_command(_name))


@app.command(epilog="Example: mine-jax check my.toml")
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Writes the sha256 of every input beside CONFIG; later commands compare.")
    ] = False,
) -> None:
    """Opens and checks every input of every stage; fits nothing.

    Reads CONFIG and the files that it names. Prints what was found; writes nothing but the list of --freeze. With
    features.allow_download it fetches a model of the hub into the local cache, to open it.
    """
    from mine_jax.run.checks import inputs

    resolved = _config(config, overrides)
    with _reporter().task("check") as progress:
        findings = inputs.check(resolved, source=config, freeze=freeze, progress=progress)
    _print(findings or ["no findings"])
    typer.echo(f"next: {_command('run', config, overrides)} --out DIR")


@app.command(epilog="Example: mine-jax new folder photos/ responses.npy image_ids.txt > my.toml")
def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="Kind of data; `mine-jax config data.kind` lists them.", show_default=False
        ),
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATHS]...", help="Files and folders of the data, and of a checkpoint.", show_default=False
        ),
    ] = None,
) -> None:
    """Writes a commented configuration for data that you have.

    Reads names and headers of PATHS. Writes TOML to standard output: what can be known is filled in, the rest stands
    in comments.
    """
    from mine_jax.run.checks.new import new as write_new

    _print(list(write_new(kind, paths or [])))


@app.command("config", epilog="Example: mine-jax config encoder.width")
def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION[.KEY]]", help="By default all sections.", show_default=False, autocompletion=_sections
        ),
    ] = None,
) -> None:
    """Explains the keys of a configuration, with their defaults.

    Says of each its type, its default and where that is from, and what it means. Reads and writes nothing.
    """
    from mine_jax.config.show import show

    _print(show(name))


@app.command(epilog="Example: mine-jax truth runs/phantom")
def truth(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run on a phantom.", show_default=False)],
) -> None:
    """Compares a run on a phantom with its truth.

    Reads the run and the phantom's phantom_truth.tsv. Writes truth.tsv into DIR, and prints a summary.
    """
    from mine_jax.run.recovery import truth as compare

    typer.echo(compare(directory))


@app.command(epilog='Example: mine-jax query runs/subj01 "face, hand" --out face.nii.gz')
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
    """Finds the voxels that prefer words, or what a sentence says.

    A voxel's value is the share of its profile that falls on these words, beyond what images show anyway. q compares
    it with decoys, over all voxels; only voxels whose claim is at least "words" can have a small q. A map has the
    values, and one named FILE_q.nii.gz beside it has q. Words that the vocabulary lacks are an error that names the
    nearest ones.

    Reads the profiles of the run. Writes FILE where --out names one.
    """
    from mine_jax.run import queries

    typer.echo(queries.query(directory, words, out=out))


@app.command(epilog="Example: mine-jax predict runs/subj01 photo.jpg photos/ --out predicted.tsv")
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
    """Predicts responses to new photos with a run's encoders.

    Reads the encoders of the run, its model and the photos. Writes a table with a row for each photo and a column for
    each voxel, in the units that the encoders were fitted in, as a rule z-scored responses.
    """
    if out.suffix != ".tsv":
        raise ConfigError(f"--out must be a file that ends in .tsv, but is {out}.")
    from mine_jax.run.programs import keep_programs

    keep_programs()
    from mine_jax import artifacts
    from mine_jax.run.finished import open_run

    wanted = None if voxels is None else [_whole(part, "--voxels") for part in voxels.split(",")]
    fitted = open_run(directory)
    stay_offline(fitted.config)
    with _reporter().task("photos") as progress:
        table = fitted.predict(list(photos), voxels=wanted, progress=progress)
    table.columns = table.columns.astype(str)
    artifacts.write_table(out, table.reset_index())
    typer.echo(f"predicted {count(table.shape[1], 'voxel')} for {count(len(table), 'photo')}: {out}")


@app.command(epilog="Example: mine-jax publish runs/subj01 --out published")
def publish(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run with profiles.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.", show_default=False)],
) -> None:
    """Writes what a run found to a folder to give away.

    Reads the run. Writes encoders, lens and profiles, a model card and two tables into DIR; no photos, no responses, no
    paths.
    """
    from mine_jax.run.finished import open_run
    from mine_jax.run.finished import publish as write

    fitted = open_run(directory)
    stay_offline(fitted.config)
    typer.echo(f'published: {write(fitted, out)}; mine_jax.load("{out}") opens it')


@app.command(epilog="Example: mine-jax figures runs/subj01 --out figures")
def figures(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A finished run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Receives one file per figure.")] = Path(
        "figures"
    ),
    kind: Annotated[str, typer.Option("--format", metavar="KIND", help="pdf, svg or png.")] = "pdf",
) -> None:
    """Writes the figures of a run for papers.

    Reads the tables of the run. Writes one file per figure into FOLDER; says which were left out and why.
    """
    from mine_jax.run.stages.report import draw_figures

    typer.echo(draw_figures(directory, out, kind=kind))


@app.command(epilog="Example: mine-jax subjects runs")
def subjects(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds a run directory per subject.", show_default=False)
    ],
) -> None:
    """Tests what areas prefer with subjects as the unit.

    Reads roi/selectivity.tsv of every run in DIR. Writes DIR/roi_subjects.tsv.
    """
    from mine_jax.run import queries

    typer.echo(queries.subjects(directory))


@app.command(epilog="Example: mine-jax study --images 1000 --seeds 5 --out study")
def study(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("study"),
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Phantoms of every size.")] = 5,
    images: Annotated[str, typer.Option(metavar="N,...", help="Numbers of images.")] = "500,1000,2000",
    models: Annotated[str, typer.Option(metavar="NAME,...", help="Models of the image-tokens.")] = (
        "phantom,phantom-captions"
    ),
) -> None:
    """Runs many phantoms: how often claims are right.

    It shows how often voxels are found, too. The largest number of images is run with every model, the others with the
    first. True noise ceilings lie between .05 and .7. An interrupted study goes on.

    Reads nothing. Writes a run for each phantom, and tables and a figure over all of them, into DIR.
    """
    from mine_jax.run.programs import keep_programs

    keep_programs()
    from mine_jax.run.recovery import study as studies

    sizes = [_whole(size, "--images") for size in images.split(",")]
    listed = studies.points(seeds=seeds, models=[name.strip() for name in models.split(",")], images=sizes)
    typer.echo(studies.study(out, listed, reporter=_reporter()))


@app.command(epilog="Example: mine-jax doctor")
def doctor() -> None:
    """Shows versions, devices, offline flags and missing extras.

    Reads and writes nothing.
    """
    from mine_jax.run.checks import doctor

    _print(doctor.report())


@app.command(epilog="Example: mine-jax backbones")
def backbones() -> None:
    """Lists the families of image models that can be read.

    Says what each reads, usual models, their image-tokens and memory. Reads the configurations of usual models, which
    the package has. Writes nothing.
    """
    from mine_jax.features.families.table import lines

    _print(lines())


@app.command(epilog="Example: mine-jax bench --case smoke --json rows.json")
def bench(
    case: Annotated[str | None, typer.Option(metavar="NAME", help="Sizes to run at.")] = None,
    what: Annotated[str | None, typer.Option(help="Benchmarks, separated by commas.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Writes the rows here too.")] = None,
    suite: Annotated[str | None, typer.Option(metavar="NAME", help='"accelerator": all that a device shows.')] = None,
    size: Annotated[str | None, typer.Option(metavar="NAME", help="Of a suite: smoke, roi, subject, ...")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where a suite writes its JSON file.")] = None,
) -> None:
    """Runs the benchmarks of the repository.

    The suite `accelerator` is everything that one has to show. Reads nothing. Writes the rows to FILE, or those of a
    suite into DIR, where one is named.
    """
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
    """Is the process `mine-jax`: runs the command line, and ends in time after a signal."""
    end_in_time()
    try:
        command_line()
    except SystemExit as error:
        end_if_stopped(error.code)
        raise


def command_line() -> None:
    """Runs the command line and exits with the code of the contract."""
    stay_offline()
    # transformers is used for tokenizers only: that torch is absent is no news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # Programs are written for the usual promotion of types.
    os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "standard"
    # Figures are drawn into files; a backend that is not there stops even the import of matplotlib.
    os.environ["MPLBACKEND"] = "agg"
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        raise_on_signals()
        app(arguments)
    except MineError as error:
        _fail(type(error).__name__, error, error.exit_code, debug=debug)
    except Stopped as stop:
        _fail(
            f"stopped by {stop}",
            "what is finished is saved; the same command, `run` with --resume, goes on.",
            stop.exit_code,
            debug=debug,
        )
    except BrokenPipeError:
        # who read the output has gone, as `head` does; nothing is left to say, also not at exit
        _silence()
        raise SystemExit(128 + 13) from None
    except Exception as error:
        named = of_system(error) if isinstance(error, OSError) else None
        if named is not None:
            _fail(type(named).__name__, named, named.exit_code, debug=debug)
        hint = "" if debug else "\nThis is a fault of mine_jax. --debug shows where it happened."
        _fail(type(error).__name__, f"{error}{hint}", 1, debug=debug)


def _fail(kind: str, message: object, code: int, *, debug: bool) -> None:
    try:
        if debug:
            traceback.print_exc()
        typer.echo(f"mine-jax: {kind}: {message}", err=True)
    except OSError:  # nobody reads it, or where it goes is full
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
    from mine_jax.run.programs import keep_programs

    keep_programs(config.run.compilation_cache)
    stay_offline(config)
    return config


def stay_offline(config: Config | None = None) -> None:
    """Makes whatever asks the network fail at once; a configuration that lets a model be fetched lifts this.

    What the environment of the process forbids stays so. Before huggingface_hub is loaded, which reads it once.
    """
    if config is not None and getattr(config.features, "allow_download", False):
        while _set_here:
            os.environ.pop(_set_here.pop(), None)
        return
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if name not in os.environ:
            os.environ[name] = "1"
            _set_here.add(name)


def _execute(path: Path, overrides: list[str] | None, out: Path, **options: Any) -> None:
    """Runs stages, together with the other processes where there are any; the first one prints."""
    from mine_jax import sharding
    from mine_jax.run.execute import execute
    from mine_jax.run.reporter import Reporter

    config, reporter = _config(path, overrides), _reporter()
    sharding.start()
    sharding.devices()
    is_first = sharding.process_id() == 0
    record = execute(config, out, _steps(), source=path, reporter=reporter if is_first else Reporter(), **options)
    if is_first:
        waiting = [name for name in mine_jax.STAGES if record["stages"].get(name, {}).get("state") != "done"]
        if waiting:
            typer.echo(f"results: {out}")
            typer.echo(
                f"next: {_command('run', path, overrides)} --out {shlex.quote(str(out))} --resume  # {waiting[0]}"
            )
        else:
            typer.echo(f"report: {out / 'report.html'}")
            typer.echo(f"next: open the report, or ask: mine-jax query {shlex.quote(str(out))} WORDS")


def _command(name: str, config: Path, overrides: list[str] | None) -> str:
    """Returns a command for the same configuration."""
    sets = [part for override in overrides or () for part in ("--set", override)]
    return shlex.join(["mine-jax", name, str(config), *sets])


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
    if not 0 <= part < count:
        raise ConfigError(f"--shard must be I/N with I from 0 to N - 1, but is {text!r}.")
    return part, count


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
