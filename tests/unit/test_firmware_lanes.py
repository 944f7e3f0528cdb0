"""The simulated controller and the lanes of a daemon: which carries what, how they are reached, and how they die."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth
from numpy.typing import NDArray

from firmware_sim import journal
from firmware_sim.account import PatchAccount
from firmware_sim.connection import client_keys, connect
from firmware_sim.deaths import DeathPlan, Deaths, Signal, check_plan, death_problems
from firmware_sim.lanes import lane_process, lanes_of
from firmware_sim.report import DaemonCounts
from firmware_sim.sender import Sender
from rtqec.config import Config
from rtqec.curve import ClientKeys, KeyPair, secure_server
from rtqec.errors import ConfigError, FaultError, NoPeerError
from rtqec.kernels.records import FeedCounter
from rtqec.plan import Plan
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import CORRECTION, ROUNDS_HEADER, CorrectionFlag, Reason, Rung
from tests.harness import make_config


def deployment(folder: Path, *homes: int | None, count: int = 2, **overrides: Any) -> Config:
    """One patch per home, ids 0, 10, 20 and so on."""
    patches = [{"id": 10 * k} | ({"lane": home} if home is not None else {}) for k, home in enumerate(homes)]
    return make_config(
        patch=patches, lane__count=count, service__runtime_dir=str(folder),
        feed__endpoint=f"ipc://{folder}/{{lane}}.rounds", publish__endpoint=f"ipc://{folder}/{{lane}}.corrections",
        **overrides,
    )  # fmt: skip


def carried(config: Config) -> list[tuple[str, str, list[int]]]:
    """Name, last part of the feed endpoint, and patch ids of each lane."""
    return [
        (lane.lane_name, lane.feed.endpoint.split("/")[-1], [p.id for p in lane.patch]) for lane in lanes_of(config)
    ]


def write_service(folder: Path, homes: dict[int, str], **changes: Any) -> None:
    """What a daemon that runs says of itself, as far as the simulator reads it."""
    lanes = [{"name": "lane0", "pid": 71, "state": "ready"}, {"name": "lane1", "pid": 72, "state": "restarting"}]
    patches = [{"id": patch_id, "lane": lane} for patch_id, lane in homes.items()]
    described = {"format": 1, "pid": os.getpid(), "state": "ready", "lanes": lanes, "patches": patches} | changes
    (folder / "rtqec.json").write_text(json.dumps(described))


def test_a_configuration_says_which_lane_carries_a_patch(tmp_path: Path) -> None:
    """One lane carries all; several carry what `[[patch]] lane` says; a lane without patches is not there."""
    write_service(tmp_path, {0: "lane1", 10: "lane1", 20: "lane1"})
    assert carried(deployment(tmp_path, None, None, count=1)) == [("lane0", "0.rounds", [0, 10])]
    assert carried(deployment(tmp_path, 1, 0, 1)) == [("lane0", "0.rounds", [10]), ("lane1", "1.rounds", [0, 20])]
    assert carried(deployment(tmp_path, 1, 1)) == [("lane1", "1.rounds", [0, 10])]


def test_a_running_daemon_says_which_lane_carries_a_patch(tmp_path: Path) -> None:
    """What the configuration leaves open is read from the service file, of a daemon that runs."""
    config = deployment(tmp_path, None, 0, None)
    write_service(tmp_path, {0: "lane1", 10: "lane0", 20: "lane0"})
    assert carried(config) == [("lane0", "0.rounds", [10, 20]), ("lane1", "1.rounds", [0])]
    assert (lane_process(config, "lane0"), lane_process(config, "lane1")) == (71, 0)


@pytest.mark.parametrize("known", ["no file", "a daemon that has gone", "other patches", "lanes that are not there"])
def test_a_lane_that_nobody_knows_is_asked_for(tmp_path: Path, known: str) -> None:
    """Without a daemon that says it the patch is named, and what to set."""
    config = deployment(tmp_path, 0, None)
    if known == "a daemon that has gone":
        write_service(tmp_path, {0: "lane0", 10: "lane1"}, pid=2**22 + 1)
    elif known == "other patches":
        write_service(tmp_path, {0: "lane0", 11: "lane1"})
    elif known == "lanes that are not there":
        write_service(tmp_path, {0: "lane0", 10: "lane7"})
    with pytest.raises(ConfigError) as refused:
        lanes_of(config)
    for word in ("[[patch]] id = 10 lane", "count is 2", str(tmp_path / "rtqec.json"), "Set [[patch]] lane"):
        assert word in str(refused.value)
    assert lane_process(config, "lane0") == (71 if known in ("other patches", "lanes that are not there") else 0)


def test_a_daemon_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    """A service file of another format is refused with both numbers."""
    write_service(tmp_path, {0: "lane0", 10: "lane1"}, format=2)
    with pytest.raises(FaultError, match="has format 2, this version reads 1"):
        lanes_of(deployment(tmp_path, None, None))


class Wire:
    """A ZeroMQ context, and every socket that was opened in it."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._sockets: list[zmq.Socket[bytes]] = []

    def bound(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        """A lane's end."""
        socket = self.keep(self.context.socket(kind))
        socket.bind(endpoint)
        return socket

    def keep(self, socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        """Close it at the end."""
        self._sockets.append(socket)
        return socket

    def connect(self, kind: int, endpoints: list[str], keys: ClientKeys | None = None, patience_s: float = 20.0) -> Any:
        """The simulator's end."""
        config = make_config(sink__connect_timeout_s=patience_s)
        return self.keep(connect(self.context, kind, "[feed] endpoint", endpoints, config, keys))

    def close(self) -> None:
        """Close everything."""
        for socket in self._sockets:
            socket.close(linger=0)
        self.context.term()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Closed at the end of the test."""
    wire = Wire()
    yield wire
    wire.close()


REORDER = [{"kind": "reorder", "probability": 0.3, "distance": 2}]


@pytest.mark.parametrize("faults", [[], REORDER], ids=["plain", "reorder"])
def test_each_patch_is_sent_to_its_own_lane(
    wire: Wire, plan_d3: Plan, tmp_path: Path, faults: list[dict[str, Any]]
) -> None:
    """One sender serves several sockets: each gets every message of its patches, and none of the others'."""
    config = make_config(patch=[{"id": 3}, {"id": 5}, {"id": 8}], source__shots=4, pace__period_us=1.0, fault=faults)
    sender = Sender(config, [plan_d3] * 3)
    lanes = [wire.bound(zmq.PULL, f"ipc://{tmp_path}/{name}") for name in "ab"]
    a, b = (wire.connect(zmq.PUSH, [f"ipc://{tmp_path}/{name}"]) for name in "ab")
    sender.start([a, b, a], time.monotonic_ns())
    rounds = 4 * int(sender.shot_rounds[0])
    for lane, patch_ids in zip(lanes, ([3, 8], [5]), strict=True):
        messages = [lane.recv() for _ in range(rounds * len(patch_ids))]
        headers = np.concatenate([np.frombuffer(m[: ROUNDS_HEADER.itemsize], ROUNDS_HEADER) for m in messages])
        assert sorted(set(headers["patch_id"].tolist())) == patch_ids
        for patch_id in patch_ids:
            assert sorted(headers["sequence"][headers["patch_id"] == patch_id].tolist()) == list(range(rounds))
    sender.stop()
    assert not any(lane.poll(0) for lane in lanes)


def test_one_socket_receives_from_every_lane(wire: Wire, tmp_path: Path) -> None:
    """A PULL socket that is connected to two lanes is let in by both, and hears both."""
    endpoints = [f"ipc://{tmp_path}/{k}" for k in range(2)]
    lanes = [wire.bound(zmq.PUSH, endpoint) for endpoint in endpoints]
    sink = wire.connect(zmq.PULL, endpoints)
    for lane, word in zip(lanes, (b"one", b"two"), strict=True):
        lane.send(word)
    assert sorted(sink.recv() for _ in range(2)) == [b"one", b"two"]


def test_a_lane_that_does_not_answer_is_named(wire: Wire, tmp_path: Path) -> None:
    """The endpoint at which nobody listens stands in the message, and not those that answered."""
    here, nobody = f"ipc://{tmp_path}/here", f"ipc://{tmp_path}/nobody"
    wire.bound(zmq.PULL, here)
    with pytest.raises(NoPeerError) as refused:
        wire.connect(zmq.PUSH, [here, nobody], patience_s=0.2)
    assert f"[feed] endpoint is {nobody!r}" in str(refused.value)
    assert here not in str(refused.value)


def test_keys_are_shown_on_tcp(wire: Wire) -> None:
    """A socket that asks for keys lets in who shows one and knows the server's; without, nobody answers."""
    server, own = KeyPair(*zmq.curve_keypair()), KeyPair(*zmq.curve_keypair())
    socket = wire.keep(wire.context.socket(zmq.PULL))
    secure_server(socket, "tcp://", server)
    socket.bind("tcp://127.0.0.1:*")
    endpoints = [socket.getsockopt_string(zmq.LAST_ENDPOINT)]
    for keys in (None, ClientKeys(own, own.public)):
        with pytest.raises(NoPeerError, match="asks for another key"):
            wire.connect(zmq.PUSH, endpoints, keys, patience_s=0.3)
    wire.connect(zmq.PUSH, endpoints, ClientKeys(own, server.public)).send(b"round")
    assert socket.recv() == b"round"


def with_keys(folder: Path, **files: str) -> Config:
    """A configuration in a folder, with `[source] key_file` and `server_key_file`."""
    return make_config(source=dict(files), folder=str(folder))


def test_keys_are_read_from_their_files(tmp_path: Path) -> None:
    """The own secret key and the daemon's public one, relative to the configuration; both or neither."""
    for name in ("controller", "server"):
        zmq.auth.create_certificates(tmp_path, name)
    (tmp_path / "controller.key_secret").chmod(0o600)
    assert client_keys(with_keys(tmp_path)) is None
    keys = client_keys(with_keys(tmp_path, key_file="controller.key_secret", server_key_file="server.key"))
    assert keys is not None
    assert (keys.own.public, keys.own.secret) == zmq.auth.load_certificate(tmp_path / "controller.key_secret")
    assert keys.server_public == zmq.auth.load_certificate(tmp_path / "server.key")[0]
    for given, lacking in (("key_file", "server_key_file"), ("server_key_file", "key_file")):
        with pytest.raises(ConfigError, match=rf"\[source\] {lacking} is not set"):
            client_keys(with_keys(tmp_path, **{given: "controller.key_secret"}))


def blocks_of(folder: Path, *patch_ids: list[int], journal_corrections: int = 16) -> list[TelemetryBlock]:
    """One telemetry block per lane."""
    return [TelemetryBlock.create(folder / f"{k}", ids, journal_corrections) for k, ids in enumerate(patch_ids)]


def publish(block: TelemetryBlock, row: int, count: int, published_ns: int = 0, **fields: int) -> NDArray[Any]:
    """Let a lane make corrections: into its journal."""
    made = np.zeros(count, CORRECTION)
    made["patch_id"], made["published_ns"] = block.patch_ids[row], published_ns
    made["window_index"] = block.written[row] + np.arange(count)
    for name, value in fields.items():
        made[name] = value
    block.journal[row, made["window_index"].astype(np.int64) % block.journal.shape[1]] = made
    block.written[row] += count
    return made


def test_journals_are_found_by_patch(tmp_path: Path) -> None:
    """A correction is looked up in the block of the lane that carries its patch; what was overwritten is not there."""
    blocks = blocks_of(tmp_path, [3, 5], [8])
    first, other = publish(blocks[0], 1, 4), publish(blocks[1], 0, 20)
    look_up = journal.journal_of_blocks(blocks)
    assert np.array_equal(look_up(5, 1, 3), first[1:3])
    assert np.array_equal(look_up(8, 0, 1 << 62), other[5:])
    assert len(look_up(3, 0, 10)) == 0


def test_a_journal_is_asked_over_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections are asked for piece by piece, until all have come; what is refused is as if it were not there."""
    kept = np.zeros(10, CORRECTION)
    kept["window_index"] = np.arange(10)
    asked: list[dict[str, Any]] = []
    own = ClientKeys(KeyPair(*zmq.curve_keypair()), zmq.curve_keypair()[0])

    def answer(_config: Config, request: dict[str, Any], keys: ClientKeys | None) -> dict[str, Any]:
        assert keys is own
        asked.append(request)
        if request["verb"] == "hello":
            return {"ok": True}
        if request["patch"] == 4:
            return {"ok": False, "error": "no"}
        if request["patch"] == 6:
            raise NoPeerError("nobody answers")
        found = kept[request["first"] : min(request["stop"], request["first"] + 3)]
        return {"ok": True, "corrections": [one.tobytes() for one in found]}

    monkeypatch.setattr(journal, "ask", answer)
    look_up = journal.journal_over_control(make_config(), own)
    assert asked == [{"verb": "hello"}]
    assert np.array_equal(look_up(0, 2, 9), kept[2:9])
    assert np.array_equal(look_up(0, 7, 1 << 62), kept[7:])
    assert len(look_up(4, 0, 5)) == len(look_up(6, 0, 5)) == 0


def test_the_counts_of_lanes_are_summed(tmp_path: Path) -> None:
    """A report has the counters of all lanes together."""
    blocks = blocks_of(tmp_path, [3, 5], [8])
    for block in blocks:
        block.feed_counters[0, FeedCounter.ROUNDS] = 7
        block.feed_counters[-1, FeedCounter.UNKNOWN_PATCH] = 1
    blocks[0].feed_counters[1, FeedCounter.ROUNDS] = 5
    counts = DaemonCounts.read(*blocks)
    assert (counts.totals["rounds"], counts.feed["rounds"], counts.feed["unknown_patch"]) == (19, 19, 2)
    assert counts.patches_heard == 3
    assert (DaemonCounts.read(*blocks) - counts).totals == dict.fromkeys(counts.totals, 0)


class Mortal:
    """A lane that dies and comes back, as its telemetry block shows it, and the controller that watches."""

    def __init__(self, folder: Path, plan: DeathPlan) -> None:
        (self.block,) = blocks_of(folder, [3, 5], journal_corrections=64)
        self.accounts = [PatchAccount(patch_id, 0, 2) for patch_id in (3, 5)]
        self.killed: list[tuple[int, int]] = []
        self.pid = 500
        self.deaths = Deaths(
            plan, lambda name: self.pid if name == plan.lane else 0, self.block, self.accounts,
            lambda pid, number: self.killed.append((pid, number)),
        )  # fmt: skip

    def come_back(self) -> int:
        """Another process goes on with the block; when it is ready."""
        ready_ns = time.monotonic_ns() + 1000
        self.block.header["ready_ns"] = ready_ns
        return ready_ns


def test_a_lane_dies_after_equal_parts_of_the_rounds(tmp_path: Path) -> None:
    """N deaths come after 1, 2 .. N of N + 1 parts; the next one only when every patch has been answered again."""
    lane = Mortal(tmp_path, DeathPlan("lane0", 3, Signal.STOP))
    lane.deaths(99, 400)
    assert not lane.killed
    lane.deaths(100, 400)
    lane.deaths(399, 400)
    assert lane.killed == [(500, signal.SIGSTOP)]
    for _ in range(2):
        ready_ns = lane.come_back()
        publish(lane.block, 0, 1, ready_ns + 5)
        lane.deaths(399, 400)
        publish(lane.block, 1, 1, ready_ns + 9)
        lane.deaths(399, 400)
        lane.deaths(399, 400)
    assert len(lane.killed) == 3
    lane.deaths(400, 400)
    assert len(lane.killed) == 3


def test_a_lane_that_is_not_ready_or_has_nothing_to_do_does_not_die(tmp_path: Path) -> None:
    """Nobody is killed while the lane comes back by itself, or after the last round of its patches was answered."""
    lane = Mortal(tmp_path, DeathPlan("lane0", 1))
    lane.pid = 0
    lane.deaths(400, 400)
    lane.pid = 500
    for account in lane.accounts:
        account.finished[-1] = True
    lane.deaths(400, 400)
    assert not lane.killed
    lane.accounts[0].finished[-1] = False
    lane.deaths(400, 400)
    assert lane.killed == [(500, signal.SIGKILL)]
    publish(lane.block, 0, 1, lane.come_back())
    lane.deaths(400, 400)
    assert lane.deaths.deaths[0].all_ns > 0


def test_a_death_lasts_until_the_first_correction_of_the_lane_that_follows(tmp_path: Path) -> None:
    """What the dead lane still made does not count; each patch must be answered; rounds that are gone are charged."""
    lane = Mortal(tmp_path, DeathPlan("lane0", 2))
    publish(lane.block, 0, 3, 10)
    lane.deaths(200, 400)
    (death,) = lane.deaths.deaths
    publish(lane.block, 1, 2, death.at_ns + 1)
    ready_ns = lane.come_back()
    lane.deaths(200, 400)
    assert (death.first_ns, death.all_ns) == (0, 0)
    publish(lane.block, 1, 1, ready_ns + 7_000_000)
    publish(lane.block, 1, 1, ready_ns + 8_000_000)
    lane.deaths(200, 400)
    assert (death.first_ns, death.all_ns) == (ready_ns + 7_000_000, 0)
    publish(lane.block, 0, 1, ready_ns + 9_000_000)
    lane.deaths(200, 400)
    assert (death.first_ns, death.all_ns) == (ready_ns + 7_000_000, ready_ns + 9_000_000)
    gone = held(3, 40)
    lane.accounts[0].check(gone)
    lane.deaths(300, 400)
    lane.accounts[1].check(held(5, 2))
    lane.deaths.finish()
    assert [death.rounds_gone for death in lane.deaths.deaths] == [40, 2]


def held(patch_id: int, num_rounds: int) -> NDArray[Any]:
    """The answer to rounds that a lane took with it."""
    made = np.zeros(1, CORRECTION)
    made["patch_id"], made["num_rounds"], made["rung"], made["reason"] = patch_id, num_rounds, Rung.HOLD, Reason.GAP
    made["flags"] = CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED
    return made


def test_a_report_tells_the_lane_from_the_others(tmp_path: Path, plan_d3: Plan) -> None:
    """Times, what is gone, and what others noticed; each thing that must not be is a problem in words."""
    lane = Mortal(tmp_path, DeathPlan("lane0", 1))
    sender = Sender(make_config(patch=[{"id": 3}, {"id": 5}, {"id": 8}], source__shots=2), [plan_d3] * 3)
    other = PatchAccount(8, 0, 2)
    lane.deaths(200, 400)
    ready_ns = lane.come_back()
    for row in range(2):
        publish(lane.block, row, 1, ready_ns)
    lane.deaths.finish()
    section = lane.deaths.describe([*lane.accounts, other], sender)
    assert (section["lane"], section["patches"], section["others"]["patches"]) == ("lane0", [3, 5], [8])
    assert section["first_correction_ms"]["median"] == section["all_patches_ms"]["max"] > 0
    assert death_problems(section) == []
    other.flags["lossy"], other.resent, other.rounds_answered = 2, 1, 26
    lane.accounts[1].leaps = 2
    bad = lane.deaths.describe([*lane.accounts, other], sender) | {"asked": 3, "back": 0}
    assert [word in problem for word, problem in zip(
        ("not 3", "came back 0 times", "left out shots 2 times", "of the 0 rounds", "resent", "lossy"),
        death_problems(bad), strict=True,
    )] == [True] * 6  # fmt: skip


@pytest.mark.parametrize(
    ("lane", "overrides", "words"),
    [
        ("lane2", {}, ["'lane2'", "lane0, lane1", "[lane] count"]),
        ("lane1", {"fault": [{"kind": "drop", "probability": 0.1}]}, ["[[fault]]", "Leave out"]),
    ],
)
def test_impossible_deaths_are_refused(tmp_path: Path, lane: str, overrides: dict[str, Any], words: list[str]) -> None:
    """A lane that does not exist, and deaths beside faults, are refused with the remedy."""
    config = deployment(tmp_path, 0, 1, **overrides)
    check_plan(DeathPlan("lane1", 1), deployment(tmp_path, 0, 1))
    with pytest.raises(ConfigError) as refused:
        check_plan(DeathPlan(lane, 1), config)
    for word in ("--kill-lane", *words):
        assert word in str(refused.value)
