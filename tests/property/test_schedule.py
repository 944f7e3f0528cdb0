"""Windows cover every round of a shot once, in plan and path alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtqec.config import WindowTable
from rtqec.plan.schedule import windows_of_shot


@given(num_rounds=st.integers(1, 400), commit=st.integers(1, 40), buffer=st.integers(0, 40))
def test_commits_cover_every_round_once(num_rounds: int, commit: int, buffer: int) -> None:
    """Commit regions are contiguous, disjoint and complete; each open window looks `buffer` rounds further."""
    windows = windows_of_shot(num_rounds, WindowTable(commit_rounds=commit, buffer_rounds=buffer))
    covered = [t for w in windows for t in range(w.start, w.commit_stop)]
    assert covered == list(range(num_rounds))
    assert [w.index for w in windows] == list(range(len(windows)))
    assert [w.closing for w in windows] == [False] * (len(windows) - 1) + [True]
    for window in windows[:-1]:
        assert window.commit_stop - window.start == commit
        assert window.stop - window.commit_stop == buffer
        assert window.stop < num_rounds
    last = windows[-1]
    assert last.stop == last.commit_stop == num_rounds
    assert last.stop - last.start <= commit + buffer
    assert len(windows) == 1 or last.stop - last.start > buffer
