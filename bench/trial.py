"""One trial of a round rate over ZeroMQ, and the search that is made of them.

A trial sends for some seconds at some rate. It *holds* where every round was answered, in order and none by holding,
and the backlog did not grow. It is *void*, and made again, where the sender fell behind by more than 2 % of it: that
rate was not offered then. A rate that could not be offered in three trials counts as one that this machine does not
hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.daemon import Fed, Feeder
from bench.energy import Counters, EnergyMeter
from bench.search import Search
from firmware_sim.controller import Controller
from firmware_sim.report import problems_of
from rtqec.kernels.records import FeedCounter
from rtqec.units import US_PER_S

LATE_SHARE = 0.02
VOID_MAX = 3
_HOPELESS_SHARE = 0.2
"""A backlog of so much of a trial ends it: nothing comes back from that."""
_HOPELESS_WINDOWS = 10


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        rounds_per_s: Asked of each patch.
        held: Whether it held; None where it is void.
        why: In words.
        fed: What came of it, where it went on to its end.
        joules, gpu_joules: Of the whole machine meanwhile, where that can be read.
    """

    rounds_per_s: float
    held: bool | None
    why: str
    fed: Fed | None = None
    joules: float | None = None
    gpu_joules: float | None = None


class HopelessError(Exception):
    """The trial cannot hold any more."""


def judge_trial(report: dict[str, Any], seconds: float, window_rounds: int) -> tuple[bool | None, str]:
    """Whether a trial held; see the module.

    Args:
        report: As of `firmware-sim loop`.
        seconds: Of the trial.
        window_rounds: A backlog that grew by less than that in the trial's second half has not grown.
    """
    if report["sender_late_us_max"] > LATE_SHARE * seconds * US_PER_S:
        return None, f"the sender was up to {report['sender_late_us_max'] / 1000:.0f} ms late"
    problems = problems_of(report)
    if problems:
        return False, problems[0]
    if report["rounds_held"]:
        return False, f"{report['rounds_held']} rounds were answered by holding"
    backlog = report["backlog_rounds"]
    if backlog["slope_interval"] is None:
        return None, f"{backlog['samples']} samples do not show whether the backlog grew"
    grown = backlog["slope_per_s"] * seconds / 2
    if backlog["slope_interval"][0] > 0 and grown > window_rounds:
        return False, f"the backlog grew by {grown:.0f} rounds in the second half"
    return True, f"backlog {backlog['median_last_tenth']:.0f} rounds"


def find_limit(search: Search, attempt: Callable[[float], Trial]) -> tuple[list[Trial], int]:
    """Search until it is done.

    Args:
        search: Told what came of each trial.
        attempt: Makes one.

    Returns:
        Trials that count, and how many were void.
    """
    trials: list[Trial] = []
    void = 0
    while not search.done:
        for _ in range(VOID_MAX):
            trial = attempt(search.next_rate)
            if trial.held is not None:
                break
            void += 1
        if trial.held is None:
            trial = Trial(trial.rounds_per_s, False, f"could not be offered, {VOID_MAX} times: {trial.why}")
        search.tell(bool(trial.held))
        trials.append(trial)
    return trials, void


def make_trial(feeder: Feeder, rounds_per_s: float, seconds: float, counters: Counters) -> Trial:
    """Send for some seconds."""
    rounds = round(rounds_per_s * seconds)
    window_rounds = max(plan.window.rounds for plan in feeder.plans)
    hopeless = max(_HOPELESS_SHARE * rounds, _HOPELESS_WINDOWS * window_rounds)
    dropped = feeder.block.feed_counters[:, FeedCounter.RING_FULL]
    dropped_before = int(dropped.sum())

    def look(controller: Controller) -> None:
        sent = [controller.sender.rounds_sent_of(p) for p in range(len(feeder.plans))]
        backlog = max(a - b for a, b in zip(sent, controller.sink.covered.tolist(), strict=True))
        if int(dropped.sum()) > dropped_before:
            raise HopelessError("the ring was full")
        if backlog > hopeless and controller.sender.sending:
            raise HopelessError(f"the backlog was {backlog} rounds of {rounds}")

    pace = [f"pace.period_us={US_PER_S / rounds_per_s}", f"sink.settle_s={max(seconds / 2, 1.0)}"]
    try:
        with EnergyMeter(counters) as meter:
            fed = feeder.feed(*feeder.sending(rounds), *pace, look=look)
    except HopelessError as error:
        feeder.recover()
        return Trial(rounds_per_s, False, str(error))
    held, why = judge_trial(fed.report, seconds, window_rounds)
    if not held:
        feeder.recover()
    return Trial(rounds_per_s, held, why, fed, meter.cpu_joules, meter.gpu_joules)
