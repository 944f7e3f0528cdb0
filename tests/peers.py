"""Guarded sockets, and the peers that try to reach them: good ones, and strangers of every kind."""

from __future__ import annotations

import os
import socket as sockets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq

from rtqec.config import ClientTable
from rtqec.curve import ClientKeys, KeyPair, secure_client
from rtqec.gate import Gate
from rtqec.security import Right, Rights

WAIT_MS = 60_000
"""For what must happen; nothing waits so long unless it fails."""
_CUT_OFF_S = 20.0
"""Less than libzmq's own 30 s, after which silence ends without us."""
_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED
)  # fmt: skip


def new_key() -> KeyPair:
    """A key that nobody knows yet."""
    return KeyPair(*zmq.curve_keypair())


def client_table(name: str, key: KeyPair, **rights: Any) -> ClientTable:
    """An entry of the allow-list."""
    return ClientTable(name=name, public_key=key.public.decode(), **rights)


class Log:
    """What a gate has logged."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **details: Any) -> None:
        """Keep it."""
        self.said.append((event, details))

    warning = info

    def details(self, event: str) -> list[dict[str, Any]]:
        """Of every line with this event."""
        return [details for said, details in self.said if said == event]


class Peer:
    """A ZeroMQ client outside of the daemon's context, and what its monitor says."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str, keys: ClientKeys | None
    ) -> None:
        self.socket = context.socket(kind)
        self.socket.linger = 0
        self.socket.sndtimeo = self.socket.rcvtimeo = WAIT_MS
        secure_client(self.socket, endpoint, keys)
        self._monitor = self.socket.get_monitor_socket(_WATCHED)
        self.socket.connect(endpoint)

    def next_event(self) -> int:
        """Wait for the next event of the handshake."""
        assert self._monitor.poll(WAIT_MS), "nothing happened to this peer"
        return int.from_bytes(self._monitor.recv_multipart()[0][:2], "little")

    def wait_until_in(self) -> None:
        """Wait until it is let in, however often it is refused before."""
        while self.next_event() != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            pass

    def wait_until_out(self) -> None:
        """Wait until a connection of it has ended."""
        while self.next_event() != zmq.EVENT_DISCONNECTED:
            pass

    def check_refused(self, times: int = 2) -> None:
        """Wait until it was refused so often, and see that it was never let in."""
        for _ in range(times):
            while (event := self.next_event()) != zmq.EVENT_DISCONNECTED:
                assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED

    def close(self) -> None:
        """Go away."""
        if not self.socket.closed:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
            self.socket.close(linger=0)


class Scene:
    """A daemon's guarded sockets, and peers.

    Attributes:
        log: What the gate said.
        server: The daemon's key.
        alice: A client's, on the allow-list of `open` with the rights to feed and to read all.
    """

    def __init__(self) -> None:
        self.log = Log()
        self.server, self.alice = new_key(), new_key()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._outside: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._peers: list[Peer] = []
        self._guarded: list[zmq.Socket[bytes]] = []
        self.gate: Gate

    def open(
        self, *doors: tuple[int, str, Right | None], rights: Rights | None = None, keyed: bool = True,
        alone: bool = True, patch_ids: tuple[int, ...] = (0,),
    ) -> list[tuple[zmq.Socket[bytes], str]]:  # fmt: skip
        """Bind and guard sockets, each (kind, endpoint, right), as a lane does; they, and where they are."""
        rights = rights or Rights([client_table("alice", self.alice, feed="all", read="all")])
        self.gate = Gate(self.context, rights, self.server if keyed else None)
        opened = []
        for index, (kind, endpoint, right) in enumerate(doors):
            socket = self.context.socket(kind)
            socket.linger = 0
            socket.rcvtimeo = socket.sndtimeo = WAIT_MS
            self.gate.guard(socket, f"door {index}", endpoint, right, patch_ids, alone=alone)
            socket.bind(endpoint)
            self._guarded.append(socket)
            opened.append((socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)))
        self.gate.start()
        return opened

    def peer(self, kind: int, endpoint: str, key: KeyPair | None = None, server_public: bytes | None = None) -> Peer:
        """Connect a client; with a key it shows it, and asks for the server's."""
        keys = ClientKeys(key, server_public or self.server.public) if key is not None else None
        self._peers.append(Peer(self._outside, kind, endpoint, keys))
        return self._peers[-1]

    def close(self) -> None:
        """End everything."""
        for peer in self._peers:
            peer.close()
        self._outside.destroy(linger=0)
        if hasattr(self, "gate"):
            self.gate.stop(self._guarded)
        self.context.destroy(linger=0)


def port_of(endpoint: str) -> int:
    """Of a tcp endpoint."""
    return int(endpoint.rpartition(":")[2])


def raw_connection(endpoint: str) -> sockets.socket:
    """A connection of somebody who speaks no ZeroMQ."""
    if endpoint.startswith("ipc://"):
        connection = sockets.socket(sockets.AF_UNIX)
        connection.connect(endpoint.removeprefix("ipc://"))
    else:
        connection = sockets.create_connection(("127.0.0.1", port_of(endpoint)))
    connection.settimeout(_CUT_OFF_S)
    return connection


def wait_until_closed(connection: sockets.socket) -> None:
    """Read until the daemon has closed the connection."""
    with suppress(ConnectionResetError, BrokenPipeError):
        while connection.recv(4096):
            pass


def own_connection_from(stranger: sockets.socket) -> sockets.socket:
    """This process's own end of a connection, to be looked at."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        try:
            copy = sockets.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with suppress(OSError):
            if copy.family == sockets.AF_INET and copy.getpeername() == stranger.getsockname():
                return copy
        copy.close()
    raise AssertionError("this process has no such connection")


def scenes(set_log: Callable[[Log], None]) -> Iterator[Scene]:
    """The body of a fixture: a scene whose gate logs into it."""
    scene = Scene()
    set_log(scene.log)
    yield scene
    scene.close()
