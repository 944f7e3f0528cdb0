"""What a daemon is doing at one moment, as values (see `service.reader`), and what happened between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtqec.histogram import percentile
from rtqec.kernels.records import Span
from rtqec.units import NS_PER_S, us_from_ns
from rtqec.wire import Reason, Rung

DROP_CAUSES = (
    "bad_size", "bad_flags", "bad_plan_tag", "bad_width", "bad_round", "bad_crc", "late", "duplicate", "second_source",
    "ring_full", "drained",
)  # fmt: skip
"""Why a message of a patch was dropped: names of feed counters."""
NO_PATCH_CAUSES = ("bad_size", "bad_magic", "bad_version", "unknown_patch")
"""Why a message was dropped before it was known of which patch it is."""


@dataclass(frozen=True)
class Counts:
    """What was counted of a patch: since its lane's block was made, or between two readings.

    Attributes:
        by_name: Feed and path counters, by name in lower case.
        rungs: int64, shape (len(Rung), len(Reason)): corrections.
        spans: int64, shape (len(Span), NUM_BINS): histograms of times in ns.
        events: int64, shape (num_detectors,): how often each detector of a full layer fired in the sampled rounds.
        sampled_rounds: How many these are.
    """

    by_name: dict[str, int]
    rungs: NDArray[np.int64]
    spans: NDArray[np.int64]
    events: NDArray[np.int64]
    sampled_rounds: int

    def minus(self, before: Counts) -> Counts:
        """What was counted since; all of it, if the counters were begun anew in between."""
        if not self._goes_on_from(before):
            return self
        return Counts(
            {name: count - before.by_name[name] for name, count in self.by_name.items()},
            self.rungs - before.rungs,
            self.spans - before.spans,
            self.events - before.events,
            self.sampled_rounds - before.sampled_rounds,
        )

    def _goes_on_from(self, before: Counts) -> bool:
        if self.events.shape != before.events.shape or self.sampled_rounds < before.sampled_rounds:
            return False
        return all(count >= before.by_name[name] for name, count in self.by_name.items()) and bool(
            (self.spans >= before.spans).all() and (self.rungs >= before.rungs).all()
        )

    def percentile_us(self, span: Span, fraction: float) -> float | None:
        """None where there are too few corrections to tell."""
        found_ns = percentile(self.spans[span], fraction)
        return None if found_ns is None else us_from_ns(found_ns)

    @property
    def rung_shares(self) -> dict[Rung, float]:
        """The part of the corrections that each rung made, of those that made any."""
        total = int(self.rungs.sum())
        return {rung: int(self.rungs[rung].sum()) / total for rung in Rung if self.rungs[rung].any()}

    @property
    def detection_fractions(self) -> NDArray[np.float64] | None:
        """float64, shape (num_detectors,): how often each detector fired, per round; None without sampled rounds."""
        return self.events / self.sampled_rounds if self.sampled_rounds else None

    @property
    def detection_fraction(self) -> float | None:
        """The mean over all detectors."""
        fractions = self.detection_fractions
        return None if fractions is None or not len(fractions) else float(fractions.mean())


@dataclass(frozen=True)
class LastCorrection:
    """The newest correction of a patch. `tainted_since` is None where the frame is clean."""

    shot_id: int
    window_index: int
    first_round: int
    num_rounds: int
    rung: Rung
    reason: Reason
    tainted_since: int | None
    published_ns: int


@dataclass(frozen=True)
class PatchFacts:
    """What the service file says of a patch; see `lane.describe_patch`."""

    id: int
    lane: str
    plan_tag: str
    digest: str
    distance: int | None
    rounds: int | str
    num_observables: int
    commit_rounds: int
    buffer_rounds: int
    round_period_us: float
    ladder: list[str]
    num_detectors: int
    detectors: list[list[float]]


@dataclass(frozen=True)
class PatchReading:
    """One patch at one moment.

    Attributes:
        facts: What does not move.
        budget_us: Service time that a window may take, as it holds now.
        steps: The steps of the ladder that are allowed now.
        counts: Since the lane's block was made.
        backlog: Rounds that waited for an answer when the path looked last.
        backlog_max: The most that it saw.
        backlog_bound: Beyond so many windows are held.
        last: None before the first correction.
    """

    facts: PatchFacts
    budget_us: float
    steps: tuple[str, ...]
    counts: Counts
    backlog: int
    backlog_max: int
    backlog_bound: int
    last: LastCorrection | None


@dataclass(frozen=True)
class LaneReading:
    """One lane at one moment.

    Attributes:
        name, state, restarts, feed, publish: From the service file.
        pids: Of its processes: the one that receives; and the one that decodes, where it is another.
        alive: Whether they are all there.
        rss_bytes: Their resident memory; 0 where there is no process.
        beats: Signs of life of ingest and of the path, counted.
        dropped: Messages that were dropped before it was known of which patch they are, by cause.
        problem: Why its telemetry block, and with it its patches, cannot be read; else None.
    """

    name: str
    state: str
    pids: tuple[int, ...]
    restarts: int
    feed: str
    publish: str
    alive: bool
    rss_bytes: int
    beats: tuple[int, int]
    dropped: dict[str, int]
    problem: str | None


@dataclass(frozen=True)
class ServiceReading:
    """One daemon at one moment.

    Attributes:
        taken_ns: CLOCK_MONOTONIC.
        alive: Whether its process is there; without it the rest is what it left.
        rss_bytes: Resident memory of the supervisor.
        version, pid, started_ns, started_at, config, state: From the service file.
        patches: Of all lanes that can be read, in the order of the service file.
    """

    taken_ns: int
    alive: bool
    rss_bytes: int
    version: str
    pid: int
    started_ns: int
    started_at: str
    config: str
    state: str
    lanes: tuple[LaneReading, ...]
    patches: tuple[PatchReading, ...]


@dataclass(frozen=True)
class LaneChange:
    """What happened to a lane between two readings; see `LaneReading`."""

    restarts: int
    beats: tuple[int, int]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Interval:
    """What happened between two readings of one daemon, by lane name and by patch id."""

    seconds: float
    lanes: dict[str, LaneChange]
    patches: dict[int, Counts]

    def rate(self, patch_id: int, counter: str) -> float:
        """How often a second."""
        return self.patches[patch_id].by_name[counter] / self.seconds


def difference(before: ServiceReading, now: ServiceReading) -> Interval | None:
    """What happened in between; None where these are not two moments of one daemon."""
    seconds = (now.taken_ns - before.taken_ns) / NS_PER_S
    if (before.pid, before.started_ns) != (now.pid, now.started_ns) or seconds <= 0:
        return None
    known = {patch.facts.id: patch.counts for patch in before.patches}
    counts = {patch.facts.id: patch.counts for patch in now.patches}
    lanes = {lane.name: lane for lane in before.lanes if lane.problem is None}
    return Interval(
        seconds,
        {
            lane.name: _change_of(lanes[lane.name], lane)
            for lane in now.lanes
            if lane.name in lanes and lane.problem is None
        },
        {k: c.minus(known[k]) if k in known else c for k, c in counts.items()},
    )


def _change_of(before: LaneReading, now: LaneReading) -> LaneChange:
    ingest, path = now.beats[0] - before.beats[0], now.beats[1] - before.beats[1]
    dropped = {cause: count - before.dropped[cause] for cause, count in now.dropped.items()}
    return LaneChange(now.restarts - before.restarts, (ingest, path), dropped)
