"""What long work shows: lines elsewhere, a bar on a terminal."""

import io
import time

import numpy as np

from mine_jax._progress import State
from mine_jax.run import reporter as reporters
from mine_jax.run.record.summary import finite_median, sentence


def test_plain_lines_at_each_interval_even_when_nothing_reports():
    stream = io.StringIO()
    reporter = reporters.PlainReporter(stream, interval_s=0.05)
    with reporter.task("encoder") as progress:
        time.sleep(0.12)
        progress(0, 10)
        time.sleep(0.3)
        progress(5, 10)
        time.sleep(0.12)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("encoder: working")
    assert any("5 of 10 (50%)" in line and "/s" in line and line.endswith("left") for line in lines)
    time.sleep(0.1)
    assert stream.getvalue().splitlines() == lines


def test_short_work_shows_nothing():
    stream = io.StringIO()
    with reporters.PlainReporter(stream).task("encoder") as progress:
        progress(1, 1)
    assert stream.getvalue() == ""


def test_a_second_loop_starts_a_new_count():
    state = State()
    state.update(0, 4)
    state.update(4, 4)
    # all is counted, and something still goes on
    assert state.text().startswith("finishing")
    state.update(1, 4)
    assert state.text().startswith("1 of 4 (25%)")
    state.update(0, 0)
    assert state.text().startswith("working")


def test_the_rest_is_not_told_where_it_should_be_done_by_now(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state = State()
    state.update(0, 9027)
    now[0] = 104.0
    state.update(8000, 9027)
    assert state.text() == "8,000 of 9,027 (89%), 2,000/s, 1 s left"
    now[0] = 109.0  # another kind of work has begun: the rate of the one before says nothing of it
    assert state.text() == "8,000 of 9,027 (89%), 9 s so far"
    state.update(9027, 9027)
    now[0] = 176.0
    assert state.text() == "finishing, 1 min 16 s so far"


def test_terminal_bar(capsys):
    reporter = reporters.TerminalReporter()
    with reporter.task("encoder") as progress:
        progress(1, 2)
        reporter.say("a line with [brackets]")
    reporter.found("a result")
    captured = capsys.readouterr()
    assert "a line with [brackets]" in captured.err and captured.out == "a result\n"


def test_sentences_leave_out_what_is_not_known():
    summary = {"fitted": 1200, "r": 0.12345, "missing": None, "small": 1e-5, "by": {"FFA": "face"}, "reason": "why"}
    parts = ("{fitted} {units}", "r {r}, gap {small}", "none {missing}", "other {absent}", "prefers {by}")
    assert sentence(parts, summary) == "1,200 voxels, r 0.12, gap 0.00, prefers FFA face, why"
    assert sentence(parts[:1], summary, units="neurons") == "1,200 neurons, why"


def test_medians_leave_out_what_is_not_finite_and_are_none_of_nothing():
    assert finite_median(np.array([[3.0, np.nan], [1.0, np.inf]])) == 2.0
    assert finite_median(np.full(3, np.nan)) is None and finite_median([]) is None
