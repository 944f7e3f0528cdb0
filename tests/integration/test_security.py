"""A whole daemon on tcp with keys: who may, may; who may not, may not; and the audit log says who did what."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from rtqec.config import load_config
from rtqec.curve import ClientKeys, KeyPair, load_client_keys, load_key
from rtqec.errors import NoPeerError
from rtqec.service.ask import ask
from rtqec.service.audit_chain import audit_files, audit_path, read_audit, verify_audit
from rtqec.service.keys import new_key
from tests.integration.conftest import CONFIGS, SMALL, Start, command, wait_for
from tests.peers import Peer

NO_ANSWER_S = 0.5


@dataclass
class Lab:
    """A daemon's configuration with keys, and the keys."""

    folder: Path
    config: Path
    feed: str
    publish: str

    def keys(self, name: str) -> ClientKeys:
        """A client's."""
        return load_client_keys(self.folder / f"{name}.key_secret", self.folder / "server.key")

    def write(self, *clients: tuple[str, str]) -> None:
        """The configuration, with clients and their rights in TOML."""
        tables = ""
        for name, rights in clients:
            public, _ = load_key(name, self.folder / f"{name}.key")
            tables += f'[[client]]\nname = "{name}"\npublic_key = "{public.decode()}"\n{rights}\n'
        written = self.config.with_suffix(".new")
        written.write_text((CONFIGS / "d5_memory_z.toml").read_text() + tables)
        written.replace(self.config)

    def ask(self, keys: ClientKeys | None, verb: str, **fields: Any) -> dict[str, Any]:
        """Over control."""
        config = load_config(self.config, self.sets)
        return ask(config, {"verb": verb} | fields, NO_ANSWER_S if keys is None else 20.0, keys)

    @property
    def sets(self) -> list[str]:
        """For `--set`."""
        return [
            *SMALL, f"feed.endpoint={self.feed}", f"publish.endpoint={self.publish}",
            f"control.endpoint={self.control}", f"security.server_key={self.folder}/server.key_secret",
            f"service.state_dir={self.folder}/state",
        ]  # fmt: skip

    control: str = ""


@pytest.fixture
def lab(runtime_dir: Path, free_port: Callable[[], int]) -> Lab:
    """Keys of a server, a controller, a desk and nobody; three ports."""
    for name in ("server", "fpga", "desk", "nobody"):
        new_key(name, runtime_dir / "keys")
    ports = [f"tcp://127.0.0.1:{free_port()}" for _ in range(3)]
    return Lab(runtime_dir / "keys", runtime_dir / "d5.toml", ports[0], ports[1], ports[2])


@pytest.fixture
def connect() -> Iterator[Callable[[int, str, ClientKeys], Peer]]:
    """Peers that are gone afterwards."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peers: list[Peer] = []

    def peer(kind: int, endpoint: str, keys: ClientKeys) -> Peer:
        peers.append(Peer(context, kind, endpoint, keys))
        return peers[-1]

    yield peer
    for each in peers:
        each.close()
    context.term()


def test_a_daemon_with_keys(start_daemon: Start, lab: Lab, connect: Callable[[int, str, ClientKeys], Peer]) -> None:
    """Feed, corrections and control let in the keys that may and no others; each verb asks for its right; a reload
    takes a key away at once; what was changed, and by whom, stands in the audit log."""
    lab.write(("fpga", 'feed = "all"\nread = "all"'), ("desk", "read = [0]\nchange = [0]"))
    daemon = start_daemon(str(lab.config), *lab.sets)
    fpga, desk, nobody = lab.keys("fpga"), lab.keys("desk"), lab.keys("nobody")
    for kind, endpoint, refused in ((zmq.PUSH, lab.feed, [desk, nobody]), (zmq.PULL, lab.publish, [nobody])):
        strangers = [connect(kind, endpoint, keys) for keys in refused]
        for stranger in strangers:
            stranger.check_refused(times=1)
        connect(kind, endpoint, fpga).wait_until_in()
    assert lab.ask(fpga, "status")["ok"]
    assert "may not change patch 0" in lab.ask(fpga, "reset", patch=0)["error"]
    assert lab.ask(desk, "reset", patch=0)["ok"]
    impostor = ClientKeys(desk.own, nobody.own.public)
    for keys in (None, impostor, nobody):
        with pytest.raises(NoPeerError, match="key_refused"):
            ask(load_config(lab.config, lab.sets), {"verb": "status"}, NO_ANSWER_S, keys)
    lab.write(("fpga", 'feed = "all"\nread = "all"'), ("nobody", "change = [0]"))
    daemon.send_signal(signal.SIGHUP)
    path = audit_path(load_config(lab.config, lab.sets))
    wait_for(lambda: "configuration_changed" in path.read_text())
    assert lab.ask(nobody, "drain")["ok"]
    daemon.communicate(timeout=30)
    assert daemon.returncode == 0
    records = list(read_audit(audit_files(path)))
    assert verify_audit(audit_files(path)) == []
    assert [record["event"] for record in records][:2] == ["started", "plan_loaded"]
    assert records[-1]["event"] == "stopped"
    by = {record["event"]: record["who"] for record in records}
    assert by["drain"] == f"nobody {nobody.own.public.decode()}"
    assert by["reset_changed"] == f"desk {desk.own.public.decode()}"


def test_a_reload_hangs_up_on_a_controller_without_the_right(
    start_daemon: Start, lab: Lab, connect: Callable[[int, str, ClientKeys], Peer]
) -> None:
    """And lets in the one that has it now; a lane that dies afterwards comes back with the new list."""
    lab.write(("fpga", 'feed = "all"\nread = "all"'))
    daemon = start_daemon(str(lab.config), *lab.sets)
    fpga = connect(zmq.PUSH, lab.feed, lab.keys("fpga"))
    fpga.wait_until_in()
    lab.write(("nobody", 'feed = "all"\nread = "all"\nchange = "all"'))
    daemon.send_signal(signal.SIGHUP)
    fpga.wait_until_out()
    other = connect(zmq.PUSH, lab.feed, lab.keys("nobody"))
    other.wait_until_in()
    lane = lab.ask(lab.keys("nobody"), "status")["lanes"][0]
    subprocess.run(["kill", "-9", str(lane["pid"])], check=True)
    other.wait_until_out()
    other.wait_until_in()
    fpga.check_refused(times=1)


def test_files_are_for_the_daemon_and_its_group(start_daemon: Start, lab: Lab, runtime_dir: Path) -> None:
    """Nothing that a running daemon has made can be read by others, or written by them; nothing secret by the group."""
    lab.write(("fpga", 'feed = "all"\nread = "all"'))
    before = set(runtime_dir.rglob("*"))
    sets = [*lab.sets, f"control.endpoint=ipc://{runtime_dir}/control", f"feed.endpoint=ipc://{runtime_dir}/feed"]
    start_daemon(str(lab.config), *sets)
    made = [path for path in set(runtime_dir.rglob("*")) - before if path.name != "notify"]
    assert len(made) >= 8
    modes = {str(path.relative_to(runtime_dir)): stat.S_IMODE(path.stat().st_mode) for path in made}
    assert {name: oct(mode) for name, mode in modes.items() if mode & stat.S_IRWXO} == {}
    assert modes["control"] == modes["feed"] == 0o660


def test_a_key_that_others_may_read_keeps_the_daemon_from_starting(lab: Lab) -> None:
    """Exit status 2, with the remedy."""
    lab.write(("fpga", 'feed = "all"\nread = "all"'))
    (lab.folder / "server.key_secret").chmod(0o644)
    sets = [part for item in lab.sets for part in ("--set", item)]
    done = subprocess.run(
        command("rtqec", "run", str(lab.config), *sets), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


def test_the_commands_make_and_use_keys(start_daemon: Start, lab: Lab, tmp_path: Path) -> None:
    """`rtqec keys`, `rtqec ask --key --server-key` and `rtqec audit`, as an operator types them."""
    made = subprocess.run(
        command("rtqec", "keys", "new", "tablet", "--folder", str(tmp_path)), capture_output=True, text=True, check=True
    )
    lab.write(("fpga", 'feed = "all"\nread = "all"'))
    with lab.config.open("a") as file:
        file.write(made.stdout[made.stdout.index("[[client]]") :])
    start_daemon(str(lab.config), *lab.sets)
    sets = [part for item in lab.sets for part in ("--set", item)]
    keys = ["--key", str(tmp_path / "tablet.key_secret"), "--server-key", str(lab.folder / "server.key")]
    asked = subprocess.run(
        command("rtqec", "ask", str(lab.config), "hello", *sets, *keys), capture_output=True, text=True, check=True
    )
    assert json.loads(asked.stdout)["ok"]
    verified = subprocess.run(
        command("rtqec", "audit", "verify", str(lab.config), *sets), capture_output=True, text=True, check=True
    )
    assert "1 file(s)" in verified.stdout


def test_key_pairs_are_not_in_messages() -> None:
    """Not even by accident, in the representation of what holds them."""
    assert "secret" not in repr(KeyPair(b"public", b"secret"))
