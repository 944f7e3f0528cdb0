"""The frames of a whole run beside the truth, PyMatching on whole shots, and what the plan's windows give."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.account import PatchAccount
from firmware_sim.sender import Sender
from firmware_sim.shots import Shots, words_from_bits
from rtqec.plan import Plan
from rtqec.reference import WholeShotMatcher
from rtqec.windowed import WindowedDecoder
from rtqec.wire import Rung


@dataclass(frozen=True)
class ShotComparison:
    """Own observables of all finished shots of all patches.

    Attributes:
        shots: Shots whose last correction came.
        logical_errors: Of them, frame differs from the truth; None where the truth is not known.
        logical_errors_whole_shot: The same for PyMatching on whole shots.
        disagreements: Frame differs from PyMatching on whole shots.
        worse, better: Of those, which of the two was right.
        marked_shots: Of all shots, those whose corrections say themselves that something was lost or guessed.
        logical_errors_marked, disagreements_marked: Of `logical_errors` and `disagreements`, those of marked shots.
        deviations: Shots that are not marked and whose frame is not what the plan's windows give; None where that was
            not looked at.
    """

    shots: int
    logical_errors: int | None
    logical_errors_whole_shot: int | None
    disagreements: int | None
    worse: int | None
    better: int | None
    marked_shots: int
    logical_errors_marked: int | None
    disagreements_marked: int | None
    deviations: int | None


def compare_shots(
    plans: list[Plan], sender: Sender, accounts: list[PatchAccount], whole_shots: bool, windows: bool
) -> ShotComparison:
    """Compare the frames of a run.

    Args:
        plans, sender, accounts: Of the run, after it; one plan and one account per patch.
        whole_shots: Whether to decode finite shots with PyMatching as a whole.
        windows: Whether to decode those that are not marked window by window.
    """
    compared = []
    for index, (plan, account) in enumerate(zip(plans, accounts, strict=True)):
        truth = _truth(sender, index)
        whole = _whole_shots(plan, sender.shots[index]) if whole_shots else None
        count = deviations(plan, sender.shots[index], account) if windows else None
        compared.append(_compare_patch(plan, account, truth, whole, count))
    return ShotComparison(*(_total(counts) for counts in zip(*map(astuple, compared), strict=True)))


def _compare_patch(
    plan: Plan, account: PatchAccount, truth: NDArray[np.uint64] | None, whole: NDArray[np.uint64] | None,
    deviating: int | None,
) -> ShotComparison:  # fmt: skip
    finished = account.finished
    marked = account.marked[finished]
    frames = account.frames[finished] & own_mask(plan)
    wrong = frames != truth[finished] if truth is not None else None
    differs = frames != whole[finished] if whole is not None else None
    whole_wrong = whole[finished] != truth[finished] if whole is not None and truth is not None else None
    worse = better = None
    if wrong is not None and whole_wrong is not None:
        worse, better = wrong & ~whole_wrong, whole_wrong & ~wrong
    return ShotComparison(
        shots=len(frames),
        logical_errors=_count(wrong),
        logical_errors_whole_shot=_count(whole_wrong),
        disagreements=_count(differs),
        worse=_count(worse),
        better=_count(better),
        marked_shots=int(marked.sum()),
        logical_errors_marked=_count(wrong[marked]) if wrong is not None else None,
        disagreements_marked=_count(differs[marked]) if differs is not None else None,
        deviations=deviating,
    )


def _count(which: NDArray[np.bool_] | None) -> int | None:
    return None if which is None else int(which.sum())


def _total(counts: tuple[int | None, ...]) -> Any:
    """Of all patches; None where one of them does not know."""
    return None if None in counts else sum(count for count in counts if count is not None)


def deviations(plan: Plan, shots: Shots | None, account: PatchAccount) -> int:
    """Finished shots that say nothing of a loss or a guess, and whose frame is not what the plan's windows give.

    Args:
        plan: Of the patch.
        shots: What was sent; of an endless shot nothing was kept, and nothing is compared.
        account: What came back. Left out are shots that were decoded otherwise: caught up, or on another rung.
    """
    own_rung = 1 << (Rung.CORRELATED_MATCH if plan.correlated else Rung.MATCH)
    clean = account.finished & ~account.marked & ~account.caught_up & (account.rungs_of_shot == own_rung)
    if shots is None or not clean.any():
        return 0
    num_detectors = plan.experiment.own_dem.num_detectors
    events_b8 = shots.detection_events_b8[clean]
    events = np.unpackbits(events_b8, axis=1, bitorder="little", count=num_detectors).astype(np.bool_)
    expected = words_from_bits(WindowedDecoder(plan)(plan.rounds.layers_b8(events)))
    return int((account.frames[clean] != expected).sum())


def own_mask(plan: Plan) -> np.uint64:
    """The observables of the experiment itself, in a frame."""
    return np.uint64((1 << plan.experiment.own_dem.num_observables) - 1)


def _truth(sender: Sender, index: int) -> NDArray[np.uint64] | None:
    shots = sender.shots[index]
    if shots is None:
        return np.array([sender.endless_observables(index)], np.uint64)
    return shots.observable_flips


def _whole_shots(plan: Plan, shots: Shots | None) -> NDArray[np.uint64] | None:
    if shots is None:
        return None
    return words_from_bits(WholeShotMatcher(plan.experiment.own_dem, plan.correlated)(shots.detection_events_b8))
