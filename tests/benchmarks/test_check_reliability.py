"""The check of reliability tries every fault, and calls wrong what is wrong."""

import numpy as np
import pytest

from benchmarks import check_reliability as check
from benchmarks.reliability.commands import Ended
from benchmarks.reliability.outcomes import NAMED, RIGHT, WRONG, Outcome, contents, damage, named_error, verdict


@pytest.mark.slow
def test_faults_end_well(tmp_path):
    """F-68, F-72, F-96: a few; `make stress` tries many, and also F-70 and F-75."""
    outcomes = check.tried(tmp_path, {"kills": 1, "inputs": 1, "hostile": 2})
    assert [len(came) for came in outcomes.values()] == [1, 1, 2]
    assert not [outcome for came in outcomes.values() for outcome in came if outcome.end == WRONG]
    assert outcomes["inputs"] == [Outcome(NAMED)] and outcomes["kills"] == [Outcome(RIGHT)]


@pytest.mark.parametrize(
    ("code", "said", "end"),
    [
        (4, "data: done\nmine-jax: IntegrityError: a.npy is damaged\n", NAMED),
        (3, "mine-jax: IntegrityError: a\nmine-jax: DataError: b\n", WRONG),
        (1, "mine-jax: TokenError: x\nThis is a fault of mine_jax.\n", WRONG),
        (4, "Traceback (most recent call last):\nmine-jax: IntegrityError: a\n", WRONG),
        (0, "done\n", WRONG),
        (None, "", WRONG),
        (-11, "mine-jax: DataError: a\n", WRONG),
    ],
)
def test_only_named_errors_are_named(code, said, end):
    assert named_error(Ended(code, said), what="x").end == end


def test_another_result_and_a_touched_file_are_wrong(tmp_path):
    for name in ("run.json", "report.html", "voxels.tsv", "note.txt"):
        (tmp_path / name).write_text(name)
    expected = contents(tmp_path)
    assert set(expected) == {"voxels.tsv", "note.txt"}
    assert verdict(Ended(0, ""), tmp_path, expected) == Outcome(RIGHT)
    (tmp_path / "note.txt").write_text("other")
    (tmp_path / "report.html").unlink()
    outcome = verdict(Ended(0, ""), tmp_path, expected, what="cut")
    assert outcome == Outcome(WRONG, "cut: other content of note.txt, report.html")


def test_damages_change_the_file(tmp_path):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(30):
        (tmp_path / "a").write_bytes(b"0123456789")
        seen.add(damage(tmp_path / "a", rng))
        assert not (tmp_path / "a").is_file() or (tmp_path / "a").read_bytes() != b"0123456789"
    assert seen == {"flipped", "cut", "emptied", "deleted"}


def test_counts_stand_in_the_table():
    text = check.table({"kills": [Outcome(RIGHT), Outcome(RIGHT)], "disks": [Outcome(WRONG, "full: ended with 1")]})
    assert text.splitlines()[1].split() == ["kills", "2", "2", "0", "0"]
    assert text.splitlines()[-1] == "disks: full: ended with 1"
