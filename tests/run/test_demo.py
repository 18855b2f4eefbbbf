"""The demo's other subjects run aside, in processes of their own."""

import subprocess
import sys
import time

import pytest

from mine_jax.run import demo
from mine_jax.run.reporter import Reporter


class Lines(Reporter):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def process(code):
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )


def test_subjects_run_one_after_the_other_and_their_lines_are_shown(tmp_path, monkeypatch):
    code = {"good": "print('data: done')\nprint('roi: done')", "bad": "import sys\nsys.exit('no space')", "last": ""}
    started = []

    def start(directory, subject, seed):
        assert (directory, seed) == (tmp_path, 3)
        started.append(subject)
        return process(code[subject])

    monkeypatch.setattr(demo, "_started", start)
    reporter = Lines()
    with demo._aside(tmp_path, list(code), 3, reporter) as wait:
        # those that are not done are run again by the demo itself, which then says why
        assert wait() == ["good", "last"]
    assert started == ["good", "bad", "last"]
    assert reporter.said == ["good: data: done", "good: roi: done", "bad: no space"]


def test_an_error_ends_the_subjects_beside_it(tmp_path, monkeypatch):
    running = []

    def start(directory, subject, seed):
        running.append(process("import time\nprint('begun', flush=True)\ntime.sleep(60)"))
        return running[-1]

    monkeypatch.setattr(demo, "_started", start)
    reporter, begin = Lines(), time.monotonic()
    with pytest.raises(ValueError, match="of the first"), demo._aside(tmp_path, ["one", "two"], 0, reporter):
        while not reporter.said:
            time.sleep(0.01)
        raise ValueError("of the first")
    assert len(running) == 1 and running[0].poll() is not None and time.monotonic() - begin < 30


def test_subjects_whose_process_does_not_start_are_left(tmp_path, monkeypatch):
    def start(directory, subject, seed):
        raise OSError("no more processes")

    monkeypatch.setattr(demo, "_started", start)
    with demo._aside(tmp_path, ["one", "two"], 0, Lines()) as wait:
        assert wait() == []


def test_nothing_runs_aside_without_other_subjects(tmp_path):
    with demo._aside(tmp_path, [], 0, Lines()) as wait:
        assert wait() == []


def test_the_process_of_a_subject_is_the_command_line(tmp_path):
    (tmp_path / "phantom").write_text("no folder")
    with demo._started(tmp_path, "subj02", 0) as started:
        text, _ = started.communicate(timeout=300)
    assert started.returncode in (2, 3, 5) and "mine-jax: " in text and "Traceback" not in text
