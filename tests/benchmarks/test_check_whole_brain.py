"""The check of a whole brain: every stage runs on what it writes, and its powers are those of the times."""

import numpy as np
import pytest

import mine_jax
from benchmarks import check_whole_brain as check


def test_every_stage_runs_on_a_tiny_brain(tmp_path):
    config = check.write_inputs(tmp_path, 12, 60, encoder="ridge", n_words=300)
    assert np.load(tmp_path / "responses.npy", mmap_mode="r").shape == (60, 12)
    measured = check.run_stages(config, tmp_path / "run")
    assert list(measured) == list(mine_jax.STAGES)
    assert all(stage["cpu_s"] > 0 and stage["peak_bytes"] < check.LIMIT_BYTES for stage in measured.values())
    assert (tmp_path / "run" / "voxels.tsv").is_file()


def test_powers_are_slopes_between_the_last_two_sizes():
    def of(size):
        encoder = {"cpu_s": 0.01 * size, "peak_bytes": 2.0**20 * size}
        return {"encoder": encoder, "roi": {"cpu_s": size**2, "peak_bytes": 1}}

    measured = {size: of(size) for size in (10, 100, 1000)}
    assert check.powers(measured) == pytest.approx({"encoder": 1.0, "roi": 2.0})
    text = check.table(measured)
    assert "encoder" in text and "1000 MiB, within 4 GiB" in text
    assert check.summary(measured)["roi power"] == pytest.approx(2.0)
    assert "roi power" not in check.summary({10: of(10)})
    measured[1000]["roi"]["peak_bytes"] = 5 << 30
    assert "MORE THAN 4 GiB" in check.table(measured)
