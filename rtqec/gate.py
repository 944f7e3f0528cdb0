"""Who comes in: over tcp only keys that have the right, and to an endpoint of a lane one peer at a time.

ZeroMQ asks a handler on `inproc://zeromq.zap.01` before it lets a peer in (ZAP, ZeroMQ RFC 27); where a socket asks for
keys, only about peers that have proven theirs and know the server's. A monitor of each socket says who has connected
and who has gone. A second peer of a lane's endpoint would silently get, or send, half of the messages; it is refused,
and comes back until there is room. The gate sleeps unless somebody comes or goes.

    accepted -> silent or garbage -> gone, after `HANDSHAKE_MS` at the latest
             -> key proven, asked about -> let in; or refused: gone, and back after a while

Events: `peer_admitted`, `peer_gone`, `key_refused`, `second_peer_refused`, `handshake_refused`, `peer_hung_up`; each at
most once in ten seconds per endpoint and reason, with the number of times so far.
"""

from __future__ import annotations

import os
import resource
import socket as sockets
import struct
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import zmq

from rtqec.curve import KeyPair, secure_server
from rtqec.door import HANDSHAKE_MS, Door, Tally, caller_of
from rtqec.log import get_logger
from rtqec.security import Right, Rights
from rtqec.wire import MESSAGE_BYTES_MAX

_MESSAGE_BYTES_MAX = 4 * MESSAGE_BYTES_MAX
"""What a stranger can make libzmq allocate at once: without a bound, whatever the first eight bytes say. More than any
good message has, so that one that is a little too long is counted, and its sender not disconnected."""
_HANDSHAKE_BYTES = 1024
_CURVE_BYTES = 64
"""Room for a handshake, and for what encryption adds to a message (33 bytes)."""
_PAUSE_S = 0.01
_QUICK_LOOKS = 10
"""After so many looks, each sooner than a pause after the one before, the gate pauses between looks, so that a flood of
strangers does not keep the interpreter from the path. A controller that comes back is answered at once."""
_EVENTS_AT_ONCE = 10_000
"""Then orders have their turn: two local strangers make 120,000 events a second (2 cores, November 2026)."""
_BACKLOG = 1024
_KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 5, zmq.TCP_KEEPALIVE_INTVL: 2, zmq.TCP_KEEPALIVE_CNT: 3}
"""A controller that lost its power says no farewell: its place is free again after 5 + 3 * 2 s."""
_UNSENT_MS = 10_000
"""The same for one to whom corrections are under way: then the kernel does not ask whether it is alive."""
_DESCRIPTORS = 1 << 16
_EVENTS = (
    zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)  # fmt: skip
"""Not `EVENT_ACCEPT_FAILED`: without descriptors libzmq would tell it without pause."""
_MONITORED = struct.Struct("=hi")
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ORDERS_ADDRESS = "inproc://rtqec-gate-orders"
_STOP, _LOOK_AGAIN = b"stop", b"look again"
_LET_IN = b"200"
_COME_BACK = b"300"
"""The connection ends (over CURVE when the time for its handshake is over), and the peer tries again. After a 400 it
would stay away for good, and a controller back sooner than its old connection was gone would never be let in."""


class Gate:
    """Guards sockets. Make it before they are bound, `guard` each, then `start`.

    Args:
        context: The context of the sockets, of asyncio or not.
        rights: Who may do what.
        server_key: With it, sockets on tcp ask for keys.
    """

    def __init__(
        self, context: zmq.Context[Any], rights: Rights | None = None, server_key: KeyPair | None = None
    ) -> None:
        self._log = get_logger()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context.underlying)
        self._rights = rights or Rights()
        self._server_key = server_key
        self._doors: dict[str, Door] = {}
        self._monitors: dict[zmq.Socket[bytes], Door] = {}
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(_ZAP_ADDRESS)
        self._orders = self._context.socket(zmq.PAIR)
        self._orders.bind(_ORDERS_ADDRESS)
        self._orderer = self._context.socket(zmq.PAIR)
        self._orderer.connect(_ORDERS_ADDRESS)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        _allow_many_descriptors()

    def guard(
        self, socket: zmq.Socket[Any], key: str, endpoint: str = "ipc://", right: Right | None = None,
        patch_ids: Collection[int] = (), *, alone: bool = True, message_bytes: int = _MESSAGE_BYTES_MAX,
    ) -> None:  # fmt: skip
        """Ask for every peer of a socket that is not bound yet.

        Args:
            socket: The socket.
            key: Names it in the log, as `[table] key`. One gate guards it once.
            endpoint: Where it will be bound: on tcp it asks for keys, if there is a server key.
            right, patch_ids: What a key needs to come in: the right on all of the patches. Without a right any
                known key may, and each request is judged by itself; its `User-Id` says who asks.
            alone: Whether there is room for one peer only.
            message_bytes: No message is longer; a peer that sends one is disconnected.
        """
        door = Door(key, right, tuple(patch_ids), alone, secure_server(socket, endpoint, self._server_key))
        socket.setsockopt_string(zmq.ZAP_DOMAIN, key)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, max(message_bytes, _HANDSHAKE_BYTES) + _CURVE_BYTES)
        socket.setsockopt(zmq.BACKLOG, _BACKLOG)
        socket.setsockopt(zmq.TCP_MAXRT, _UNSENT_MS)
        for option, setting in _KEEPALIVE.items():
            socket.setsockopt(option, setting)
        self._monitors[self._watch(socket)] = self._doors[key] = door

    def start(self) -> None:
        """Begin to answer; until then nobody is let in."""
        self._thread.start()

    def admit_only(self, rights: Rights) -> None:
        """Replace the allow-list: who has lost the right to be connected to a lane is hung up on.

        Call it, like `stop`, from the thread that made the gate.
        """
        self._rights = rights
        self._orderer.send(_LOOK_AGAIN)

    @property
    def refusals(self) -> dict[str, int]:
        """How many were refused since the start, by event; for any thread."""
        found: Counter[str] = Counter()
        for door in self._doors.values():
            for reason, tally in list(door.tallies.items()):
                found[reason.partition(":")[0]] += tally.count
        return dict(found)

    def stop(self, guarded: Sequence[zmq.Socket[Any]]) -> None:
        """End the thread and the monitors of the sockets, which nobody uses any more but are still open."""
        if self._thread.is_alive():
            self._orderer.send(_STOP)
            self._thread.join()
        for socket in guarded:
            socket.disable_monitor()
        for socket in (*self._monitors, self._zap, self._orderer, self._orders):
            socket.close(linger=0)

    def _watch(self, socket: zmq.Socket[Any]) -> zmq.Socket[bytes]:
        """The other end of a socket's monitor. Its queue has no bound: a full one would stop libzmq's own thread."""
        address = f"inproc://rtqec-gate-monitor-{len(self._monitors)}"
        socket.monitor(address, _EVENTS)
        monitor = self._context.socket(zmq.PAIR)
        monitor.set_hwm(0)
        monitor.connect(address)
        return monitor

    # The thread.

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._zap, self._orders, *self._monitors):
            poller.register(socket, zmq.POLLIN)
        quick_looks = 0
        while True:
            slept_at = time.monotonic()
            poller.poll()
            quick_looks = quick_looks + 1 if time.monotonic() - slept_at < _PAUSE_S else 0
            abreast = self._follow_monitors()
            while self._answer():
                pass
            self._orders.poll(round(1000 * _PAUSE_S) if abreast and quick_looks > _QUICK_LOOKS else 0)
            with suppress(zmq.Again):
                while True:
                    if self._orders.recv(zmq.NOBLOCK) == _STOP:
                        return
                    self._look_again()

    def _follow_monitors(self) -> bool:
        """Take note of what has happened so far; whether that was all."""
        for monitor, door in self._monitors.items():
            try:
                for _ in range(_EVENTS_AT_ONCE):
                    event, value = _MONITORED.unpack(monitor.recv(zmq.NOBLOCK))
                    self._note(door, event, value, monitor.recv())
            except zmq.Again:
                continue
            return False
        return True

    def _note(self, door: Door, event: int, value: int, endpoint: bytes) -> None:
        """Take note of one event of a monitor."""
        if event == zmq.EVENT_LISTENING:
            door.port = int(endpoint.rpartition(b":")[2]) if door.keyed else 0
        elif event in (zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED):
            if door.follow(event, value):
                self._report(door, "peer_gone", caller=self._rights.describe(door.caller))
        else:
            self._report(door, "handshake_refused", reason=_why(event, value))

    def _answer(self) -> bool:
        """Answer one ZAP request: version, request id, domain, address, identity, mechanism, credentials."""
        try:
            version, request_id, domain, address, _, mechanism, *credentials = self._zap.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        door = self._doors[domain.decode()]
        caller = caller_of(address, mechanism, credentials)
        if self._follow_monitors():
            objection = door.objection(caller, mechanism, self._rights)
        else:  # Who is connected now is not known: it may come back, as it does anyway.
            objection = "handshake_refused", {"reason": "too many strangers come and go"}
        if objection is not None:
            event, details = objection
            self._report(door, event, **details)
            status = _COME_BACK
        else:
            door.admit(caller)
            if door.alone:
                self._report(door, "peer_admitted", caller=self._rights.describe(caller))
            status = _LET_IN
        self._zap.send_multipart([version, request_id, status, b"", caller.encode(), b""])
        return True

    def _look_again(self) -> None:
        """Hang up on peers that would not be let in any more."""
        for door in self._doors.values():
            if door.keyed and door.candidates and (lacking := door.lacking(door.caller, self._rights)):
                self._report(door, "peer_hung_up", caller=self._rights.describe(door.caller), **lacking)
                for connection in door.candidates:
                    _hang_up(connection, door.port)

    def _report(self, door: Door, event: str, **details: Any) -> None:
        tally = door.tallies.setdefault(f"{event}:{details.get('reason', '')}", Tally())
        if not tally.is_due(time.monotonic()):
            return
        say = self._log.info if event in ("peer_admitted", "peer_gone") else self._log.warning
        say(event, endpoint=door.key, times=tally.count, **details)


def _why(event: int, value: int) -> str:
    """What a peer did wrong before it could be asked about."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return "it said nothing in time, or went away"
    if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return "it shows no key where one is asked for, or one where none is"
    if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
        return "it has another server's public key"
    return "it does not speak ZeroMQ"


def _hang_up(connection: int, port: int) -> None:
    """End a connection of libzmq's, which has no call for that.

    libzmq may have closed it a moment ago, and the number may be another file's by now: the copy stays the same file,
    and is looked at before anything is done to it.
    """
    with suppress(OSError), sockets.socket(fileno=os.dup(connection)) as copy:
        if copy.family in (sockets.AF_INET, sockets.AF_INET6) and copy.getsockname()[1] == port:
            copy.shutdown(sockets.SHUT_RDWR)


def _allow_many_descriptors() -> None:
    """Raise the soft bound: each connection takes one, and without any left nobody else could connect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
