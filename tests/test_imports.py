"""The import rules between rooms, their sizes, and what must not be in the code at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mine_jax"
KERNELS = ROOT / "kernels" / "mine_kernels"
STAGES = ("data", "features", "encoder", "attribution", "description", "profile", "validation", "roi", "report")
# What each module may import of this package besides underscore modules, errors and types.
FOUNDATION = {
    "types": {"convert", "errors", "memory"},
    "errors": set(),
    "statistics": set(),
    "config": {"config", "errors", "types"},
    "artifacts": {"artifacts", "errors", "types"},
    "memory": {"errors", "memory"},
    "sharding": {"errors", "sharding"},
    "convert": {"artifacts", "convert", "errors", "types"},
}
# Rooms that tie stages together, and who may enter them.
OPEN_TO = {
    "pipeline": ("cli.py", "pipeline/", "run/"),
    "run": ("cli.py", "__main__.py", "run/"),
    "cli": ("cli.py", "__main__.py"),
}
HEAVY = ("torch", "diffusers", "transformers", "nibabel", "orbax", "nilearn", "h5py", "scipy", "matplotlib", "xarray")
# package -> files or folders below mine_jax/ that may import it
ALLOWED = {
    "torch": ("validation/makers/diffusion.py", "phantom/training/"),
    "diffusers": ("validation/makers/diffusion.py", "phantom/training/"),
    "transformers": ("features/ports/", "phantom/training/"),
    "nibabel": ("convert/volumes.py", "data/", "phantom/write_nsd.py", "roi/maps.py"),
    "orbax": ("artifacts/saved.py",),
}
FORBIDDEN_MODULES = {"pickle", "joblib", "dill", "shelve", "marshal", "cloudpickle", "yaml"}
# Processes that start as a copy of one whose JAX has threads may wait for ever: F-83.
FORBIDDEN_MODULES |= {"multiprocessing"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "os.fork",
    "yaml.load",
    "torch.load",
    "pickle.load",
    "pickle.loads",
}
# Words of which one file is the owner.
OWNED = ("architecture.kind ==", '"corpus.npy"', "RESOURCE_EXHAUSTED")
# What counts as few: files of a folder beside its `__init__`, files of the package itself, parameters.
MOST_FILES, MOST_FILES_AT_ROOT, MOST_PARAMETERS = 9, 12, 10
MANY_FILES = ("phantom/sprites",)
# The options of a solver and of a data set: (folder, first letters of the function).
MANY_PARAMETERS = (("encoder/ridge", "solve"), ("data/nsd", "load_nsd"))
SOURCES = sorted([*PACKAGE.rglob("*.py"), *KERNELS.rglob("*.py")])


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """Returns (module, line) of every import, also inside functions; `from a import b` gives a.b too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} uses a relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def own_parts(path):
    """Yields the second name of every import of this package: "data" for `mine_jax.data.nsd`."""
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] == "mine_jax" and len(parts) > 1:
            yield parts[1], line


@pytest.mark.parametrize("stage", STAGES)
def test_stages_import_left_to_right(stage):
    allowed = {*FOUNDATION, "__version__", *STAGES[: STAGES.index(stage) + 1]}
    # The phantom's generator and editor are models of the validation stage.
    allowed |= {"phantom"} if stage == "validation" else set()
    wrong = [
        f"{name_of(path)}:{line} imports mine_jax.{part}"
        for path in (PACKAGE / stage).rglob("*.py")
        for part, line in own_parts(path)
        if part not in allowed and not part.startswith("_")
    ]
    assert not wrong


@pytest.mark.parametrize("module", FOUNDATION)
def test_foundation_imports_no_stage(module):
    wrong = [
        f"{name_of(path)}:{line} imports mine_jax.{part}"
        for path in (PACKAGE / f"{module}.py", *(PACKAGE / module).rglob("*.py"))
        if path.exists()
        for part, line in own_parts(path)
        if part not in FOUNDATION[module] and not part.startswith("_")
    ]
    assert not wrong


def test_underscore_modules_import_no_stage():
    wrong = [
        f"{path.name}:{line} imports mine_jax.{part}"
        for path in PACKAGE.glob("_*.py")
        if path.name != "__main__.py"
        for part, line in own_parts(path)
        if part in (*STAGES, "phantom", "cli")
    ]
    assert not wrong


@pytest.mark.parametrize("room", OPEN_TO)
def test_rooms_above_the_stages_stay_closed(room):
    wrong = [
        f"{name_of(path)}:{line}"
        for path in SOURCES
        if not path.is_relative_to(PACKAGE) or not path.relative_to(PACKAGE).as_posix().startswith(OPEN_TO[room])
        for part, line in own_parts(path)
        if part == room
    ]
    assert not wrong


def test_folders_are_small():
    folders = {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}
    files = {
        folder.relative_to(PACKAGE).as_posix(): sum(path.name != "__init__.py" for path in folder.glob("*.py"))
        for folder in folders
    }
    assert not {name: n for name, n in files.items() if n > MOST_FILES and name not in MANY_FILES}
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES_AT_ROOT


def test_no_underscore_files_in_folders():
    wrong = [
        name_of(path)
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE and path.name.startswith("_") and path.name not in ("__init__.py", "__main__.py")
    ]
    assert not wrong


@pytest.mark.parametrize("words", OWNED)
def test_one_file_owns(words):
    owners = [name_of(path) for path in SOURCES if words in path.read_text(encoding="utf-8")]
    assert len(owners) <= 1, owners


def test_functions_have_few_parameters():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        folder = path.parent.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            is_free = any(folder == place and node.name.startswith(first) for place, first in MANY_PARAMETERS)
            if not is_free and len([name for name in names if name not in ("self", "cls")]) > MOST_PARAMETERS:
                wrong.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert not wrong


def test_kernels_import_jax_only():
    standard = set(sys.stdlib_module_names)
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in KERNELS.rglob("*.py")
        for module, line in imports(path)
        if module.split(".")[0] not in {"jax", "jaxlib", "numpy", "mine_kernels", *standard}
    ]
    assert not wrong


def test_kernels_folder_is_no_package():
    # A top-level import name `kernels` belongs to another distribution, which transformers and
    # diffusers look for and import: taking the name breaks both.
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize("package", ALLOWED)
def test_heavy_packages_stay_in_their_files(package):
    wrong = [
        f"{name_of(path)}:{line}"
        for path in SOURCES
        for module, line in imports(path)
        if module.split(".")[0] == package
        and not any(path.relative_to(ROOT).as_posix().startswith(f"mine_jax/{place}") for place in ALLOWED[package])
    ]
    assert not wrong


def test_nothing_that_runs_code_from_data():
    """F-97: pickle, eval, shells."""
    wrong = []
    for path in SOURCES:
        wrong += [f"{name_of(path)}:{n} {m}" for m, n in imports(path) if m.split(".")[0] in FORBIDDEN_MODULES]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                if ast.unparse(node.func) in FORBIDDEN_CALLS:
                    wrong.append(f"{name_of(path)}:{node.lineno} {ast.unparse(node.func)}")
                for keyword in node.keywords:
                    if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and (
                        not isinstance(keyword.value, ast.Constant) or keyword.value.value is not False
                    ):
                        wrong.append(f"{name_of(path)}:{node.lineno} {keyword.arg}={ast.unparse(keyword.value)}")
    assert not wrong


def test_no_global_jax_configuration():
    """But for the command line, whose process is its own, and what it alone imports."""
    wrong = {name_of(path) for path in SOURCES if "jax.config.update(" in path.read_text(encoding="utf-8")}
    importing = {name_of(path) for path in SOURCES if "mine_jax.run.programs" in path.read_text(encoding="utf-8")}
    assert wrong <= {"mine_jax/run/programs.py"} and importing <= {"mine_jax/cli.py"}


def test_no_bare_except():
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not wrong


def test_importing_every_stage_loads_nothing_heavy():
    stages = ", ".join(
        f"mine_jax.{stage}" for stage in (*STAGES, "phantom", "pipeline", "run", "cli", "config", "artifacts")
    )
    code = f"import sys, mine_jax, {stages}\nprint(*[n for n in {HEAVY} if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
