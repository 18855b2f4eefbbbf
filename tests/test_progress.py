"""A script's long work shows a bar where someone sits before a terminal, and there alone."""

import io
import logging
import sys

import numpy as np
import pytest

from mine_jax import data, features, phantom, pipeline
from mine_jax._checks import takes
from mine_jax._progress import shown, silenced, silent
from mine_jax.config import ClipConfig, PhantomConfig
from mine_jax.types import Lens


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self):
        return True


def sit_before_a_terminal(monkeypatch):
    """Replaces standard error in the test itself: pytest puts its own back before every test."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    return sys.stderr


@pytest.mark.parametrize(("progress", "text"), [(True, "3 of 4 (75%)"), (False, "")])
def test_bar_on_a_terminal(monkeypatch, progress, text):
    terminal = sit_before_a_terminal(monkeypatch)
    with shown("work", progress) as report:
        report(3, 4)
    assert text in terminal.getvalue() and bool(terminal.getvalue()) is bool(text)


def test_nothing_elsewhere_and_a_callback_is_called(capsys, monkeypatch):
    with shown("work", True) as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")
    calls, terminal = [], sit_before_a_terminal(monkeypatch)
    with shown("work", lambda *call: calls.append(call)) as report:
        report(1, 2)
    assert calls == [(1, 2)] and terminal.getvalue() == ""


def test_every_long_step_of_a_script_shows_itself_unless_it_is_told_not_to(tmp_path, monkeypatch):
    terminal = sit_before_a_terminal(monkeypatch)
    rng = np.random.default_rng(0)
    lens = Lens(np.array(["dog", "cat", "car", "tree"]), np.eye(4), np.zeros(4))
    settings = {"encoder": {"kind": "ridge", "decoys": 0, "halves": False}, "attribution": {"min_r2": 0.99}}
    steps = {
        "phantom": lambda **more: phantom.write_phantom(
            tmp_path / f"phantom{len(more)}", subjects=["subj01"], n_images=60, n_shared=20, shape=(10, 10, 8), **more
        ),
        "data": lambda **more: data.load_nsd(tmp_path / "phantom0", **more)[1],
        "features": lambda **more: features.load_features(
            ClipConfig(model="phantom"), data.open_stimuli(PhantomConfig(root=str(tmp_path / "phantom0"))), **more
        ),
        "describe": lambda **more: pipeline.describe(
            rng.standard_normal((60, 2, 4)), rng.standard_normal((60, 2)), lens, settings=settings, **more
        ),
    }
    for name, step in steps.items():
        terminal.seek(0), terminal.truncate()
        step()
        assert name in terminal.getvalue() and ("%" in terminal.getvalue() or "finishing" in terminal.getvalue())
        terminal.seek(0), terminal.truncate()
        step(progress=False)
        assert terminal.getvalue() == ""
    data.load(PhantomConfig(root=str(tmp_path / "phantom0")))
    assert "data" in terminal.getvalue()


def test_silenced_holds_back_one_logger_and_puts_its_level_back(caplog):
    caplog.set_level(logging.INFO, logger="mine_jax.told")
    with pytest.raises(OSError, match="full"), silenced("mine_jax.told"):
        logging.getLogger("mine_jax.told").error("the disk is full")
        logging.getLogger("mine_jax.other").error("something else")
        raise OSError("the disk is full")
    logging.getLogger("mine_jax.told").info("goes on")
    assert caplog.messages == ["something else", "goes on"]


def test_functions_that_check_their_data_take_true_and_false_as_progress(monkeypatch):
    calls, terminal = [], sit_before_a_terminal(monkeypatch)

    @takes("no remedy.", data=list)
    def counted(data, *, progress=silent):
        progress(len(data), len(data))
        return progress

    assert counted([1], progress=False) is silent and counted([1]) is silent
    counted([1, 2], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 2)] and terminal.getvalue() == ""
    counted([1, 2], progress=True)
    assert "2 of 2" in terminal.getvalue() or "finishing" in terminal.getvalue()
    assert "counted" in terminal.getvalue()
