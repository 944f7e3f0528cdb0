"""Which window follows which, and how a shot is cut into them.

Window k of a shot looks at rounds [k C, k C + B + C) and commits [k C, (k + 1) C). The window in which the shot ends
looks at what is left and commits all of it. Here is arithmetic only; `kernels.window` has the compiled twin.
"""

from __future__ import annotations

from dataclasses import dataclass

from rtqec.config import WindowTable


@dataclass(frozen=True)
class WindowRounds:
    """Rounds [start, stop) of a window, of which [start, commit_stop) are committed."""

    index: int
    start: int
    stop: int
    commit_stop: int
    closing: bool


def windows_of_shot(num_rounds: int, window: WindowTable) -> list[WindowRounds]:
    """The windows of a shot of `num_rounds` rounds: contiguous commits that cover every round once."""
    windows: list[WindowRounds] = []
    start = 0
    while num_rounds - start > window.rounds:
        commit_stop = start + window.commit_rounds
        windows.append(WindowRounds(len(windows), start, start + window.rounds, commit_stop, closing=False))
        start = commit_stop
    windows.append(WindowRounds(len(windows), start, num_rounds, num_rounds, closing=True))
    return windows
