"""`rtqec status` says what an operator must know, on one screen, and is silent where all is well."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rtqec.errors import ExitCode
from rtqec.kernels.records import INGEST_BEAT, PATH_BEAT, FeedCounter, PathCounter
from rtqec.service.alarms import Alarm, find_alarms
from rtqec.service.figures import in_mib, in_percent, in_short, in_time, in_us
from rtqec.service.reader import ServiceReader
from rtqec.service.readings import Interval, ServiceReading, difference
from rtqec.service.status import print_status
from rtqec.wire import FrameStatus, Reason, Rung
from tests.fake_service import FakeService


def shown(service: FakeService, width: int = 80, height: int = 24, terminal: bool = True) -> tuple[str, int]:
    """What is printed, and the exit code."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=terminal, color_system=None)
    code = print_status(console, service.config, watch_s=0.0)
    return file.getvalue(), code


def as_json(service: FakeService) -> tuple[dict[str, Any], int]:
    file = io.StringIO()
    code = print_status(Console(file=file, width=40), service.config, json_output=True, watch_s=0.0)
    said: dict[str, Any] = json.loads(file.getvalue())
    return said, code


def two_readings(service: FakeService, *, beat: bool = True, **carried: Any) -> tuple[ServiceReading, Interval]:
    """A reading, and one 0.6 s later in which the patches have carried something."""
    reader = ServiceReader(service.config)
    before = reader.read()
    for shard, block in zip(service.shards, service.blocks, strict=True):
        if beat:
            block.control[[INGEST_BEAT, PATH_BEAT]] += 5
        for patch_id in shard if carried else []:
            service.carry(patch_id, **carried)
    now = reader.read()
    assert before is not None
    assert now is not None
    interval = difference(before, now)
    assert interval is not None
    return now, Interval(0.6, interval.lanes, interval.patches)


def alarms_of(service: FakeService, **options: Any) -> list[Alarm]:
    return find_alarms(*two_readings(service, **options))


def test_without_a_daemon_it_says_where_it_looked(tmp_path: Path) -> None:
    """No service file: exit 1, the path that is missing, and what to do."""
    service = FakeService(tmp_path)
    ServiceReader(service.config).path.unlink()
    text, code = shown(service)
    assert code == ExitCode.FAILED
    assert str(tmp_path / "rtqec.json") in text.replace("\n", "")
    assert "rtqec run CONFIG" in text
    assert as_json(service) == ({"running": False, "well": False}, ExitCode.FAILED)


def test_a_dead_daemon_is_told_from_one_that_ended(tmp_path: Path) -> None:
    """What a killed daemon left is called that; what one left that was stopped is called that; both exit 1."""
    service = FakeService(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    for state, words in (("ready", "died while it was ready"), ("stopped", "has ended")):
        service.write(state, pid=child.pid)
        text, code = shown(service)
        assert code == ExitCode.FAILED
        assert f"process {child.pid} {words}" in text
        assert "gone" in text


def test_a_healthy_daemon_is_ok_and_without_alarms(tmp_path: Path) -> None:
    """Ready, all lanes up, rounds flowing: exit 0, no alarm."""
    service = FakeService(tmp_path, [0, 2], [1])
    for patch_id in (0, 1, 2):
        service.carry(patch_id)
    text, code = shown(service, width=120)
    assert code == ExitCode.OK
    assert "no alarms" in text
    assert alarms_of(service, rounds=30) == []
    for words in ("lane0", "lane1", "match 100%", "clean", "15.0%", "ready"):
        assert words in text


def test_a_lane_that_is_down_is_an_alarm(tmp_path: Path) -> None:
    """One of two lanes restarting: exit 1, and the lane is named; the other one is not."""
    service = FakeService(tmp_path, [0], [1])
    service.lanes[1] |= {"state": "restarting", "pid": 0, "path_pid": 0, "restarts": 3}
    service.write()
    text, code = shown(service)
    assert code == ExitCode.FAILED
    assert "! lane1: is restarting" in text
    assert "lane1: since the start: brought back 3" in text
    assert "lane0:" not in text


@pytest.mark.parametrize(
    ("counter", "words"),
    [
        (PathCounter.CORRECTIONS_LATE, "late corrections"),
        (PathCounter.LOSSY, "lossy corrections"),
        (PathCounter.ROUNDS_HELD, "rounds held"),
        (PathCounter.CORRECTIONS_UNSENT, "corrections unsent"),
        (PathCounter.JOURNAL_DROPS, "corrections gone"),
        (PathCounter.UNEXPLAINED, "unexplained windows"),
        (FeedCounter.RING_FULL, "messages dropped (ring_full)"),
        (FeedCounter.BAD_CRC, "messages dropped (bad_crc)"),
        (FeedCounter.MESSAGES_MISSING, "messages missing"),
    ],
)
def test_what_should_be_zero_is_an_alarm_urgent_while_it_grows(
    tmp_path: Path, counter: FeedCounter | PathCounter, words: str
) -> None:
    """A counter of something bad is told with its number; it is urgent only if it grew between the readings."""
    service = FakeService(tmp_path)
    service.carry(0)
    block, row = service.place_of(0)
    array = block.feed_counters if isinstance(counter, FeedCounter) else block.path_counters
    array[row, counter] = 4
    (past,) = alarms_of(service, rounds=30)
    assert past.text == f"since the start: {words} 4"
    assert (past.urgent, past.where) == (False, "patch 0")
    reader = ServiceReader(service.config)
    before = reader.read()
    array[row, counter] += 2
    now = reader.read()
    assert before is not None
    assert now is not None
    grown = [alarm for alarm in find_alarms(now, difference(before, now)) if "just now" in alarm.text]
    assert [(alarm.urgent, f"{words}: 6 (2 just now), " in alarm.text) for alarm in grown] == [(True, True)]


def test_messages_of_no_patch_are_an_alarm_of_their_lane(tmp_path: Path) -> None:
    """Messages that name no patch are told with the lane that got them."""
    service = FakeService(tmp_path)
    service.carry(0)
    service.blocks[0].feed_counters[-1, FeedCounter.UNKNOWN_PATCH] = 2
    (alarm,) = alarms_of(service, rounds=30)
    assert (alarm.where, alarm.text) == ("lane0", "since the start: messages dropped (unknown_patch) 2")


def test_a_patch_that_falls_silent_is_an_alarm(tmp_path: Path) -> None:
    """Rounds that stopped some seconds ago are urgent; rounds that never came are only mentioned."""
    service = FakeService(tmp_path, [0, 1])
    service.carry(0, published_ns=time.monotonic_ns() - 5_000_000_000)
    alarms = alarms_of(service)
    assert [(alarm.urgent, alarm.where) for alarm in alarms] == [(True, "patch 0"), (False, "patch 1")]
    assert "silent for 5 s" in alarms[0].text
    assert "no round has come yet" in alarms[1].text


def test_threads_that_do_not_beat_are_an_alarm(tmp_path: Path) -> None:
    """A lane whose beats stand still between two readings is named with its silent threads; a shorter look proves
    nothing."""
    service = FakeService(tmp_path)
    service.carry(0)
    reading, interval = two_readings(service, beat=False)
    assert [alarm.text for alarm in find_alarms(reading, interval)] == ["ingest and path gave no sign of life"]
    assert find_alarms(reading, Interval(0.1, interval.lanes, interval.patches)) == []


def test_a_backlog_near_its_bound_is_an_alarm(tmp_path: Path) -> None:
    """Beyond half the bound the backlog is told, with the bound."""
    service = FakeService(tmp_path)
    block, row = service.place_of(0)
    service.carry(0)
    block.path_counters[row, PathCounter.BACKLOG] = 500
    assert alarms_of(service, rounds=30) == []
    block.path_counters[row, PathCounter.BACKLOG] = 501
    (alarm,) = alarms_of(service, rounds=30)
    assert alarm == Alarm(True, "patch 0", "501 rounds wait; beyond 1000 windows are held")


def test_a_tainted_frame_is_an_alarm(tmp_path: Path) -> None:
    """A frame that stands on a guess is told with the round since when, and shown in the table."""
    service = FakeService(tmp_path)
    service.carry(0)
    service.taint(0, since=42)
    text, _ = shown(service)
    assert "frame is tainted since round 42" in text
    assert "tainted" in text.split("held frame")[1].splitlines()[1]


def test_json_has_everything(tmp_path: Path) -> None:
    """The JSON has every counter, histogram percentiles, rungs by reason, fractions by detector, rates and alarms."""
    service = FakeService(tmp_path, [0], [1])
    service.carry(1, rounds=30_000, frame_status=int(FrameStatus.TAINTED), tainted_since=9)
    service.carry(1, rounds=30, rung=Rung.UNION_FIND, reason=Reason.DEADLINE)
    said, code = as_json(service)
    assert (code, said["running"], said["well"], said["state"]) == (ExitCode.OK, True, True, "ready")
    assert [lane["alive"] for lane in said["lanes"]] == [True, True]
    patch = said["patches"][1]
    total = patch["since_start"]
    assert (patch["id"], patch["lane"], patch["frame"], patch["steps"]) == (1, "lane1", "clean", patch["ladder"])
    assert total["corrections"] == {"match/configured": 10_000, "union_find/deadline": 10}
    assert total["counters"]["rounds"] == 30_030
    assert total["times_us"]["service"]["p99"] == pytest.approx(50, rel=1 / 64)
    assert total["detection_fractions"] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert patch["recent"]["rounds_per_s"] == 0
    assert {"rungs", "spans"}.isdisjoint(total)


@pytest.mark.parametrize("width", [80, 132])
def test_it_is_one_screen(tmp_path: Path, width: int) -> None:
    """However many patches and alarms, no more lines than the terminal has, and none longer; patches with alarms are
    among those shown."""
    service = FakeService(tmp_path, list(range(60)))
    for patch_id in range(60):
        service.carry(patch_id, rounds=30)
    for patch_id in range(50, 60):
        service.place_of(patch_id)[0].path_counters[patch_id, PathCounter.LOSSY] = 1
    text, _ = shown(service, width=width, height=30)
    lines = text.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= width
    assert "more; --json has them all" in text
    assert [line.split()[0] for line in lines if "15.0%" in line][:3] == ["50", "51", "52"]
    piped, _ = shown(service, width=width, terminal=False)
    assert sum("15.0%" in line for line in piped.splitlines()) == 60


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (in_short(0), "0"), (in_short(999), "999"), (in_short(1000), "1.00k"), (in_short(98_765.4), "98.8k"),
        (in_short(999_600), "1.00M"), (in_short(1.234e9), "1.23G"), (in_short(0.0), "0"), (in_short(7.25), "7.25"),
        (in_us(None), "-"), (in_us(9.996), "10.0us"), (in_us(12.345), "12.3us"), (in_us(999.7), "1.00ms"),
        (in_us(1_234_567), "1.23s"), (in_percent(None), "-"), (in_percent(1.0), "100%"), (in_percent(0.01234), "1.23%"),
        (in_time(12.9), "12 s"), (in_time(63), "1 min 3 s"), (in_time(7_300), "2 h 1 min"),
        (in_time(187_200), "2 d 4 h"),
        (in_mib(312 << 20), "312 MiB"), (in_mib(0), "-"),
    ],
)  # fmt: skip
def test_numbers_in_three_digits(number: str, text: str) -> None:
    """Rates, times and fractions have three digits and a unit, also where rounding carries into the next."""
    assert number == text
