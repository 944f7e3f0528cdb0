"""Prometheus finds every counter of the daemon once, with its own value; whoever floods the port disturbs nobody."""

from __future__ import annotations

import itertools
import math
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rtqec.errors import ConfigError
from rtqec.histogram import NUM_BINS, bin_edges
from rtqec.kernels.records import FeedCounter, PathCounter
from rtqec.service.metrics import BUCKET_EDGES_NS, make_registry, to_buckets
from rtqec.service.metrics_server import MetricsServer, serve_metrics
from rtqec.service.reader import ServiceReader
from rtqec.service.readings import DROP_CAUSES, NO_PATCH_CAUSES
from rtqec.wire import Reason, Rung
from tests.fake_service import FakeService

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
FEED_OF_LANE = {FeedCounter[cause.upper()] for cause in NO_PATCH_CAUSES}
FEED_OF_PATCH = {c for c in FeedCounter if c.name.lower() in DROP_CAUSES or c not in FEED_OF_LANE}


def samples_of(text: str) -> Samples:
    """Every sample by name and labels; none may occur twice."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    samples = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(samples) == len(found)
    return samples


def scrape(service: FakeService) -> Samples:
    return samples_of(generate_latest(make_registry(ServiceReader(service.config))).decode())


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MetricsServer]:
    service = FakeService(tmp_path)
    service.carry(0, rounds=30)
    server = serve_metrics("127.0.0.1:0", ServiceReader(service.config))
    yield server
    server.close()


def get(server: MetricsServer, path: str = "/metrics") -> str:
    host, port = server.address
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_every_counter_is_exported(tmp_path: Path) -> None:
    """Each feed, path and rung counter of a patch is the value of some sample of that patch, and of no other patch."""
    service = FakeService(tmp_path, [5, 6])
    block = service.blocks[0]
    expected = {}
    offset = 1_000
    for array, counters in ((block.feed_counters, sorted(FEED_OF_PATCH)), (block.path_counters, list(PathCounter))):
        offset += 1_000
        for row, counter in itertools.product((0, 1), counters):
            array[row, counter] = 1_000_000 * (row + 1) + offset + counter
            expected[counter, row] = float(array[row, counter])
    block.rung_counts[:] = 1 + np.arange(block.rung_counts.size).reshape(block.rung_counts.shape)
    samples = scrape(service)
    for (counter, row), count in expected.items():
        holders = [labels for (_, labels), found in samples.items() if found == count]
        assert len(holders) == 1, counter
        assert ("patch", str(block.patch_ids[row])) in holders[0]
    for rung in Rung:
        for reason in Reason:
            found = value(samples, "rtqec_corrections_total", patch="6", rung=rung.name.lower(),
                          reason=reason.name.lower())  # fmt: skip
            assert found == block.rung_counts[1, rung, reason]


def test_messages_of_no_patch_are_counted_by_lane(tmp_path: Path) -> None:
    """What was dropped before its patch was known is there, by lane and cause."""
    service = FakeService(tmp_path, [0], [1])
    service.blocks[1].feed_counters[-1, FeedCounter.UNKNOWN_PATCH] = 9
    samples = scrape(service)
    assert value(samples, "rtqec_lane_messages_dropped_total", lane="lane1", cause="unknown_patch") == 9
    assert value(samples, "rtqec_lane_messages_dropped_total", lane="lane0", cause="unknown_patch") == 0


def test_an_ordinary_correction_is_there_before_the_first(tmp_path: Path) -> None:
    """Series that will exist begin at 0, so that their first increase is seen as one."""
    samples = scrape(FakeService(tmp_path))
    assert value(samples, "rtqec_corrections_total", patch="0", rung="match", reason="configured") == 0
    assert value(samples, "rtqec_corrections_total", patch="0", rung="hold", reason="backlog") == 0


def test_no_counter_goes_down_when_a_lane_comes_back(tmp_path: Path) -> None:
    """While a lane dies and is restarted, every counter of it stays or grows, and its restarts are counted."""
    service = FakeService(tmp_path, [0], [1])
    service.carry(1)
    registry = make_registry(ServiceReader(service.config))

    def look() -> Samples:
        text = generate_latest(registry).decode()
        return {key: found for key, found in samples_of(text).items() if key[0].endswith(("_total", "_bucket", "_sum"))
                and not key[0].startswith("process_")}  # fmt: skip

    seen = [look()]
    for state, pid, restarts in (("restarting", 0, 0), ("ready", service.lanes[0]["pid"], 1)):
        service.lanes[1] |= {"state": state, "pid": pid, "path_pid": pid, "restarts": restarts}
        service.write()
        seen.append(look())
    service.carry(1)
    seen.append(look())
    for before, after in itertools.pairwise(seen):
        assert before.keys() == after.keys()
        assert all(after[key] >= count for key, count in before.items())
    assert value(seen[-1], "rtqec_lane_restarts_total", lane="lane1") == 1
    assert value(seen[-1], "rtqec_rounds_total", patch="1") == 600


def test_lanes_are_up_or_not(tmp_path: Path) -> None:
    """A lane is up while it is ready and its process is there; so is the daemon ready."""
    service = FakeService(tmp_path, [0], [1])
    service.lanes[1] |= {"state": "restarting", "pid": 0, "path_pid": 0}
    service.write()
    samples = scrape(service)
    assert [value(samples, "rtqec_lane_up", lane=lane) for lane in ("lane0", "lane1")] == [1, 0]
    assert value(samples, "rtqec_ready") == 1
    service.write("draining")
    assert value(scrape(service), "rtqec_ready") == 0


def test_a_tainted_frame_is_a_gauge(tmp_path: Path) -> None:
    """A frame that stands on a guess is 1, a clean one 0, also before the first correction."""
    service = FakeService(tmp_path, [0, 1])
    assert value(scrape(service), "rtqec_frame_tainted", patch="0") == 0
    service.taint(0, since=3)
    samples = scrape(service)
    assert [value(samples, "rtqec_frame_tainted", patch=patch) for patch in ("0", "1")] == [1, 0]


def test_the_detection_fraction_is_the_ratio_of_two_counters(tmp_path: Path) -> None:
    """Sampled events over sampled detectors are the mean of the detectors' fractions."""
    service = FakeService(tmp_path)
    service.carry(0)
    samples = scrape(service)
    events = value(samples, "rtqec_detection_events_sampled_total", patch="0")
    assert events / value(samples, "rtqec_detectors_sampled_total", patch="0") == pytest.approx(0.15)


def test_buckets_are_exact_at_their_bounds() -> None:
    """A bucket has every sample below its bound and no other, the last one all; the sum is within 1/128."""
    values_ns = np.random.default_rng(5).lognormal(10, 4, 20_000).astype(np.int64)
    places = np.searchsorted(bin_edges(), values_ns, side="right") - 1
    buckets, total_s = to_buckets(np.bincount(places, minlength=NUM_BINS))
    assert [float(bound) for bound, _ in buckets] == [edge_ns / 1e9 for edge_ns in BUCKET_EDGES_NS] + [math.inf]
    assert [count for _, count in buckets] == [(values_ns < edge).sum() for edge in BUCKET_EDGES_NS] + [20_000]
    assert total_s == pytest.approx(values_ns.sum() / 1e9, rel=1 / 128)


def test_no_daemon_has_no_metrics(tmp_path: Path) -> None:
    """Without a daemon there is nothing but the serving process's own metrics, and no failure."""
    service = FakeService(tmp_path)
    ServiceReader(service.config).path.unlink()
    assert all(name.startswith("process_") for name, _ in scrape(service))


def test_a_scrape_over_http(server: MetricsServer) -> None:
    """What HTTP carries can be parsed and is what the daemon has counted."""
    assert value(samples_of(get(server)), "rtqec_rounds_total", patch="0") == 30


def test_floods_do_not_keep_a_scrape_away(server: MetricsServer) -> None:
    """Connections beyond the bound are closed at once; when they have gone, a scrape is served."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(server.address)) for _ in range(32)]
        turned_away = 0
        for stranger in crowd[8:]:
            stranger.settimeout(10)
            try:
                turned_away += stranger.recv(1) == b""
            except ConnectionResetError:
                turned_away += 1
        assert turned_away == 24
    give_up = time.monotonic() + 10
    while True:
        try:
            assert "rtqec_build_info" in get(server)
            break
        except OSError:  # Its places are free when the threads have noticed that the crowd has gone.
            assert time.monotonic() < give_up


def test_garbage_is_answered_with_an_error(server: MetricsServer) -> None:
    """Bytes that are no HTTP get an error, and the next scrape is served."""
    with socket.create_connection(server.address) as stranger:
        stranger.sendall(b"\0\xff garbage\r\n\r\n")
        assert b"400" in stranger.recv(1 << 12)
    assert "rtqec_build_info" in get(server)


@pytest.mark.parametrize("endpoint", ["in use", "127.0.0.1:70000", "203.0.113.7:1", f"{64 * 'x'}:1"])
def test_an_endpoint_that_cannot_be_bound_is_refused(server: MetricsServer, tmp_path: Path, endpoint: str) -> None:
    """An address in use, of another machine, or none at all is refused with key, value, reason and remedy."""
    if endpoint == "in use":
        endpoint = f"127.0.0.1:{server.address[1]}"
    reader = ServiceReader(FakeService(tmp_path / "other").config)
    with pytest.raises(ConfigError, match=r"\[metrics\] endpoint is '.*', but it cannot be bound: \w") as refusal:
        serve_metrics(endpoint, reader)
    assert "127.0.0.1:9464" in str(refusal.value)


def test_a_closed_server_leaves_its_port(tmp_path: Path) -> None:
    """After close the port can be bound again at once."""
    service = FakeService(tmp_path)
    server = serve_metrics("127.0.0.1:0", ServiceReader(service.config))
    port = server.address[1]
    server.close()
    serve_metrics(f"127.0.0.1:{port}", ServiceReader(service.config)).close()
