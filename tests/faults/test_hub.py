"""F-99: a model of the hub is one commit, and is fetched only where the configuration says so."""

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mine_jax import config, errors
from mine_jax.config import ClipConfig

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", ["main", "refs/pr/3", "v1.0", REVISION[:39], REVISION[:7], REVISION.upper(), ""])
@pytest.mark.parametrize("kind", ["clip", "siglip", "llava"])
def test_a_revision_that_is_no_commit(kind, revision):
    """F-99: a branch, a tag or half a hash moves."""
    values = {"kind": kind, "model": "someone/model", "revision": revision, "allow_download": True}
    with pytest.raises(errors.ConfigError, match=r"features\.revision: input should be the 40 hex digits of a commit"):
        config.from_dict({"features": values})


def test_download_without_a_revision():
    """F-99: leave to download asks for the commit."""
    with pytest.raises(errors.ConfigError, match=r"features\.allow_download: .* only beside `revision`"):
        config.from_dict({"features": {"model": "someone/model", "allow_download": True}})


WRONG = ["a/b--c", "a/b.", "a..b/c", "a/-b", "a./b", "a/b.git", "a/" + 97 * "b", 97 * "a" + "/b", "é/b", "a/b c"]


@pytest.mark.parametrize("model", WRONG)
def test_what_the_hub_takes_for_no_id(model, tmp_path):
    """F-99: huggingface_hub would refuse the name in the middle of a run."""
    with pytest.raises(HFValidationError):
        validate_repo_id(model)
    values = {"features": {"model": model, "revision": REVISION}}
    with pytest.raises(errors.ConfigError, match=r"features\.model: .* is no folder, and cannot be an id"):
        config.from_dict(values, base=tmp_path)
    (tmp_path / model).mkdir(parents=True)
    assert config.from_dict(values, base=tmp_path).features.model == str(tmp_path / model)


@pytest.mark.parametrize("model", ["a/b", "a-b.c_d/E.f-g", "_a/b_", "a/b.-c", "a/" + 96 * "b", 96 * "a" + "/b"])
def test_what_the_hub_takes_for_an_id(model):
    """F-99: every name that huggingface_hub takes."""
    validate_repo_id(model)
    assert config.hub_id(ClipConfig(model=model, revision=REVISION)) == model


def test_nothing_is_fetched_by_default():
    """F-99: offline is the default."""
    assert ClipConfig().allow_download is False and ClipConfig().revision is None
