"""Prometheus metrics of a running daemon: what its telemetry blocks say at the moment of the scrape.

They are served by a thread of the supervisor; lanes take no part. docs/metrics.md has the table of all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rtqec.cudaq.frames import Status
from rtqec.histogram import bin_edges
from rtqec.kernels.records import Span
from rtqec.service.reader import ServiceReader
from rtqec.service.readings import DROP_CAUSES, NO_PATCH_CAUSES, LaneReading, PatchReading, ServiceReading
from rtqec.telemetry import answered
from rtqec.units import NS_PER_S, US_PER_S
from rtqec.wire import Reason, Rung

BUCKET_EDGES_NS = [500 << k for k in range(22)]
"""0.5 us to 1.05 s by factors of two. Each is the edge of a bin, so that no sample is counted into the wrong bucket."""

_COUNTERS = (
    ("messages", "messages", "Rounds messages that name the patch, whatever became of them."),
    ("rounds", "rounds", "Rounds that were accepted."),
    ("shots", "shots", "Shots that have begun."),
    ("messages_reordered", "reordered", "Messages that came after a later one, and were placed in their turn."),
    ("messages_missing", "messages_missing", "Messages that never came: gaps in their numbers."),
    ("rounds_filled", "rounds_filled", "Lost rounds in whose place something was filled in."),
    ("jumps", "jumps", "Gaps that cannot be filled: the shot went on behind them with an open past."),
    ("windows", "windows", "Windows that were answered or amended."),
    ("batches", "batches", "Calls of the decoder; counted for the patch with the earliest deadline."),
    ("rounds_committed", "rounds_committed", "Rounds that corrections have answered."),
    ("corrections_sent", "corrections_sent", "Corrections that the transport took."),
    ("corrections_unsent", "corrections_unsent", "Corrections that the controller did not take."),
    ("journal_drops", "journal_drops", "Unsent corrections that the journal has lost, too."),
    ("corrections_late", "corrections_late", "Corrections that were handed over after their deadline."),
    ("corrections_lossy", "lossy", "Corrections that looked at rounds that never came."),
    ("corrections_degraded", "degraded", "Corrections with a guess in them."),
    ("windows_unexplained", "unexplained", "Windows whose events cannot be paired."),
    ("windows_stepped_down", "stepped_down", "Windows decoded below the first step of the ladder."),
    ("windows_mispredicted", "mispredicted", "Windows that were late although predicted to be on time."),
    ("windows_caught_up", "caught_up", "Windows that decided more rounds at once, as they had queued."),
    ("seam_detectors", "seam_detectors", "Detectors that committed errors flipped in later windows."),
    ("rounds_held", "rounds_held", "Rounds that were answered without having been decoded, although they had come."),
    ("rounds_predecoded", "rounds_predecoded", "Rounds that went through the network."),
    ("predecoder_events_found", "events_found", "Detection events in the rounds that went through the network."),
    ("predecoder_events_left", "events_left", "Of those rounds, what the network left to be matched."),
    ("predecodings_checked", "predecodings_checked", "Windows of which it was checked what the network did."),
    ("predecodings_wrong", "predecodings_wrong", "Of those, where that was wrong; the lane stops."),
    ("rounds_amended", "rounds_amended", "Held rounds that were decoded later."),
    ("rounds_given_up", "rounds_given_up", "Held rounds that never will be."),
    ("cudaq_sessions_failed", "sessions_failed", "How often a CUDA-Q decoder was given what cannot be decoded."),
    ("cudaq_answers_unsent", "answers_unsent", "Answers to CUDA-Q requests that the transport did not take."),
)
"""Counters of a patch: metric without prefix, its name in `Counts.by_name`, help."""

_SHOTS_DAMAGED = {"truncated": "shots_truncated", "headless": "shots_headless", "timed_out": "shots_timed_out"}
_BYPASSED = {cause: f"bypassed_{cause}" for cause in ("missing", "late", "failed", "nan")}
_ANSWERED = {status.name.lower(): answered(status) for status in Status}
_SOURCE_CHANGES = {"restart": "restarts", "resync": "resyncs"}

_SPANS = (
    (Span.REACTION, "reaction", "From when the last round that was needed was due to be sent to the hand-over."),
    (Span.SERVICE, "service", "From when that round was received to the hand-over; the deadline bounds it."),
    (Span.QUEUE, "queue", "From when it was received to the decision how to decode."),
    (Span.DECODE, "decode", "From that decision to the hand-over."),
    (Span.ENGINE, "engine", "The call of the network's engine, of windows that went through it."),
)
_LOWEST_NS = bin_edges()
_MIDDLE_NS = np.append(_LOWEST_NS[1:] + _LOWEST_NS[:-1] - 1, 2 * _LOWEST_NS[-1]) / 2
_BUCKET_STOPS = np.searchsorted(_LOWEST_NS, BUCKET_EDGES_NS)
assert (_LOWEST_NS[_BUCKET_STOPS] == BUCKET_EDGES_NS).all()


class ServiceCollector(Collector):
    """Turns readings into metrics.

    Args:
        reader: Of the deployment; used by nobody else.
    """

    def __init__(self, reader: ServiceReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing: registering shall not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of one moment; none where there is no daemon."""
        with self._lock:
            reading = self._reader.read()
        if reading is None:
            return
        yield from _service_metrics(reading)
        yield from _lane_metrics(reading.lanes)
        yield from _plan_metrics(reading.patches)
        yield from _counter_metrics(reading.patches)
        yield from _state_metrics(reading)
        yield from _time_metrics(reading.patches)


def make_registry(reader: ServiceReader) -> CollectorRegistry:
    """The metrics of a deployment, and those of the process that serves them."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(reader))
    ProcessCollector(registry=registry)
    return registry


def _service_metrics(reading: ServiceReading) -> Iterator[Metric]:
    build = GaugeMetricFamily("rtqec_build_info", "The version that runs; always 1.", labels=["version"])
    build.add_metric([reading.version], 1)
    yield build
    config = GaugeMetricFamily("rtqec_config_info", "The configuration that it was started with; always 1.",
                               labels=["config"])  # fmt: skip
    config.add_metric([reading.config], 1)
    yield config
    ready = reading.alive and reading.state == "ready"
    yield GaugeMetricFamily("rtqec_ready", "1 while the daemon is ready, 0 while it starts or drains.", int(ready))


def _lane_metrics(lanes: tuple[LaneReading, ...]) -> Iterator[Metric]:
    up = GaugeMetricFamily("rtqec_lane_up", "1 while the lane is ready and its process is there.", labels=["lane"])
    restarts = CounterMetricFamily("rtqec_lane_restarts", "How often the lane was brought back.", labels=["lane"])
    beats = CounterMetricFamily(
        "rtqec_lane_heartbeats", "Signs of life, at least ten a second, also when idle.", labels=["lane", "thread"]
    )
    memory = GaugeMetricFamily("rtqec_lane_resident_memory_bytes", "Resident memory of its processes.", labels=["lane"])
    dropped = CounterMetricFamily(
        "rtqec_lane_messages_dropped", "Messages of no known patch that were dropped, by cause.",
        labels=["lane", "cause"],
    )  # fmt: skip
    for lane in lanes:
        up.add_metric([lane.name], int(lane.alive and lane.state == "ready"))
        restarts.add_metric([lane.name], lane.restarts)
        for thread, count in zip(("ingest", "path"), lane.beats, strict=True):
            beats.add_metric([lane.name, thread], count)
        memory.add_metric([lane.name], lane.rss_bytes)
        for cause in NO_PATCH_CAUSES:
            dropped.add_metric([lane.name, cause], lane.dropped[cause])
    yield from (up, restarts, beats, memory, dropped)


def _plan_metrics(patches: tuple[PatchReading, ...]) -> Iterator[Metric]:
    names = ["patch", "lane", "plan_tag", "digest", "distance", "rounds", "commit_rounds", "buffer_rounds"]
    plan = GaugeMetricFamily("rtqec_plan_info", "The plan that the patch is decoded with; always 1.", labels=names)
    period = GaugeMetricFamily(
        "rtqec_round_period_seconds", "The time from round to round that was configured.", labels=["patch"]
    )
    budget = GaugeMetricFamily("rtqec_budget_seconds", "The service time that a window may take.", labels=["patch"])
    allowed = GaugeMetricFamily(
        "rtqec_ladder_step_allowed", "1 where the ladder may take the step.", labels=["patch", "step"]
    )
    for patch in patches:
        facts, label = patch.facts, str(patch.facts.id)
        plan.add_metric([label, *(str(getattr(facts, name)) for name in names[1:])], 1)
        period.add_metric([label], facts.round_period_us / US_PER_S)
        budget.add_metric([label], patch.budget_us / US_PER_S)
        for step in facts.ladder:
            allowed.add_metric([label, step], int(step in patch.steps))
    yield from (plan, period, budget, allowed)


def _counter_metrics(patches: tuple[PatchReading, ...]) -> Iterator[Metric]:
    for metric, name, text in _COUNTERS:
        counter = CounterMetricFamily(f"rtqec_{metric}", text, labels=["patch"])
        for patch in patches:
            counter.add_metric([str(patch.facts.id)], patch.counts.by_name[name])
        yield counter
    for metric, label, causes, text in (
        ("messages_dropped", "cause", {cause: cause for cause in DROP_CAUSES}, "Messages that were dropped, by cause."),
        ("shots_damaged", "cause", _SHOTS_DAMAGED, "Shots that began or ended badly, by cause."),
        ("windows_bypassed", "cause", _BYPASSED, "Windows that went on without the network, whose turn it was."),
        ("cudaq_answers", "status", _ANSWERED, "Answers to CUDA-Q requests that name the decoder, by status."),
        ("source_changes", "kind", _SOURCE_CHANGES, "How often the source came back, with a new epoch or without."),
    ):
        counter = CounterMetricFamily(f"rtqec_{metric}", text, labels=["patch", label])
        for patch in patches:
            for cause, name in causes.items():
                counter.add_metric([str(patch.facts.id), cause], patch.counts.by_name[name])
        yield counter
    corrections = CounterMetricFamily(
        "rtqec_corrections", "Corrections, by the way of decoding and why that one.", labels=["patch", "rung", "reason"]
    )
    for patch in patches:
        for rung, reason in _answers_of(patch):
            labels = [str(patch.facts.id), rung.name.lower(), reason.name.lower()]
            corrections.add_metric(labels, int(patch.counts.rungs[rung, reason]))
    yield corrections


def _answers_of(patch: PatchReading) -> list[tuple[Rung, Reason]]:
    """What occurred; and from the start what is ordinary, so that its first increase is seen."""
    occurred = {(Rung(int(rung)), Reason(int(reason))) for rung, reason in np.argwhere(patch.counts.rungs)}
    first = Rung[patch.facts.ladder[0].upper()]
    return sorted(occurred | {(first, Reason.CONFIGURED), (Rung.HOLD, Reason.BACKLOG)})


def _state_metrics(reading: ServiceReading) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(f"rtqec_{name}", text, labels=["patch"])
        for name, text in (
            ("backlog_rounds", "Rounds that waited for an answer when the path looked last."),
            ("backlog_rounds_max", "The most that it saw since the start."),
            ("backlog_bound_rounds", "Beyond so many windows are held."),
            ("frame_tainted", "1 while the frame stands on a guess."),
            ("last_correction_timestamp_seconds", "When the newest correction was made, as Unix time."),
        )
    }
    events = CounterMetricFamily(
        "rtqec_detection_events_sampled", "Detection events in the rounds that were sampled.", labels=["patch"]
    )
    detectors = CounterMetricFamily(
        "rtqec_detectors_sampled", "Detectors in these rounds. Their ratio is the detection fraction.", labels=["patch"]
    )
    now_s = time.time()
    for patch in reading.patches:
        label = [str(patch.facts.id)]
        families["backlog_rounds"].add_metric(label, patch.backlog)
        families["backlog_rounds_max"].add_metric(label, patch.backlog_max)
        families["backlog_bound_rounds"].add_metric(label, patch.backlog_bound)
        last = patch.last
        families["frame_tainted"].add_metric(label, int(last is not None and last.tainted_since is not None))
        if last is not None:
            age_s = (reading.taken_ns - last.published_ns) / NS_PER_S
            families["last_correction_timestamp_seconds"].add_metric(label, now_s - age_s)
        events.add_metric(label, int(patch.counts.events.sum()))
        detectors.add_metric(label, patch.counts.sampled_rounds * patch.facts.num_detectors)
    yield from families.values()
    yield from (events, detectors)


def _time_metrics(patches: tuple[PatchReading, ...]) -> Iterator[Metric]:
    for span, name, text in _SPANS:
        histogram = HistogramMetricFamily(f"rtqec_{name}_seconds", text, labels=["patch"])
        for patch in patches:
            buckets, total_s = to_buckets(patch.counts.spans[span])
            histogram.add_metric([str(patch.facts.id)], buckets, total_s)
        yield histogram


def to_buckets(counts: NDArray[np.int64]) -> tuple[list[tuple[str, float]], float]:
    """A log-linear histogram of ns as Prometheus wants it.

    Returns:
        Cumulative buckets by their upper bound in seconds, and the sum in seconds. The buckets are exact (but a sample
        of exactly a bound lies above it), the sum is that of the middles of the bins: within 1/128.
    """
    cumulative = np.append(0, np.cumsum(counts))
    bounds = [repr(edge_ns / NS_PER_S) for edge_ns in BUCKET_EDGES_NS]
    below = cumulative[_BUCKET_STOPS].tolist()
    buckets = [*zip(bounds, map(float, below), strict=True), ("+Inf", float(cumulative[-1]))]
    return buckets, float(counts @ _MIDDLE_NS) / NS_PER_S
