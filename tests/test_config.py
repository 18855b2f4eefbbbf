"""Reading a configuration: every problem at once, named, before any data."""

import json
import subprocess
import sys
from typing import get_args

import pytest

from mine_jax import config, errors

# The example of the file contract, key by key.
CONTRACT = """
[data]
kind = "folder"
images = "photos.zip"
responses = "responses.npy"
image_ids = "image_ids.txt"
rois = "rois.tsv"
test = 0.167

[features]
kind = "precomputed"
tokens = "tokens.npy"
token_image_ids = "image_ids.txt"
unembedding = "unembedding.npy"
words = "words.txt"
grid = [14, 14]

[encoder]
kind = "query"
[attribution]
[description]
[profile]
[validation]
[roi]
[run]
"""
KINDS = {
    "data": {model.model_fields["kind"].default: model for model in get_args(get_args(config.DataConfig)[0])},
    "features": {
        "clip": config.ClipConfig,
        "siglip": config.SiglipConfig,
        "siglip_naflex": config.SiglipNaflexConfig,
        "dinotxt": config.DinoTxtConfig,
        "llava": config.LlavaConfig,
        "llava_onevision": config.LlavaOnevisionConfig,
        "qwen2_5_vl": config.QwenVlConfig,
        "precomputed": config.PrecomputedConfig,
    },
    "encoder": {"query": config.QueryConfig, "ridge": config.RidgeConfig},
}


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_without_a_section(tmp_path):
    assert config.read(write(tmp_path, "")) == config.Config()


def test_all_problems_at_once_with_the_nearest_key(tmp_path):
    """F-95: typing errors and wrong types."""
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
    assert "5 problems:" in message
    assert "encoder.widht: unknown key. Did you mean 'width'?" in message
    assert "encoder.epochs" in message and "-1" in message
    assert "encoder.learning_rate" in message and "'1e-3'" in message
    assert "atribution: unknown key. Did you mean 'attribution' or 'validation'? `mine-jax config` explains" in message
    assert "data.zzzzzz: unknown key. Valid: beta_scale" in message


@pytest.mark.parametrize(
    "line",
    [
        "[data]\ntest = '0.1667'",
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
    """F-95: values that cannot be."""
    with pytest.raises(errors.ConfigError):
        config.read(write(tmp_path, line))


def test_relative_paths_belong_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "sub folder").mkdir()
    text = '[data]\nresponses = "../betas.npy"\nmask = "/nsd/mask.nii"\n[features]\nmodel = "phantom"\n'
    path = write(tmp_path / "sub folder", text + '[validation]\ngenerator = "turbo"\neditor = "oracle"\n')
    monkeypatch.chdir("/")
    read = config.read(path)
    assert read.data.responses == str(tmp_path / "betas.npy")
    assert read.data.mask == "/nsd/mask.nii" and read.features.model == "phantom" and read.data.test == "shared"
    assert read.validation.generator == str(path.parent / "turbo") and read.validation.editor == "oracle"
    path.write_text('data = { kind = "nsd", root = "../nsd", test = "ids.txt" }\nfeatures.model = "clip"')
    read = config.read(path)
    assert (read.data.root, read.data.test) == (str(tmp_path / "nsd"), str(path.parent / "ids.txt"))
    assert read.features.model == str(path.parent / "clip")


def test_every_path_of_a_kind_is_resolved(tmp_path):
    """The keys that were resolved before they were marked one by one."""
    keys = {
        config.FolderConfig: ("images", "responses", "image_ids", "trials", "mask", "rois", "test"),
        config.NsdConfig: ("root", "test"),
        config.PhantomConfig: ("root", "test"),
        config.ClipConfig: ("model", "words"),
        config.SiglipConfig: ("model", "words"),
        config.SiglipNaflexConfig: ("model", "words"),
        config.LlavaConfig: ("model", "words"),
        config.LlavaOnevisionConfig: ("model", "words"),
        config.QwenVlConfig: ("model", "words"),
        config.PrecomputedConfig: ("tokens", "token_image_ids", "mask", "unembedding", "unembedding_bias", "words"),
        config.ValidationConfig: ("generator", "editor"),
    }
    for model, names in keys.items():
        assert config.paths(model(**dict.fromkeys(names, "a"))) == dict.fromkeys(names, "a")
        assert config.paths(model()) == {}


def test_overrides_win(tmp_path):
    path = write(tmp_path, "[encoder]\nwidth = 8\n")
    overrides = ["encoder.width=16", "data.subject=subj02", "run.seed = 4"]
    read = config.read(path, overrides=[*overrides, "features.kind=precomputed", "features.grid=[7, 7]"])
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
    """F-96: duplicate keys, depth, size."""
    with pytest.raises(errors.ConfigError, match=message):
        config.read(write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.roi=FFA-1", ("FFA-1",)),
        ('data.roi=["FFA-1", "V1"]', ("FFA-1", "V1")),
        ("features.more_layers=3", (3,)),
        ("validation.strengths=0.5", (0.5,)),
        ("features.denoise=register", ("register",)),
    ],
)
def test_one_value_for_a_list_is_a_list_of_one(tmp_path, override, value):
    section, key = override.partition("=")[0].split(".")
    read = config.read(write(tmp_path, '[data]\nkind = "nsd"\n'), overrides=[override])
    assert getattr(getattr(read, section), key) == value


def test_other_values_stay_as_they_are(tmp_path):
    path = write(tmp_path, '[data]\nkind = "phantom"\n')
    assert config.read(path, overrides=["data.ceiling=0.5"]).data.ceiling == 0.5
    with pytest.raises(errors.ConfigError, match=r"data\.shape"):
        config.read(path, overrides=["data.shape=3"])


def test_missing_file(tmp_path):
    with pytest.raises(errors.MissingInputError, match=r"nothing\.toml"):
        config.read(tmp_path / "nothing.toml")


def test_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        config.Config().encoder.width = 3


@pytest.mark.parametrize(("section", "kind"), [(section, kind) for section, kinds in KINDS.items() for kind in kinds])
def test_kind_chooses_the_keys(section, kind):
    read = config.from_dict({section: {"kind": kind}})
    assert getattr(read, section) == KINDS[section][kind]()
    # as it stands in run.json
    assert config.from_dict(json.loads(json.dumps(read.model_dump(mode="json")))) == read


def test_section_without_a_kind_is_of_the_first():
    read = config.from_dict({"data": {"val": 0.2}, "features": {"layer": 3}, "encoder": {"epochs": 2}})
    assert read.data == config.FolderConfig(val=0.2)
    assert (read.features, read.encoder) == (config.ClipConfig(layer=3), config.QueryConfig(epochs=2))


def test_example_of_the_contract_is_read(tmp_path):
    read = config.read(write(tmp_path, CONTRACT))
    assert isinstance(read.data, config.FolderConfig) and isinstance(read.features, config.PrecomputedConfig)
    assert read.data.rois == str(tmp_path / "rois.tsv") and read.features.grid == (14, 14)


@pytest.mark.parametrize(
    ("section", "kind", "key", "value", "having"),
    [
        ("encoder", "ridge", "heads", 7, 'kind "query"'),
        ("encoder", None, "missing", "mask", 'kind "ridge"'),
        ("data", None, "axis_order", "xyzt", 'kinds "nsd" and "phantom"'),
        ("data", "nsd", "n_images", 20, 'kind "phantom"'),
        ("features", "precomputed", "prompt", "", 'kinds "llava", "llava_onevision" and "qwen2_5_vl"'),
        (
            "features",
            "precomputed",
            "model",
            "clip",
            'kinds "clip", "siglip", "siglip_naflex", "dinotxt", "llava", "llava_onevision" and "qwen2_5_vl"',
        ),
    ],
)
def test_key_of_another_kind_names_the_kinds_that_have_it(section, kind, key, value, having):
    values = {key: value} if kind is None else {"kind": kind, key: value}
    with pytest.raises(errors.ConfigError) as caught:
        config.from_dict({section: values})
    kind = kind or next(iter(KINDS[section]))
    problem = f'  {section}.{key}: kind "{kind}" has no such key; it belongs to {having}.'
    assert str(caught.value).splitlines()[1:] == [problem]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": {"kind": "llava", "promt": ""}}, "features.promt: unknown key. Did you mean 'prompt'?"),
        *(
            ({"data": {"test": n}}, "data.test: input should be a share between 0 and 1, or the name of a file")
            for n in (60, 1.0, True, [1])
        ),
        ({"encoder": {"kind": "linear"}}, 'encoder.kind: must be "query" or "ridge", but is \'linear\'.'),
        (
            {"features": {"kind": 3}},
            'features.kind: must be "clip", "siglip", "siglip_naflex", "dinotxt", "llava", "llava_onevision"',
        ),
    ],
)
def test_unknown_keys_and_kinds(values, message):
    with pytest.raises(errors.ConfigError) as caught:
        config.from_dict(values)
    (problem,) = str(caught.value).splitlines()[1:]
    assert problem.startswith(f"  {message}")


def test_problems_of_kinds_come_with_all_others():
    values = {
        "data": {"root": "/nsd", "val": 2.0, "zscor": "run"},
        "encoder": {"kind": "ridge", "heads": 7, "folds": 1},
        "features": {"kind": "vit"},
        "roi": {"min_voxels": 0},
    }
    with pytest.raises(errors.ConfigError, match=r"7 problems") as caught:
        config.from_dict(values)
    named = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert sorted(named) == [
        "data.root", "data.val", "data.zscor", "encoder.folds", "encoder.heads", "features.kind", "roi.min_voxels"
    ]  # fmt: skip


def test_command_line_refuses_keys_of_another_kind(tmp_path):
    path = write(tmp_path, "[encoder]\nwidth = 8\n")
    settings = ["--set", 'encoder.kind="ridge"', "--set", "encoder.heads=7"]
    command = [sys.executable, "-m", "mine_jax", "run", str(path), "--out", str(tmp_path / "run"), *settings]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and not (tmp_path / "run").exists()
    assert 'encoder.heads: kind "ridge" has no such key' in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_model_of_an_evaluator_belongs_to_the_file(tmp_path, kind):
    path = tmp_path / "c.toml"
    path.write_text(f'[validation]\nevaluator = "{kind}:models/judge"\n', encoding="utf-8")
    read = config.read(path).validation
    assert read.evaluator == f"{kind}:{tmp_path / 'models' / 'judge'}"
    assert config.judging_model(read.evaluator) == str(tmp_path / "models" / "judge")
    path.write_text('[validation]\nevaluator = "clip:phantom-captions"\n', encoding="utf-8")
    assert config.read(path).validation.evaluator == "clip:phantom-captions"


@pytest.mark.parametrize("value", ["clip:", "llava:x", "other", 3])
def test_evaluators_that_are_none(value):
    with pytest.raises(errors.ConfigError, match=r"validation\.evaluator: .*and a model directory"):
        config.from_dict({"validation": {"evaluator": value}})


@pytest.mark.parametrize("name", ["shared", "phantom", "none", "ridge", "clip:phantom", "clip:photos"])
def test_folders_called_like_a_keyword_are_folders(tmp_path, name):
    path = tmp_path / "c.toml"
    keys = ("images", "responses", "image_ids", "mask", "rois")
    path.write_text("[data]\n" + "".join(f'{key} = "{name}"\n' for key in keys), encoding="utf-8")
    read = config.read(path).data
    assert {getattr(read, key) for key in keys} == {str(tmp_path / name)}
    path.write_text(f'[data]\nkind = "nsd"\nroot = "{name}"\n', encoding="utf-8")
    assert config.read(path).data.root == str(tmp_path / name)
