"""What strangers could reach, or nobody could, is refused before READY; a right holds for the patches it names."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import zmq

from rtqec.errors import ConfigError
from rtqec.security import Right, Rights, check_endpoints, check_lane, make_folder, on_loopback
from rtqec.service.keys import new_key
from tests.harness import make_config

IPC = "ipc:///run/rtqec/x.ipc"
PLAIN, NET = "tcp://127.0.0.1:5555", "tcp://0.0.0.0:5555"
TABLES = {"feed": {"round_period_us": 1.0}, "publish": {}, "control": {}}


def public_key() -> str:
    """A new one."""
    return zmq.curve_keypair()[0].decode()


def client(name: str = "alice", **rights: Any) -> dict[str, Any]:
    """A `[[client]]` table."""
    return {"name": name, "public_key": public_key(), **rights}


@pytest.fixture
def server_key(tmp_path: Path) -> str:
    """A secret key's file."""
    return str(new_key("server", tmp_path)[1])


def config_with(feed: str = IPC, publish: str = IPC, control: str | None = IPC, **tables: Any) -> Any:
    """A deployment with these endpoints."""
    written = {"feed__endpoint": feed, "publish__endpoint": publish}
    return make_config(**written, **({"control__endpoint": control} if control is not None else {}), **tables)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "endpoint",
    [NET, "tcp://*:5555", "tcp://eth0:5555", "tcp://192.168.0.3:5555", "tcp://127.evil.org:1", "tcp://[::]:5555",
     "tcp://lab.example:5555", "tcp://localhost.example:1"],
)  # fmt: skip
def test_plain_tcp_on_the_network_is_refused(table: str, endpoint: str) -> None:
    """Without keys nobody from outside may feed, read or ask, unless that is accepted by name."""
    with pytest.raises(ConfigError) as refused:
        check_endpoints(config_with(**{table: endpoint}))
    for word in (f"[{table}] endpoint", endpoint, "server_key", "accept_plain_tcp", "rtqec keys new"):
        assert word in str(refused.value)
    check_endpoints(config_with(**{table: endpoint}, security={"accept_plain_tcp": True}))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "endpoint", [IPC, "ipc://relative.ipc", PLAIN, "tcp://127.1.2.3:1", "tcp://localhost:1", "tcp://[::1]:5555"]
)
def test_what_only_this_machine_reaches_is_taken(table: str, endpoint: str) -> None:
    """Files and the loopback."""
    check_endpoints(config_with(**{table: endpoint}))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "endpoint", ["ipc://@abstract", "ipc://*", "ipc://", "inproc://x", "udp://127.0.0.1:1", "pgm://eth0;1", "", "x"]
)
@pytest.mark.parametrize("accepted", [False, True])
def test_what_cannot_be_guarded_is_refused(table: str, endpoint: str, accepted: bool) -> None:
    """An abstract socket has no permissions, other transports ask for no key; accepted plain tcp is neither."""
    with pytest.raises(ConfigError, match="file permissions decide"):
        check_endpoints(config_with(**{table: endpoint}, security={"accept_plain_tcp": accepted}))


def test_keys_that_nobody_would_ask_for_are_refused(server_key: str) -> None:
    """Clients without a server key, and a server key beside accepted plain tcp, promise what would not hold."""
    with pytest.raises(ConfigError, match=r"server_key is not set, but there are \[\[client\]\]"):
        check_endpoints(config_with(feed=PLAIN, client=[client(feed="all")]))
    check_endpoints(config_with(client=[client(feed="all")]))
    with pytest.raises(ConfigError, match="Remove one of the two"):
        check_endpoints(config_with(security={"server_key": server_key, "accept_plain_tcp": True}))


@pytest.mark.parametrize(
    ("table", "granted", "lacking"), [("feed", "feed", "read"), ("publish", "read", "feed"), ("control", "feed", None)]
)
def test_an_endpoint_that_nobody_could_connect_to_is_refused(
    server_key: str, table: str, granted: str, lacking: str | None
) -> None:
    """With a server key, on the loopback too: somebody must have the right that the endpoint asks for."""
    security = {"server_key": server_key}
    for endpoint in (PLAIN, NET):
        clients: list[list[dict[str, Any]]] = [[]]
        clients += [[client(**{lacking: "all"})]] if lacking else []
        for others in clients:
            with pytest.raises(ConfigError, match="Nobody could ever connect") as refused:
                check_endpoints(config_with(**{table: endpoint}, security=security, client=others))
            assert f"[{table}] endpoint" in str(refused.value)
        check_endpoints(config_with(**{table: endpoint}, security=security, client=[client(**{granted: "all"})]))


def test_a_lane_needs_somebody_with_the_right_on_all_its_patches(server_key: str) -> None:
    """Two clients with a patch each can share the daemon only where each patch has a lane of its own; where the
    configuration leaves the lanes open, that is asked when they are known."""
    tables: dict[str, Any] = {
        "feed": "tcp://127.0.0.1:600{lane}",
        "publish": "ipc:///run/rtqec/corrections{lane}.ipc",
        "security": {"server_key": server_key},
        "client": [client("alice", feed=[0]), client("bob", feed=[1])],
    }
    apart = config_with(**tables, lane__count=2, patch=[{"id": 0, "lane": 0}, {"id": 1, "lane": 1}])
    check_endpoints(apart)
    together = config_with(**tables, patch=[{"id": 0}, {"id": 1}])
    with pytest.raises(ConfigError) as refused:
        check_endpoints(together)
    for word in ("may feed all patches of lane0: 0, 1", "[[patch]] lane"):
        assert word in str(refused.value)
    left_open = config_with(**tables, lane__count=2, patch=[{"id": 0}, {"id": 1}, {"id": 2}])
    check_endpoints(left_open)
    check_lane(left_open.of_lane(0, [0]), Rights.of(left_open))
    with pytest.raises(ConfigError, match="of lane1: 1, 2"):
        check_lane(left_open.of_lane(1, [1, 2]), Rights.of(left_open))


@pytest.mark.parametrize(("lanes", "last"), [(6, "127.0.0.255"), (7, "127.0.0.256")])
def test_every_lanes_endpoint_is_checked(lanes: int, last: str) -> None:
    """Not only that of the first lane; the number may be anywhere in the address."""
    patches = [{"id": patch_id} for patch_id in range(lanes)]
    config = config_with("tcp://127.0.0.25{lane}:1", "ipc:///run/{lane}", lane__count=lanes, patch=patches)
    if lanes == 6:
        check_endpoints(config)
        return
    with pytest.raises(ConfigError, match=re.escape(last)):
        check_endpoints(config)


def test_a_public_key_that_is_none_is_refused() -> None:
    """It is told which client's."""
    with pytest.raises(ConfigError, match=r"\[\[client\]\] alice public_key"):
        Rights.of(make_config(client=[client() | {"public_key": "_" * 40}]))


def test_rights_are_those_of_the_key() -> None:
    """All, some or none of the patches; nothing for a key that is not on the list, and no name is a key."""
    alice, bob = client("alice", feed="all", read=[0]), client("bob")
    rights = Rights.of(make_config(client=[alice, bob]))
    key = alice["public_key"]
    assert rights.may(key, Right.FEED, [0, 7])
    assert rights.may(key, Right.READ, [0])
    assert not rights.may(key, Right.READ, [0, 1])
    assert not rights.may(key, Right.CHANGE, [0])
    assert not rights.may(bob["public_key"], Right.READ, [0])
    for stranger in (public_key(), "alice", "", "local", "local:0"):
        assert not rights.may(stranger, Right.READ, [0])
        assert rights.client(stranger) is None
    assert rights.holders(Right.FEED, [0]) == ["alice"]
    assert rights.describe(key) == f"alice {key}"


def test_hosts_are_taken_literally() -> None:
    """Only addresses of the loopback, and its one name."""
    assert on_loopback("tcp://127.0.0.1:*")
    for endpoint in ("tcp://", "tcp://127.0.0.1", "tcp://::1", "tcp://0:5", "tcp://lo:5", "tcp://[::ffff:10.0.0.1]:5"):
        assert not on_loopback(endpoint), endpoint


def test_a_folder_is_made_for_owner_and_group(tmp_path: Path) -> None:
    """0750, with its parents; one that is there is taken unless everybody may write into it."""
    folder = tmp_path / "a" / "b"
    before = os.umask(0o000)
    try:
        make_folder(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    make_folder(folder)
    folder.chmod(0o757)
    with pytest.raises(PermissionError, match="everybody"):
        make_folder(folder)
