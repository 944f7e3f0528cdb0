"""What came back for one patch, checked: every round answered once and in order, every frame the sum of its flips."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.histogram import NUM_BINS, bin_of
from rtqec.kernels.native import compiled
from rtqec.wire import CORRECTION, CorrectionFlag, FrameStatus, Reason, Rung

HELD_MAX = 1 << 16
"""Stretches of held rounds that are remembered until they are amended; most never are, as their rounds are gone."""
_AMENDABLE = (Reason.DEADLINE, Reason.BACKLOG)
_MARKS = int(CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED | CorrectionFlag.OPEN_PAST | CorrectionFlag.AMENDMENT)


@compiled
def add_samples(samples: Any, counts: Any) -> Any:
    """Count samples into a histogram."""
    for sample in samples:
        counts[bin_of(sample)] += 1


@dataclass
class PatchAccount:
    """What came back for one patch.

    Attributes:
        patch_id, plan_tag: Whom it is about.
        num_shots: Shots that are sent.
        keep: Whether to keep every correction, see `corrections`.
        stale: Corrections of an earlier source, which came before the first of this one; nothing of them is checked.
        out_of_order: Places where a correction does not follow the one before it.
        index_gaps: Corrections that never came, by `window_index`.
        wrong_frame: Corrections whose frame is not the XOR of all flips of their shot so far.
        bad_amendments: Amendments of rounds that had not been held, or that were amended before, or out of order.
        rounds_answered: Rounds of all corrections but amendments; of them `rounds_held`; of them `rounds_amended`.
        frames: uint64, shape (num_shots,): frame after the last correction or amendment of each shot.
        finished: bool, shape (num_shots,): shots whose last correction came.
        marked: bool, shape (num_shots,): shots of which any correction is lossy, degraded, held, tainted, amended,
            or was decoded with an open past.
        caught_up: bool, shape (num_shots,): shots of which any window was larger than configured.
        lateness_counts: int64, histogram of `published_ns - deadline_ns` of late corrections, in ns.
    """

    patch_id: int
    plan_tag: int
    num_shots: int
    keep: bool = False
    received: int = 0
    stale: int = 0
    out_of_order: int = 0
    index_gaps: int = 0
    wrong_digest: int = 0
    wrong_frame: int = 0
    bad_amendments: int = 0
    rounds_answered: int = 0
    rounds_held: int = 0
    rounds_amended: int = 0
    lateness_ns_max: int = 0
    flags: dict[str, int] = field(default_factory=lambda: {str(flag.name).lower(): 0 for flag in CorrectionFlag})
    rungs: dict[str, int] = field(default_factory=lambda: {rung.name.lower(): 0 for rung in Rung})
    tainted: int = 0
    _begun: bool = False
    _last_index: int | None = None
    _last_live: NDArray[Any] | None = None
    _gap_since_live: bool = False
    _amended_until: tuple[int, int] = (0, 0)
    _amendable_until: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.frames = np.zeros(self.num_shots, np.uint64)
        self.finished = np.zeros(self.num_shots, np.bool_)
        self.marked = np.zeros(self.num_shots, np.bool_)
        self.caught_up = np.zeros(self.num_shots, np.bool_)
        self.lateness_counts = np.zeros(NUM_BINS, np.int64)
        self._flips = np.zeros(self.num_shots, np.uint64)
        self._unsure = np.zeros(self.num_shots, np.bool_)
        self._held: deque[tuple[int, int, int]] = deque(maxlen=HELD_MAX)
        self._kept: list[NDArray[Any]] = []

    @property
    def corrections(self) -> NDArray[Any]:
        """All corrections, `wire.CORRECTION`, in the order in which they came; only with `keep`."""
        assert self.keep
        return np.concatenate(self._kept) if self._kept else np.zeros(0, CORRECTION)

    @property
    def awaits_amendments(self) -> bool:
        """Whether the last rounds that were held, but can still be decoded, have not been amended."""
        return self._amendable_until > self._amended_until

    def check(self, corrections: NDArray[Any]) -> None:
        """Account for corrections of this patch, in the order in which they came.

        Args:
            corrections: `wire.CORRECTION`, shape (n,), n > 0.
        """
        corrections = self._without_stale(corrections)
        if not len(corrections):
            return
        if self.keep:
            self._kept.append(corrections.copy())
        self.received += len(corrections)
        self.wrong_digest += int((corrections["plan_tag"] != self.plan_tag).sum())
        self._count_marks(corrections)
        steps = self._index_steps(corrections)
        self.index_gaps += int((steps[steps > 1] - 1).sum())
        self._follow_rounds(corrections, steps)
        self._follow_amendments(corrections)
        known = corrections["shot_id"] < self.num_shots
        self._follow_frames(corrections[known], steps[known])

    def _without_stale(self, corrections: NDArray[Any]) -> NDArray[Any]:
        """What comes before round 0 of shot 0 ends a shot of an earlier source."""
        if self._begun:
            return corrections
        first = np.flatnonzero((corrections["shot_id"] == 0) & (corrections["first_round"] == 0))
        self._begun = bool(len(first))
        stale = int(first[0]) if self._begun else len(corrections)
        self.stale += stale
        return corrections[stale:]

    def _count_marks(self, corrections: NDArray[Any]) -> None:
        """Sum up what corrections say of themselves."""
        for flag in CorrectionFlag:
            self.flags[str(flag.name).lower()] += int(((corrections["flags"] & flag) != 0).sum())
        for rung in Rung:
            self.rungs[rung.name.lower()] += int((corrections["rung"] == rung).sum())
        tainted = corrections["frame_status"] == FrameStatus.TAINTED
        self.tainted += int(tainted.sum())
        known = corrections["shot_id"] < self.num_shots
        marked = tainted | ((corrections["flags"] & _MARKS) != 0) | (corrections["rung"] == Rung.HOLD)
        self.marked[corrections["shot_id"][marked & known].astype(np.int64)] = True
        caught_up = (corrections["flags"] & CorrectionFlag.CAUGHT_UP) != 0
        self.caught_up[corrections["shot_id"][caught_up & known].astype(np.int64)] = True
        late = corrections[(corrections["flags"] & CorrectionFlag.LATE) != 0]
        lateness = late["published_ns"].astype(np.int64) - late["deadline_ns"].astype(np.int64)
        add_samples(lateness, self.lateness_counts)
        self.lateness_ns_max = max(self.lateness_ns_max, int(lateness.max(initial=0)))

    def _index_steps(self, corrections: NDArray[Any]) -> NDArray[np.int64]:
        """By how much each `window_index` exceeds the one before: 1, but for what went wrong."""
        indices: NDArray[np.int64] = corrections["window_index"].astype(np.int64)
        before = indices[0] - 1 if self._last_index is None else self._last_index
        self._last_index = int(indices[-1])
        steps: NDArray[np.int64] = indices - np.append(before, indices[:-1])
        return steps

    def _follow_rounds(self, corrections: NDArray[Any], steps: NDArray[np.int64]) -> None:
        """Rounds answered: contiguous, in order, each once; where corrections never came, only in order."""
        amendment = _is_amendment(corrections)
        live = corrections[~amendment]
        self.rounds_answered += int(live["num_rounds"].sum())
        self.out_of_order += int((steps < 1).sum())
        if not len(live):
            self._gap_since_live |= bool((steps > 1).any())
            return
        gaps = np.cumsum(steps > 1)
        after_gap = np.diff(gaps[~amendment], prepend=-int(self._gap_since_live)) > 0
        self._gap_since_live = bool(gaps[-1] > gaps[~amendment][-1])
        if self._last_live is not None:
            before = np.concatenate([self._last_live, live[:-1]])
        else:
            # What round 0 of shot 0 follows is not there: let it follow itself.
            before, live, after_gap = live[:-1], live[1:], after_gap[1:]
        fine = np.where(after_gap, _goes_on(before, live), _follows(before, live))
        repeated = (steps < 1)[~amendment][-len(live) :] if len(live) else np.zeros(0, np.bool_)
        self.out_of_order += int((~fine & ~repeated).sum())
        self._last_live = corrections[~amendment][-1:].copy()

    def _follow_amendments(self, corrections: NDArray[Any]) -> None:
        """Amendments are of rounds that were held, each once, in order."""
        amendment = _is_amendment(corrections)
        for i in np.flatnonzero(amendment | (corrections["rung"] == Rung.HOLD)).tolist():
            correction = corrections[i]
            shot, start = int(correction["shot_id"]), int(correction["first_round"])
            stop = start + int(correction["num_rounds"])
            if amendment[i]:
                self.rounds_amended += stop - start
                self.bad_amendments += not self._take_held(shot, start, stop)
                self._amended_until = max(self._amended_until, (shot, stop))
                continue
            self.rounds_held += stop - start
            if self._held and self._held[-1][0] == shot and self._held[-1][2] == start:
                start = self._held.pop()[1]
            self._held.append((shot, start, stop))
            if correction["reason"] in _AMENDABLE:
                self._amendable_until = (shot, stop)

    def _take_held(self, shot: int, start: int, stop: int) -> bool:
        """Whether these rounds have been held, and none of them or behind them has been amended."""
        while self._held and (self._held[0][0], self._held[0][2]) <= (shot, start):
            self._held.popleft()
        if not self._held or self._held[0][0] != shot or not self._held[0][1] <= start <= stop <= self._held[0][2]:
            return False
        self._held[0] = (shot, stop, self._held[0][2])
        return True

    def _follow_frames(self, corrections: NDArray[Any], steps: NDArray[np.int64]) -> None:
        """Frames are the XOR of all flips of their shot so far; the last one stands."""
        shots = corrections["shot_id"].astype(np.int64)
        order = np.argsort(shots, kind="stable")
        flips = np.bitwise_xor.accumulate(corrections["flips"][order])
        first = np.flatnonzero(np.diff(shots[order], prepend=-1))
        carried = self._flips[shots[order][first]] ^ np.where(first > 0, flips[first - 1], np.uint64(0))
        flips ^= np.repeat(carried, np.diff(first, append=len(order)))
        expected = np.zeros(len(order), np.uint64)
        expected[order] = flips
        # Flips that never came are missing from every later frame of the shot.
        self._unsure[shots[steps > 1]] = True
        amendment = _is_amendment(corrections)
        amended = np.zeros(self.num_shots, np.bool_)
        amended[shots[amendment]] = True
        # What is answered by holding ahead of amendments does not know of them.
        unsure = self._unsure[shots] | ((corrections["rung"] == Rung.HOLD) & ~amendment & amended[shots])
        self.wrong_frame += int(((expected != corrections["frame"]) & ~unsure).sum())
        self._flips[shots] = expected
        last = ~amendment & ((corrections["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0)
        self.finished[shots[last]] = True
        self.frames[shots[last | amendment]] = corrections["frame"][last | amendment]


def _is_amendment(corrections: NDArray[Any]) -> NDArray[np.bool_]:
    amendment: NDArray[np.bool_] = (corrections["flags"] & CorrectionFlag.AMENDMENT) != 0
    return amendment


def _follows(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each correction commits exactly the rounds after those of the one before it."""
    last = (before["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0
    goes_on = (after["shot_id"] == before["shot_id"]) & (
        after["first_round"] == before["first_round"] + before["num_rounds"]
    )
    next_shot = (after["shot_id"] > before["shot_id"]) & (after["first_round"] == 0)
    follows: NDArray[np.bool_] = np.where(last, next_shot, goes_on)
    return follows


def _goes_on(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each correction is of later rounds than the one before it."""
    goes_on: NDArray[np.bool_] = (after["shot_id"] > before["shot_id"]) | (
        (after["shot_id"] == before["shot_id"]) & (after["first_round"] >= before["first_round"] + before["num_rounds"])
    )
    return goes_on
