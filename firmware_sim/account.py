"""What came back for one patch, checked: every round answered once and in order, every frame the sum of its flips."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.frames import AMENDABLE, FrameAccount
from firmware_sim.journal import Journal
from rtqec.histogram import NUM_BINS
from rtqec.kernels.histogram import bin_of
from rtqec.kernels.native import compiled
from rtqec.wire import CORRECTION, CorrectionFlag, FrameStatus, Reason, Rung

HELD_MAX = 1 << 16
"""Stretches of held rounds that are remembered until they are amended; most never are, as their rounds are gone."""
_FOR_EVER = 1 << 62
_GONE = (Reason.GAP, Reason.SHOT_TRUNCATED)
_ADMITS = int(CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED)
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
        journal: Where corrections are looked up that did not come, as those do not that a lane had handed to its
            transport when it died. They are accounted for in their place. None: they are only counted.
        stale: Corrections of an earlier source, which came before the first of this one; nothing of them is checked.
        out_of_order: Places where a correction does not follow the one before it.
        index_gaps: Corrections that never came, by `window_index`, and are not in the journal.
        resent: Corrections that did not come, but are in the journal.
        bad_amendments: Amendments of rounds that had not been held, or that were amended before, or out of order.
        rounds_answered: Rounds of all corrections but amendments; of them `rounds_held`; of them `rounds_amended`, and
            `rounds_gone`: held because they never came, or were lost with a lane.
        unflagged: Corrections of rounds that are gone, and that do not say so.
        leaps: How often the next shot that was answered was not the next one; `shots_leapt`: over how many.
        marked: bool, shape (num_shots,): shots of which any correction is lossy, degraded, held, tainted, amended,
            or was decoded with an open past.
        caught_up: bool, shape (num_shots,): shots of which any window was larger than configured.
        rungs_of_shot: uint8, shape (num_shots,): the rungs of each shot, one bit per `Rung`.
        lateness_counts: int64, histogram of `published_ns - deadline_ns` of late corrections, in ns.
    """

    patch_id: int
    plan_tag: int
    num_shots: int
    keep: bool = False
    journal: Journal | None = None
    received: int = 0
    stale: int = 0
    out_of_order: int = 0
    index_gaps: int = 0
    resent: int = 0
    wrong_digest: int = 0
    bad_amendments: int = 0
    rounds_answered: int = 0
    rounds_held: int = 0
    rounds_amended: int = 0
    rounds_gone: int = 0
    unflagged: int = 0
    leaps: int = 0
    shots_leapt: int = 0
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
        self._frames = FrameAccount(self.num_shots)
        self.marked = np.zeros(self.num_shots, np.bool_)
        self.caught_up = np.zeros(self.num_shots, np.bool_)
        self.rungs_of_shot = np.zeros(self.num_shots, np.uint8)
        self.lateness_counts = np.zeros(NUM_BINS, np.int64)
        self._held: deque[tuple[int, int, int]] = deque(maxlen=HELD_MAX)
        self._kept: list[NDArray[Any]] = []

    @property
    def corrections(self) -> NDArray[Any]:
        """All corrections, `wire.CORRECTION`, in the order in which they came; only with `keep`."""
        assert self.keep
        return np.concatenate(self._kept) if self._kept else np.zeros(0, CORRECTION)

    @property
    def frames(self) -> NDArray[np.uint64]:
        """Frame after the last correction or amendment of each shot, shape (num_shots,)."""
        return self._frames.last

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Shots whose last correction came, shape (num_shots,)."""
        return self._frames.finished

    @property
    def wrong_frame(self) -> int:
        """Corrections whose frame is not the XOR of all flips of their shot so far."""
        return self._frames.wrong

    @property
    def wrongly_clean(self) -> int:
        """Corrections whose frame holds a guess that nothing can amend, and does not say so."""
        return self._frames.wrongly_clean

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
        if len(corrections):
            self._account_for(self._with_missed(corrections))

    def look_up_rest(self) -> None:
        """Account for what the journal has behind the last correction that came. Nothing may come after that."""
        if self.journal is not None and self._last_index is not None:
            rest = self.journal(self.patch_id, self._last_index + 1, _FOR_EVER)
            self.resent += len(rest)
            if len(rest):
                self._account_for(rest)

    def _account_for(self, corrections: NDArray[Any]) -> None:
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
        self._frames.follow(corrections[known], steps[known] > 1)

    def _without_stale(self, corrections: NDArray[Any]) -> NDArray[Any]:
        """What comes before round 0 of shot 0 ends a shot of an earlier source."""
        if self._begun:
            return corrections
        first = np.flatnonzero((corrections["shot_id"] == 0) & (corrections["first_round"] == 0))
        self._begun = bool(len(first))
        stale = int(first[0]) if self._begun else len(corrections)
        self.stale += stale
        return corrections[stale:]

    def _with_missed(self, corrections: NDArray[Any]) -> NDArray[Any]:
        """These, with those in between that did not come but are in the journal."""
        if self.journal is None:
            return corrections
        indices = corrections["window_index"].astype(np.int64)
        before = indices[0] - 1 if self._last_index is None else self._last_index
        pieces, at = [], 0
        for i in np.flatnonzero(np.diff(indices, prepend=before) > 1).tolist():
            missed = self.journal(self.patch_id, int(indices[i - 1] if i else before) + 1, int(indices[i]))
            self.resent += len(missed)
            pieces += [corrections[at:i], missed]
            at = i
        return np.concatenate([*pieces, corrections[at:]]) if pieces else corrections

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
        rungs = np.uint8(1) << corrections["rung"][known]
        np.bitwise_or.at(self.rungs_of_shot, corrections["shot_id"][known].astype(np.int64), rungs)
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
        leapt = live["shot_id"].astype(np.int64) - before["shot_id"].astype(np.int64)
        self.leaps += int((leapt > 1).sum())
        self.shots_leapt += int((leapt[leapt > 1] - 1).sum())
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
            if correction["reason"] in _GONE:
                self.rounds_gone += stop - start
                self.unflagged += int(correction["flags"] & _ADMITS != _ADMITS)
            if self._held and self._held[-1][0] == shot and self._held[-1][2] == start:
                start = self._held.pop()[1]
            self._held.append((shot, start, stop))
            if correction["reason"] in AMENDABLE:
                self._amendable_until = (shot, stop)

    def _take_held(self, shot: int, start: int, stop: int) -> bool:
        """Whether these rounds have been held, and none of them or behind them has been amended."""
        while self._held and (self._held[0][0], self._held[0][2]) <= (shot, start):
            self._held.popleft()
        if not self._held or self._held[0][0] != shot or not self._held[0][1] <= start <= stop <= self._held[0][2]:
            return False
        self._held[0] = (shot, stop, self._held[0][2])
        return True


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
