"""Under a real systemd the daemon is READY when it is warm, is brought back when it hangs, and is else left alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rtqec.telemetry import TelemetryBlock
from tests.systemd.conftest import ROOT, Unit, UnitMaker, configuration, units
from tests.systemd.private import PrivateSystemd

IMPATIENT = "[Service]\nWatchdogSec=1\n"
BACK_WITHIN_S = 5.0


def telemetry(unit: Unit, lane: int) -> TelemetryBlock:
    """The block of one lane."""
    return TelemetryBlock.attach(unit.systemd.path(unit.describe()["lanes"][lane]["telemetry"]))


def kill(unit: Unit, pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, by its number in there."""
    unit.systemd.call("kill", f"-{number.value}", str(pid))


@dataclass
class Pair:
    """A daemon with two lanes, which the tests that use it leave running.

    Attributes:
        unit: Its unit.
        state: What it said of itself when `systemctl start` came back.
        ready_ns: When each of its lanes was ready then.
    """

    unit: Unit
    state: str
    ready_ns: list[int]


@pytest.fixture(scope="module")
def pair(systemd: PrivateSystemd) -> Iterator[Pair]:
    """Started, once."""
    with units(systemd) as make:
        unit = make("pair", lanes=2, patches=2)
        unit.ctl("start")
        yield Pair(unit, unit.describe()["state"], [int(telemetry(unit, k).header["ready_ns"][0]) for k in range(2)])


@pytest.fixture(scope="module")
def single(systemd: PrivateSystemd) -> Iterator[Unit]:
    """A daemon with one lane, started once; the tests that use it leave it running."""
    with units(systemd) as make:
        unit = make("single")
        unit.ctl("start")
        yield unit


@pytest.fixture(scope="module")
def impatient(systemd: PrivateSystemd) -> Iterator[Unit]:
    """As `single`, under a watchdog that waits for a second only."""
    with units(systemd) as make:
        unit = make("impatient", drop_in=IMPATIENT)
        unit.ctl("start")
        yield unit


def test_ready_means_that_every_lane_is_warm(pair: Pair) -> None:
    """`systemctl start` returns when all lanes have said that their path runs, and not before."""
    active_us = int(pair.unit.show("ActiveEnterTimestampMonotonic"))
    assert pair.state == "ready"
    assert all(0 < ready_ns / 1000 <= active_us for ready_ns in pair.ready_ns)
    assert "2 lane(s)" in pair.unit.show("StatusText")


def test_an_idle_daemon_is_left_alone(impatient: Unit) -> None:
    """Without a single round, the daemon and its lanes outlive the watchdog's patience many times."""

    def look() -> tuple[str, str, object]:
        return impatient.show("MainPID"), impatient.show("NRestarts"), impatient.describe()["lanes"]

    def alive_us() -> int:
        return int(impatient.show("WatchdogTimestampMonotonic"))

    before, began_us = look(), alive_us()
    impatient.wait(lambda: alive_us() - began_us > 3_000_000, 10, "signs of life for 3 s")
    assert look() == before


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_a_controller_is_served_and_stop_drains(make_unit: UnitMaker, systemd: PrivateSystemd, kind: str) -> None:
    """In its sandbox the daemon answers every round of firmware-sim@; `systemctl stop` then ends it with status 0."""
    unit = make_unit(f"served-{kind}")
    if kind == "tcp":
        sides = [f"ipc:///run/rtqec/served-tcp/{side}.ipc" for side in ("rounds", "corrections")]
        text = configuration("served-tcp")
        for port, side in enumerate(sides, 5801):
            text = text.replace(side, f"tcp://127.0.0.1:{port}")
        unit.configure(text)
    unit.ctl("start")
    simulator = f"firmware-sim@{unit.name}.service"
    systemd.call("systemctl", "start", simulator)
    unit.wait(lambda: systemd.show(simulator, "ActiveState")["ActiveState"] != "active", 20, "the simulator ends")
    assert systemd.show(simulator, "Result")["Result"] == "success", systemd.journal(simulator)
    report = json.loads(systemd.path(f"/var/lib/rtqec/{unit.name}/firmware-sim.json").read_text())
    assert report["rounds_sent"] == report["rounds_answered"] == 50 * 13
    unit.ctl("stop")
    assert (unit.show("Result"), unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("success", "0", "0")
    assert "lane_stopped" in unit.journal()
    assert not systemd.path(f"/run/rtqec/{unit.name}").exists()


def test_a_wrong_configuration_ends_with_2_and_is_not_restarted(make_unit: UnitMaker) -> None:
    """The message is in the journal, and systemd does not try again what cannot work."""
    unit = make_unit("wrong")
    unit.configure(configuration("wrong").replace("buffer_rounds = 3", "buffer_rounds = 2"))
    assert unit.ctl("start", check=False) != 0
    assert (unit.show("ActiveState"), unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("failed", "2", "0")
    for words in ("[window] buffer_rounds", "is 2", "at least 3", "accept_short_buffer"):
        assert words in unit.journal()


def test_a_reload_changes_what_can_change(single: Unit) -> None:
    """`systemctl reload` takes over the log level, and refuses a new round period with the reason; nothing restarts."""
    unit = single
    before = unit.describe()["lanes"]
    text = configuration(unit.name, extra='\n[log]\nlevel = "debug"\n', period_us=200)
    unit.configure(text)
    unit.ctl("reload")
    unit.wait(lambda: "reload_refused" in unit.journal() and '"reloaded"' in unit.journal(), 10, "the reload")
    assert "feed.round_period_us" in unit.journal()
    assert "log.level" in unit.journal()
    assert unit.describe()["lanes"] == before


def test_a_hung_lane_is_back_while_the_other_goes_on(pair: Pair, systemd: PrivateSystemd) -> None:
    """A stopped lane is replaced within 5 s; the other one, fed all the time, answers every round untouched."""
    unit = pair.unit
    fed = configuration("feeder", patches=[1], place="-1", shots=200, period_us=1000)
    systemd.path("/etc/rtqec/feeder.toml").write_text(fed.replace("run/rtqec/feeder/", "run/rtqec/pair/"))
    before = unit.describe()["lanes"]
    cache = "NUMBA_CACHE_DIR=/var/cache/rtqec/numba"
    feeder = systemd.popen("env", cache, "/var/opt/rtqec/bin/firmware-sim", "run", "/etc/rtqec/feeder.toml")
    unit.wait(lambda: telemetry(unit, 1).totals()["rounds"] > 0, 30, "rounds on lane 1")
    kill(unit, before[0]["pid"], signal.SIGSTOP)

    def is_back() -> bool:
        lane = unit.describe()["lanes"][0]
        return bool(lane["state"] == "ready" and lane["pid"] != before[0]["pid"])

    unit.wait(is_back, BACK_WITHIN_S, "lane 0 is back")
    assert feeder.poll() is None, "the feeder ended before the lane was back: nothing was shown"
    said, _ = feeder.communicate(timeout=30)
    assert feeder.returncode == 0, said
    after = unit.describe()["lanes"]
    assert [lane["restarts"] for lane in after] == [1, 0]
    assert after[1]["pid"] == before[1]["pid"]
    assert unit.show("NRestarts") == "0"


def test_a_hung_supervisor_is_killed_and_started_anew(impatient: Unit, systemd: PrivateSystemd) -> None:
    """systemd's watchdog ends a stopped supervisor with all its lanes, and a new daemon takes their place."""
    unit = impatient
    main, lanes = int(unit.show("MainPID")), [lane["pid"] for lane in unit.describe()["lanes"]]
    kill(unit, main, signal.SIGSTOP)
    unit.wait(lambda: unit.show("NRestarts") == "1" and unit.show("ActiveState") == "active", 30, "a new daemon")
    assert int(unit.show("MainPID")) != main
    assert not any(systemd.path(f"/proc/{pid}").exists() for pid in (main, *lanes))
    # Python writes where a hung thread was, which is what somebody will ask.
    assert "Watchdog timeout" in unit.journal()
    assert "most recent call first" in unit.journal()


def test_strangers_see_nothing(single: Unit, systemd: PrivateSystemd) -> None:
    """Files and sockets are for the user and the group rtqec."""
    folder = systemd.path("/run/rtqec/single")
    assert {path.name: oct(path.stat().st_mode & 0o007) for path in [folder, *folder.iterdir()]} == {
        path.name: "0o0" for path in [folder, *folder.iterdir()]
    }
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert systemd.call(*nobody, "cat", "/run/rtqec/single/single.json", check=False).returncode != 0
    group = systemd.path("/etc/group").read_text().split("\nrtqec:x:")[1].split(":")[0]
    peer = ["setpriv", "--reuid=65534", f"--regid={group}", "--clear-groups"]
    assert systemd.call(*peer, "cat", "/run/rtqec/single/single.json").returncode == 0
    assert systemd.call(*peer, "test", "-w", "/run/rtqec/single/rounds.ipc").returncode == 0


@pytest.mark.parametrize("allowed", [False, True])
def test_real_time_is_a_drop_in(make_unit: UnitMaker, systemd: PrivateSystemd, allowed: bool) -> None:
    """What `[cores]` asks for is done with realtime.conf; without, the daemon says what was refused, and works."""
    core = min(os.sched_getaffinity(0))
    cores = f"lanes = [[{core}]]\nrealtime_priority = 10\nlock_memory = true\ncpu_dma_latency_us = 0\n"
    drop_in = (ROOT / "systemd/drop-ins/realtime.conf").read_text() if allowed else ""
    unit = make_unit(f"realtime-{allowed}".lower(), extra=f"\n[cores]\n{cores}", drop_in=drop_in)
    unit.ctl("start")
    said, wishes = unit.journal(), ("core", "realtime_priority", "memory_lock", "wake_latency")
    refused = {wish for wish in wishes if f"{wish}_refused" in said}
    # A container may forbid even systemd to raise a limit.
    granted = may_raise_limits(systemd)
    expected = {"realtime_priority"} if not (allowed and granted) else set()
    expected |= {"memory_lock"} if not granted else set()
    expected |= {"wake_latency"} if not allowed or not systemd.path("/dev/cpu_dma_latency").exists() else set()
    assert refused == expected
    tasks = systemd.path(f"/proc/{unit.describe()['lanes'][0]['pid']}/task").iterdir()
    priorities = {int((task / "stat").read_text().rpartition(")")[2].split()[37]) for task in tasks}
    assert (10 in priorities) == (allowed and granted)


def may_raise_limits(systemd: PrivateSystemd) -> bool:
    """Whether its process 1 has CAP_SYS_RESOURCE."""
    status = systemd.path("/proc/1/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 24 & 1)
