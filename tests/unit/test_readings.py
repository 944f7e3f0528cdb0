"""What is read of a daemon is what its lanes wrote, and what happened between two readings is their difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rtqec.errors import FaultError
from rtqec.kernels.records import FeedCounter, PathCounter, Span
from rtqec.service import reader as reader_module
from rtqec.service.reader import ServiceReader, read_process, read_service
from rtqec.service.readings import ServiceReading, difference
from rtqec.wire import Reason, Rung
from tests.fake_service import LADDER, PLACES, FakeService

FAR = 1 << 40


def read(reader: ServiceReader) -> ServiceReading:
    reading = reader.read()
    assert reading is not None
    return reading


def test_no_daemon_is_no_reading(tmp_path: Path) -> None:
    """Without a service file there is nothing to read."""
    service = FakeService(tmp_path)
    ServiceReader(service.config).path.unlink()
    assert read_service(service.config) is None


def test_a_reading_has_what_the_lanes_wrote(tmp_path: Path) -> None:
    """Counters, rungs, times, events, backlog, budget and the newest correction of each patch are those of its row."""
    service = FakeService(tmp_path, [0, 7], [3])
    service.carry(7, rounds=30, took_us=50.0, rung=Rung.UNION_FIND, reason=Reason.DEADLINE, shot_id=4)
    block, row = service.place_of(7)
    block.path_counters[row, [PathCounter.BACKLOG, PathCounter.BACKLOG_MAX]] = 12, 34
    block.feed_counters[row, FeedCounter.BAD_CRC] = 5
    block.feed_counters[-1, FeedCounter.BAD_MAGIC] = 6
    reading = read(ServiceReader(service.config))
    assert [patch.facts.id for patch in reading.patches] == [0, 7, 3]
    assert reading.alive
    patch = reading.patches[1]
    assert (patch.facts.lane, patch.facts.ladder, patch.facts.detectors) == ("lane0", LADDER, PLACES)
    assert (patch.counts.by_name["rounds"], patch.counts.by_name["windows"], patch.counts.by_name["bad_crc"]) == (
        30, 10, 5,
    )  # fmt: skip
    assert (patch.backlog, patch.backlog_max, patch.backlog_bound, patch.budget_us) == (12, 34, 1000, 1000.0)
    assert patch.counts.rungs[Rung.UNION_FIND, Reason.DEADLINE] == patch.counts.rungs.sum() == 10
    assert patch.counts.percentile_us(Span.REACTION, 0.5) == pytest.approx(50, rel=1 / 64)
    assert patch.counts.detection_fractions == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert patch.counts.detection_fraction == pytest.approx(0.15)
    assert patch.last is not None
    assert (patch.last.shot_id, patch.last.window_index, patch.last.rung) == (4, 9, Rung.UNION_FIND)
    assert patch.last.tainted_since is None
    assert (reading.patches[0].last, reading.patches[2].counts.detection_fraction) == (None, None)
    assert [lane.dropped["bad_magic"] for lane in reading.lanes] == [6, 0]
    assert reading.lanes[0].rss_bytes > 0


def test_changes_by_control_are_seen(tmp_path: Path) -> None:
    """Budget and allowed steps are those that hold now, not those of the start; so is the frame's status."""
    service = FakeService(tmp_path)
    block, row = service.place_of(0)
    reader = ServiceReader(service.config)
    assert read(reader).patches[0].steps == tuple(LADDER)
    block.patches[row]["budget_ns"], block.patches[row]["steps_mask"] = 5_000, 0b101
    service.taint(0, since=42)
    patch = read(reader).patches[0]
    assert (patch.budget_us, patch.steps) == (5.0, ("match", "union_find"))
    assert patch.last is not None
    assert patch.last.tainted_since == 42


def test_a_difference_is_what_happened_in_between(tmp_path: Path) -> None:
    """Every count of an interval is the later one less the earlier one, of each patch and lane."""
    service = FakeService(tmp_path, [0, 1])
    service.carry(0, rounds=3000, took_us=9000.0)
    reader = ServiceReader(service.config)
    before = read(reader)
    service.carry(0, rounds=6000, took_us=20.0, rung=Rung.HOLD, reason=Reason.BACKLOG)
    interval = difference(before, read(reader))
    assert interval is not None
    recent = interval.patches[0]
    assert interval.rate(0, "rounds") == pytest.approx(6000 / interval.seconds)
    assert recent.rung_shares == {Rung.HOLD: 1.0}
    assert recent.percentile_us(Span.SERVICE, 0.99) == pytest.approx(20, rel=1 / 64)
    assert (recent.sampled_rounds, recent.detection_fraction) == (6000, pytest.approx(0.15))
    assert interval.lanes["lane0"].beats == (1, 1)
    assert (interval.patches[1].by_name["rounds"], interval.patches[1].percentile_us(Span.SERVICE, 0.5)) == (0, None)


def test_few_samples_carry_no_tail(tmp_path: Path) -> None:
    """A percentile with fewer than ten samples above it is not told."""
    service = FakeService(tmp_path)
    service.carry(0, rounds=300)
    counts = read(ServiceReader(service.config)).patches[0].counts
    assert counts.percentile_us(Span.DECODE, 0.5) is not None
    assert counts.percentile_us(Span.DECODE, 0.99) is None


def test_counters_that_begin_anew_do_not_make_a_negative_interval(tmp_path: Path) -> None:
    """Where a block was made anew in between, it is attached anew, and all that it has is what happened."""
    service = FakeService(tmp_path)
    service.carry(0, rounds=600)
    reader = ServiceReader(service.config)
    before = read(reader)
    service.blocks = [service.make_block(0)]
    service.carry(0, rounds=30)
    interval = difference(before, read(reader))
    assert interval is not None
    assert interval.patches[0].by_name["rounds"] == 30
    assert interval.patches[0].rungs.sum() == 10


def test_another_daemon_is_no_later_moment(tmp_path: Path) -> None:
    """Readings of two daemons have no difference."""
    service = FakeService(tmp_path)
    reader = ServiceReader(service.config)
    before = read(reader)
    service.write(started_ns=time.monotonic_ns())
    assert difference(before, read(reader)) is None


@pytest.mark.parametrize("case", ["no process", "a zombie", "a younger process", "before a reboot"])
def test_what_a_dead_daemon_left_is_told_as_such(tmp_path: Path, case: str) -> None:
    """A file whose process is gone, or whose number now belongs to another process, is no running daemon."""
    service = FakeService(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        older_ns = {"a younger process": -(10**12), "before a reboot": FAR}.get(case, 0)
        service.write(pid=child.pid, started_ns=time.monotonic_ns() + older_ns)
        if case == "no process":
            child.communicate()
        if case == "a zombie":
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        reading = read(ServiceReader(service.config))
        child.kill()
    assert not reading.alive
    assert [lane.alive for lane in reading.lanes] == [False]


def test_a_lane_without_a_process_is_not_alive(tmp_path: Path) -> None:
    """A lane that died is seen, while the others and the daemon are alive; its counters are still read."""
    service = FakeService(tmp_path, [0], [1])
    service.carry(1, rounds=30)
    service.lanes[1] |= {"state": "restarting", "pid": 0, "path_pid": 0}
    service.write()
    reading = read(ServiceReader(service.config))
    assert [(lane.alive, lane.rss_bytes > 0) for lane in reading.lanes] == [(True, True), (False, False)]
    assert reading.patches[1].counts.by_name["rounds"] == 30


def test_a_lane_that_decodes_in_another_process_needs_both(tmp_path: Path) -> None:
    """After a swap a lane is two processes: it is alive while both are, and holds the memory of both."""
    service = FakeService(tmp_path)
    own = read_process(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        service.lanes[0]["path_pid"] = child.pid
        service.write()
        lane = read(ServiceReader(service.config)).lanes[0]
        child.communicate(b"\n")
    gone = read(ServiceReader(service.config)).lanes[0]
    assert (lane.alive, gone.alive, lane.pids) == (True, False, (os.getpid(), child.pid))
    assert own is not None
    assert lane.rss_bytes > 0.9 * own.rss_bytes


def test_a_lane_that_has_no_block_yet_is_told(tmp_path: Path) -> None:
    """While a lane starts, its patches are left out, and the lane says why; others are read."""
    service = FakeService(tmp_path, [0], [1])
    Path(service.lanes[0]["telemetry"]).unlink()
    Path(service.lanes[1]["telemetry"]).write_bytes(b"no block")
    service.write("starting")
    reading = read(ServiceReader(service.config))
    assert reading.patches == ()
    problems = [lane.problem or "" for lane in reading.lanes]
    assert "No such file" in problems[0]
    assert "not the telemetry block" in problems[1]


def test_a_daemon_that_starts_has_no_patches_yet(tmp_path: Path) -> None:
    """The file of a daemon whose lanes are not warm lists no patches; that is a reading like any other."""
    service = FakeService(tmp_path)
    service.patches = []
    service.write("starting")
    reading = read(ServiceReader(service.config))
    assert (reading.state, reading.patches) == ("starting", ())


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1}', "{"])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    """A service file of another version, or none at all, is refused by its path, with what to do."""
    service = FakeService(tmp_path)
    reader = ServiceReader(service.config)
    reader.path.write_text(text)
    with pytest.raises(FaultError, match=r"rtqec\.json is not the service file .* rtqec that runs the daemon"):
        reader.read()


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """What the permissions keep from the reader is told, with what to do."""
    service = FakeService(tmp_path)
    reader = ServiceReader(service.config)
    reader.path.unlink()
    reader.path.mkdir()
    with pytest.raises(FaultError, match=r"cannot be read: .* join that group"):
        reader.read()


def test_blocks_stay_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading again maps and parses nothing again, unless a file was replaced."""
    service = FakeService(tmp_path, [0], [1])
    attached, parsed = [], []
    attach, load = reader_module.TelemetryBlock.attach, json.load
    monkeypatch.setattr(reader_module.TelemetryBlock, "attach", lambda path: attached.append(path) or attach(path))
    monkeypatch.setattr(reader_module.json, "load", lambda file: parsed.append(1) or load(file))
    reader = ServiceReader(service.config)
    for _ in range(3):
        reader.read()
    assert (len(attached), len(parsed)) == (2, 1)
    service.blocks[1] = service.make_block(1)
    service.write()
    read(reader)
    assert (len(attached), len(parsed)) == (3, 2)


def test_reading_writes_nothing(tmp_path: Path) -> None:
    """A block is the same after a reading as before."""
    service = FakeService(tmp_path)
    service.carry(0)
    path = Path(service.lanes[0]["telemetry"])
    before = path.read_bytes()
    read(ServiceReader(service.config))
    assert path.read_bytes() == before


def test_looking_is_quick_to_start() -> None:
    """Looking at a daemon loads no compiler, no decoder, no circuit library, no sockets and no terminal library."""
    code = "import sys, rtqec.service.status; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"numba", "pymatching", "scipy", "stim", "textual", "zmq"}.isdisjoint(found.stdout.split())


def test_the_newest_correction_is_the_last_one_written(tmp_path: Path) -> None:
    """However often the journal has gone round, the last correction is the one with the highest number."""
    service = FakeService(tmp_path)
    block, row = service.place_of(0)
    for _ in range(5 * block.journal.shape[1] + 3):
        service.publish(block, row, Rung.MATCH, Reason.CONFIGURED, {})
    last = read(ServiceReader(service.config)).patches[0].last
    assert last is not None
    assert last.window_index == int(block.written[row]) - 1
    assert np.diff([last.published_ns, time.monotonic_ns()])[0] < 10**10
