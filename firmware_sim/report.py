"""What a run says at its end, for machines; `summary` tells it to people."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.controller import Controller
from firmware_sim.deaths import Deaths, death_problems
from firmware_sim.expected import NAMES
from firmware_sim.faults import Faults
from rtqec.histogram import bin_edges, percentile
from rtqec.kernels.records import FeedCounter
from rtqec.telemetry import TelemetryBlock
from rtqec.units import us_from_ns

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_PACKAGES = ("rtqec", "stim", "pymatching", "numba", "numpy", "pyzmq")


@dataclass(frozen=True)
class DaemonCounts:
    """The daemon's counters at some time.

    Attributes:
        totals: All of them by name, summed over patches and lanes.
        feed: Those of ingest alone.
        patches_heard: Patches that have had a source.
    """

    totals: dict[str, int]
    feed: dict[str, int]
    patches_heard: int

    @classmethod
    def read(cls, *blocks: TelemetryBlock) -> DaemonCounts:
        """What they are now, summed over lanes."""
        heard = sum(int((block.feed_counters[:-1, FeedCounter.ROUNDS] > 0).sum()) for block in blocks)
        feed = {c.name.lower(): sum(int(block.feed_counters[:, c].sum()) for block in blocks) for c in FeedCounter}
        return cls(_summed([block.totals() for block in blocks]), feed, heard)

    def __sub__(self, earlier: DaemonCounts) -> DaemonCounts:
        """What one controller brought about. That it is another one than before is a restart of each patch."""
        feed = {name: count - earlier.feed[name] for name, count in self.feed.items()}
        feed["restarts"] -= earlier.patches_heard
        totals = {name: count - earlier.totals[name] for name, count in self.totals.items()}
        return DaemonCounts(totals, feed, self.patches_heard)


def machine() -> dict[str, Any]:
    """The machine on which a number was measured."""
    import os

    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def percentiles_us(counts: NDArray[np.int64], max_ns: int) -> dict[str, float | int | None]:
    """Percentiles of a histogram in ns, as microseconds; None where the samples do not carry one."""
    summary: dict[str, float | int | None] = {}
    for name, fraction in _PERCENTILES.items():
        value_ns = percentile(counts, fraction)
        summary[name] = None if value_ns is None else round(us_from_ns(value_ns), 2)
    return summary | {"max": round(us_from_ns(max_ns), 2), "count": int(counts.sum())}


def build_report(controller: Controller, counts: DaemonCounts | None, rss_mib: dict[str, float] | None,
                 command: str, deaths: Deaths | None = None) -> dict[str, Any]:  # fmt: skip
    """Everything that is known of a run.

    Args:
        controller: After its run.
        counts: What the daemon counted during the run, where its telemetry can be read.
        rss_mib: Its resident memory at 10 % and at the end, where known.
        command: How to repeat the run.
        deaths: Of a lane, where that was asked for.
    """
    sender, sink, config = controller.sender, controller.sink, controller.config
    comparison, backlog = controller.compare(), controller.backlog
    daemon = counts.totals if counts else None
    lost = sender.rounds_unsent + (daemon["rounds_filled"] if daemon else 0)
    expected = controller.expected_counts()
    seconds = controller.seconds
    return {
        "rounds_sent": sender.rounds_sent,
        "rounds_lost": lost,
        "rounds_unsent": sender.rounds_unsent,
        "messages_sent": sender.messages_sent,
        "corrections_expected": controller.expected,
        "corrections_received": sink.received,
        "corrections_out_of_order": sum(account.out_of_order for account in sink.accounts),
        "corrections_wrong_digest": sum(account.wrong_digest for account in sink.accounts),
        "corrections_wrong_frame": sum(account.wrong_frame for account in sink.accounts),
        "corrections_wrongly_clean": sum(account.wrongly_clean for account in sink.accounts),
        "corrections_unflagged": sum(account.unflagged for account in sink.accounts),
        "corrections_resent": sum(account.resent for account in sink.accounts),
        "corrections_tainted": sum(account.tainted for account in sink.accounts),
        "corrections_bad": sink.bad_messages,
        "corrections_stale": sum(account.stale for account in sink.accounts),
        "index_gaps": sum(account.index_gaps for account in sink.accounts),
        "bad_amendments": sum(account.bad_amendments for account in sink.accounts),
        "rounds_expected": _rounds_expected(controller, expected),
        "rounds_answered": sum(account.rounds_answered for account in sink.accounts),
        "rounds_held": sum(account.rounds_held for account in sink.accounts),
        "rounds_amended": sum(account.rounds_amended for account in sink.accounts),
        "faults": faults_section(sender.faults, expected, counts),
        "flags": _summed([account.flags for account in sink.accounts]),
        "rungs": _summed([account.rungs for account in sink.accounts]),
        "shots": comparison.shots,
        "shots_marked": sum(int(account.marked.sum()) for account in sink.accounts),
        "shots_leapt": sum(account.shots_leapt for account in sink.accounts),
        "logical_errors": comparison.logical_errors,
        "logical_errors_whole_shot": comparison.logical_errors_whole_shot,
        "disagreements": comparison.disagreements,
        "worse": comparison.worse,
        "better": comparison.better,
        "logical_errors_marked": comparison.logical_errors_marked,
        "disagreements_marked": comparison.disagreements_marked,
        "deviations": comparison.deviations,
        "lane_deaths": deaths.describe(controller.accounts, sender) if deaths else None,
        "unexplained": daemon["unexplained"] if daemon else None,
        "seconds": round(seconds, 3),
        "rate_rounds_per_s": round(sender.rounds_sent / seconds) if seconds > 0 else None,
        "period_us": config.period_us,
        "backlog_rounds": {
            "median_last_tenth": backlog.median_last_tenth,
            "slope_per_s": backlog.slope_per_s,
            "slope_interval": backlog.slope_interval,
            "max": backlog.max,
            "samples": backlog.samples,
        },
        "sender_late_us_max": round(us_from_ns(sender.late_ns_max), 2),
        "reaction_us": percentiles_us(sink.reaction_counts, sink.reaction_ns_max),
        "service_us": percentiles_us(sink.service_counts, sink.service_ns_max),
        "lateness_us": percentiles_us(
            np.sum([account.lateness_counts for account in sink.accounts], axis=0),
            max(account.lateness_ns_max for account in sink.accounts),
        ),
        "histograms": {
            "reaction_ns": _filled_bins(sink.reaction_counts),
            "service_ns": _filled_bins(sink.service_counts),
        },
        "rss_mib": rss_mib,
        "daemon": daemon,
        "plan_digest": [plan.digest for plan in controller.plans],
        "window": {"commit_rounds": config.window.commit_rounds, "buffer_rounds": config.window.buffer_rounds},
        "seed": config.source.seed,
        "command": command,
        "versions": {package: version(package) for package in _PACKAGES},
        "machine": machine(),
    }


def _rounds_expected(controller: Controller, expected: dict[str, int] | None) -> int:
    """Rounds that must have been answered: of a shot that a lane took with it nobody knows, but of no part of one."""
    if controller.lanes_may_die:
        rounds = controller.sender.shot_rounds.tolist()
        return sum(int(a.finished.sum()) * n for a, n in zip(controller.accounts, rounds, strict=True))
    return expected["rounds_answered"] if expected else controller.sender.rounds_sent


def faults_section(
    faults: Faults | None, expected: dict[str, int] | None, counts: DaemonCounts | None
) -> dict[str, Any] | None:
    """What was injected, what the daemon counted, and whether the two agree, count by count.

    Args:
        faults: After a run.
        expected: What the daemon must have counted; see `expected.expected_counts`.
        counts: What it counted, where that can be read.
    """
    if faults is None:
        return None
    agree = []
    if expected and counts:
        refused = sum(count for name, count in counts.feed.items() if name.startswith("bad_"))
        said = counts.feed | {"bad": refused + counts.feed["unknown_patch"]}
        agree = [(name, expected[name], said[name]) for name in NAMES]
        injected = faults.injected()
        if "corrupt" not in injected:
            wrong_plans = injected.get("wrong_plan", {"messages": 0})["messages"]
            agree.append(("bad_plan_tag", wrong_plans, counts.feed["bad_plan_tag"]))
    return {
        "injected": faults.injected(),
        "log_overflow": faults.fates_overflowed,
        "daemon": counts.feed if counts else None,
        "agree": [{"name": name, "injected": a, "daemon": b, "equal": a == b} for name, a, b in agree],
    }


def problems_of(report: dict[str, Any]) -> list[str]:
    """What a run shows that must not be, in words; empty for a clean run."""
    must_be_zero = (
        "corrections_out_of_order", "corrections_wrong_digest", "corrections_wrong_frame", "corrections_wrongly_clean",
        "corrections_unflagged", "corrections_bad", "index_gaps", "bad_amendments", "rounds_unsent", "deviations",
    )  # fmt: skip
    problems = [f"{key} is {report[key]}, must be 0" for key in must_be_zero if report.get(key)]
    if report["rounds_answered"] != report["rounds_expected"]:
        problems.append(f"rounds_answered is {report['rounds_answered']}, must be {report['rounds_expected']}")
    if report["faults"]:
        return problems + _disagreements(report["faults"])
    if report["unexplained"]:
        problems.append(f"unexplained is {report['unexplained']}, must be 0")
    if report.get("lane_deaths"):
        return problems + death_problems(report["lane_deaths"])
    if report["rounds_lost"]:
        problems.append(f"rounds_lost is {report['rounds_lost']}: the daemon or the transport did not keep up")
    return problems


def _disagreements(faults: dict[str, Any]) -> list[str]:
    """Where the daemon did not count what was injected."""
    if faults["log_overflow"]:
        return [f"{faults['log_overflow']} faults found the log full, so that counts cannot be compared"]
    return [
        f"{check['name']} is {check['daemon']}, but the faults that were injected make {check['injected']}"
        for check in faults["agree"]
        if not check["equal"]
    ]


def _filled_bins(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Lower edge and count of each bin that is not empty."""
    edges = bin_edges()
    filled = np.flatnonzero(counts)
    return list(zip(edges[filled].tolist(), counts[filled].tolist(), strict=True))


def _summed(rows: list[dict[str, int]]) -> dict[str, int]:
    return {key: sum(row[key] for row in rows) for key in rows[0]}
