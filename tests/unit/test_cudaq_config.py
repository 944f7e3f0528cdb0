"""`[listen.cudaq]`: what is taken, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_sim.controller import Controller
from rtqec.config import Config, load_config
from rtqec.errors import ConfigError
from rtqec.security import check_endpoints

GOOD = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 4
noise = 0.01

[window]
commit_rounds = 3
buffer_rounds = 3

[feed]
round_period_us = 1

[listen.cudaq]

[[patch]]
id = 0
[[patch]]
id = 7
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def test_a_listener_needs_no_endpoints(good: Path) -> None:
    """Without [publish], and without [feed] endpoint, it is a whole configuration; also after a round trip."""
    config = load_config(good)
    check_endpoints(config)
    cudaq = config.listen.cudaq
    assert cudaq is not None
    assert (cudaq.address, cudaq.port, cudaq.slot_bytes) == ("127.0.0.1", 0, 256)
    assert Config.model_validate(config.model_dump(mode="json") | {"folder": config.folder}) == config
    assert config.of_lane(0, [7]).listen == config.listen


def test_ports_follow_ids(good: Path) -> None:
    """`port` is that of patch 0."""
    cudaq = load_config(good, ["listen.cudaq.port=50000"]).listen.cudaq
    assert cudaq is not None
    assert [cudaq.port_of(patch_id) for patch_id in (0, 7)] == [50000, 50007]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("feed.endpoint=ipc:///x", "[feed] endpoint is 'ipc:///x', but with [listen.cudaq] rounds come"),
        ("publish.endpoint=ipc:///x", "[publish] endpoint is 'ipc:///x', but with [listen.cudaq]"),
        ("feed.payload=detection_events", '[listen.cudaq] needs [feed] payload = "measurements"'),
        ("listen.cudaq.port=65530", "patch 7 would have 65537; the last port is 65535"),
        ("service.standby=false", "port is 0, but [service] standby is false"),
        ("listen.cudaq.address=localhost", "must be an IPv4 or IPv6 address"),
        ("listen.cudaq.slot_bytes=63", "greater than or equal to 64"),
        ("listen.cudaq.slot_bytes=65508", "less than or equal to 65507"),
        ("listen.cudaq.ports=1", "no key or table has that name"),
    ],
)
def test_what_cannot_work_is_refused(good: Path, override: str, words: str) -> None:
    """Each message says what was found, and the bound."""
    with pytest.raises(ConfigError) as refused:
        load_config(good, [override])
    assert words in str(refused.value)


def test_the_simulated_controller_refuses_it(good: Path) -> None:
    """It speaks rtqec's own wire only, and says so at once."""
    with pytest.raises(ConfigError, match=r"\[listen.cudaq\] is there, but this controller speaks rtqec's own wire"):
        Controller(load_config(good), [])


@pytest.mark.parametrize("address", ["192.0.2.1", "::"])
def test_an_address_that_strangers_reach_must_be_accepted(good: Path, address: str) -> None:
    """Requests carry no key: beyond the loopback only by name."""
    with pytest.raises(ConfigError, match=r"\[listen.cudaq\] address is '.*', which is not on the loopback") as refused:
        check_endpoints(load_config(good, [f"listen.cudaq.address={address}"]))
    assert "accept_remote = true" in str(refused.value)
    check_endpoints(load_config(good, [f"listen.cudaq.address={address}", "listen.cudaq.accept_remote=true"]))
    check_endpoints(load_config(good, ["listen.cudaq.address=::1"]))
