"""F-99: a model of the hub is one commit, and is fetched only where the configuration says so."""

import pytest

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


def test_nothing_is_fetched_by_default():
    """F-99: offline is the default."""
    assert ClipConfig().allow_download is False and ClipConfig().revision is None
