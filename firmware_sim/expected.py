"""What the daemon must count, exactly, given what was injected.

Sequence numbers are walked epoch by epoch (`kernels.turns`); rounds are counted by the gaps that lost messages leave
in their shots. Assumed of time: no silence within a shot is longer than `[feed] round_timeout_ms`, and what is held
back comes within `gap_wait_us`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.faults import rounds_of
from firmware_sim.kernels.records import FATES_LOST, Fate, FaultKind
from firmware_sim.kernels.turns import (
    ARRIVED,
    HELD,
    LATE,
    LATE_COUNT,
    LOST,
    MISSING,
    REORDERED,
    TURN_WORDS,
    walk_epoch,
)
from firmware_sim.sender import Sender
from rtqec.config import Config
from rtqec.layout import ring_capacity
from rtqec.plan import Plan

_EPOCHS = 1 << 16
NAMES = (
    "messages_missing", "late", "reordered", "duplicate", "second_source", "restarts", "resyncs", "bad", "rounds",
    "rounds_filled", "jumps", "ring_full", "shots", "shots_truncated", "shots_headless", "shots_timed_out",
)  # fmt: skip
"""The daemon's feed counters that are compared; "bad" is the sum of all causes for which a message is refused."""


def expected_counts(config: Config, plans: list[Plan], sender: Sender) -> dict[str, int]:
    """The daemon's feed counters after a whole run, by the names in `NAMES`, and `rounds_answered`.

    Args:
        config: `[feed]` is read.
        plans: One per patch.
        sender: After its run, with faults; its log has not overflowed.
    """
    counts = Counter(dict.fromkeys((*NAMES, "rounds_answered"), 0))
    for p, plan in enumerate(plans):
        assert sender.faults is not None
        fates = sender.faults.fates_of(p).copy()
        gone = _walk_turns(config, sender, p, fates, counts)
        _count_fates(fates, counts)
        ring_rounds = ring_capacity(config.feed.ring_rounds, plan.window.rounds)
        _count_rounds(sender, p, fates[gone], ring_rounds // 2 - 1, counts)
    return dict(counts)


def missed_rounds(config: Config, sender: Sender, p: int) -> NDArray[np.int64]:
    """Rounds of a patch that the daemon never placed: lost, or out of turn by more than it waits for.

    Returns:
        int64, shape (n, 2): shot and round, in order.
    """
    if sender.faults is None:
        return np.zeros((0, 2), np.int64)
    fates = sender.faults.fates_of(p).copy()
    return rounds_of(fates[_walk_turns(config, sender, p, fates, Counter())])


def _walk_turns(config: Config, sender: Sender, p: int, fates: NDArray[Any], counts: Counter[str]) -> NDArray[np.bool_]:
    """Count by sequence numbers. Returns which entries of the log never reached their place."""
    last_epoch, length = sender.epoch_of(p)
    num_restarts = sender.faults.times(p, FaultKind.RESTART) if sender.faults else 0
    depth = config.feed.reorder_depth
    gone: NDArray[np.bool_] = (fates["fate"] & FATES_LOST) != 0
    heard = 0
    for back in range(num_restarts, -1, -1):
        here = np.flatnonzero(fates["epoch"] == (last_epoch - back) % _EPOCHS)
        cut_off = (fates["fate"][here] & Fate.CUT_OFF) != 0
        num_messages = int(fates["sequence"][here][cut_off].min()) if back else length
        here = here[~cut_off & (gone[here] | ((fates["fate"][here] & Fate.REORDERED) != 0))]
        kinds = np.where(gone[here], LOST, HELD)
        turn = np.zeros(TURN_WORDS, np.int64)
        sequences, afters = fates["sequence"][here].astype(np.int64), fates["after"][here].astype(np.int64)
        walk_epoch(num_messages, sequences, kinds, afters, depth, turn, np.full(max(depth, 1), -1, np.int64))
        gone[here[kinds == LATE]] = True
        heard += bool(turn[ARRIVED])
        counts["messages_missing"] += int(turn[MISSING])
        counts["late"] += int(turn[LATE_COUNT])
        counts["reordered"] += int(turn[REORDERED])
    counts["restarts"] += heard - 1
    return gone


def _count_fates(fates: NDArray[Any], counts: Counter[str]) -> None:
    """Count what is seen message by message."""
    sent = (fates["fate"] & Fate.UNSENT) == 0
    counts["duplicate"] += int((sent & ((fates["fate"] & Fate.DUPLICATED) != 0)).sum())
    counts["bad"] += int((sent & ((fates["fate"] & (Fate.WRONG_PLAN | Fate.CORRUPTED)) != 0)).sum())


def _count_rounds(sender: Sender, p: int, lost: NDArray[Any], fill_max: int, counts: Counter[str]) -> None:
    """Count by the gaps that lost messages leave in shots."""
    num_rounds = int(sender.shot_rounds[p])
    lost = lost[np.lexsort((lost["first_round"], lost["shot"]))]
    stops = lost["first_round"] + lost["num_rounds"]
    joins = (lost["shot"][1:] == lost["shot"][:-1]) & (lost["first_round"][1:] == stops[:-1])
    begins = np.flatnonzero(np.append(True, ~joins)[: len(lost)])
    ends = np.flatnonzero(np.append(~joins, True)[: len(lost)])
    starts, stops = lost["first_round"][begins], stops[ends]
    at_head, at_end = starts == 0, stops == num_rounds
    inside = ~at_head & ~at_end
    fills = inside & (stops - starts <= fill_max)
    shots = sender.shots_begun(p) - int((at_head & at_end).sum())
    counts["shots"] += shots
    counts["shots_headless"] += int((at_head & ~at_end).sum())
    counts["shots_truncated"] += int((at_end & ~at_head).sum())
    counts["rounds_filled"] += int((stops - starts)[fills].sum())
    counts["jumps"] += int((inside & ~fills).sum())
    counts["rounds"] += sender.rounds_sent_of(p) - int(lost["num_rounds"].sum())
    counts["rounds_answered"] += shots * num_rounds
