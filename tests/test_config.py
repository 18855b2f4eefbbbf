"""Reading a configuration: every problem at once, named, before any data."""

import pytest

from mine_jax import config, errors


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_without_a_section(tmp_path):
    assert config.read(write(tmp_path, "")) == config.Config()


def test_all_problems_at_once_with_the_nearest_key(tmp_path):
    path = write(
        tmp_path,
        """
        [encoder]
        widht = 3
        epochs = -1
        learning_rate = "1e-3"
        [atribution]
        k = 0
        [data]
        zzzzzz = 1
        """,
    )
    with pytest.raises(errors.ConfigError) as caught:
        config.read(path)
    message = str(caught.value)
    assert "5 problem(s)" in message
    assert "encoder.widht: unknown key. Did you mean 'width'?" in message
    assert "encoder.epochs" in message and "-1" in message
    assert "encoder.learning_rate" in message and "'1e-3'" in message
    assert "atribution: unknown key. Did you mean 'attribution'?" in message
    assert "data.zzzzzz: unknown key. Valid keys: allow_leak" in message


@pytest.mark.parametrize(
    "line",
    [
        "[attribution]\nk = 0",
        "[attribution]\nk = true",
        "[attribution]\nn_steps = 2.0",
        "[attribution]\ntolerance = nan",
        "[data]\nval = 1.0",
        "[data]\nshape = [3, 4]",
        "[data]\nroi = 'nsdgeneral'",
        "[encoder]\nkind = 'linear'",
        "[run]\nseed = -1",
        "[run]\nvoxel_chunk = 0",
        "encoder = 3",
    ],
)
def test_wrong_values_are_refused(tmp_path, line):
    with pytest.raises(errors.ConfigError):
        config.read(write(tmp_path, line))


def test_relative_paths_belong_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "sub folder").mkdir()
    path = write(
        tmp_path / "sub folder", '[data]\nresponses = "../betas.npy"\nroot = "/nsd"\n[features]\nmodel = "phantom"\n'
    )
    monkeypatch.chdir("/")
    read = config.read(path)
    assert read.data.responses == str(tmp_path / "betas.npy")
    assert read.data.root == "/nsd" and read.features.model == "phantom" and read.data.test == "shared"


def test_overrides_win(tmp_path):
    path = write(tmp_path, "[encoder]\nwidth = 8\n")
    read = config.read(
        path, overrides=["encoder.width=16", "data.subject=subj02", "features.grid=[7, 7]", "run.seed = 4"]
    )
    assert (read.encoder.width, read.data.subject, read.features.grid, read.run.seed) == (16, "subj02", (7, 7), 4)


@pytest.mark.parametrize("override", ["width=16", "encoder.width", "a.b.c=1", ".width=1"])
def test_override_form(tmp_path, override):
    with pytest.raises(errors.ConfigError, match=r"section\.key=value"):
        config.read(write(tmp_path, ""), overrides=[override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\nroi = 1\nroi = 2", "not valid TOML"),
        ("[data", "not valid TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, "not valid TOML"),
        ("#" * (config.MAX_CONFIG_BYTES + 1), "larger than"),
    ],
)
def test_hostile_files_are_bounded(tmp_path, text, message):
    with pytest.raises(errors.ConfigError, match=message):
        config.read(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(errors.MissingInputError, match=r"nothing\.toml"):
        config.read(tmp_path / "nothing.toml")


def test_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        config.Config().encoder.width = 3
