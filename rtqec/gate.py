"""Exactly one peer per endpoint: a second one would silently get, or send, half of the messages.

ZeroMQ asks a handler on `inproc://zeromq.zap.01` before it lets a peer in (ZAP, ZeroMQ RFC 27), and a monitor of each
socket says when the peer has gone. The gate admits one peer per socket, refuses and reports any other, and is open
again when the first one has gone. It sleeps unless somebody comes or goes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import zmq
from zmq.utils.monitor import recv_monitor_message

from rtqec.log import get_logger

_REPORT_EVERY_S = 10.0
"""A refused peer tries again ten times a second; the log says so once in a while."""
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_STOP_ADDRESS = "inproc://rtqec-gate-stop"


@dataclass
class _Door:
    """One guarded socket.

    ZAP does not say which connection it asks about, and a monitor not who was let in. But connections are accepted
    before they are asked about: a peer that knocks while it is the only connection is let in.
    """

    key: str
    connections: set[int] = field(default_factory=set)
    taken: bool = False
    refused: int = 0
    reported_at: float = float("-inf")

    def admit(self) -> bool:
        """Whether a peer that knocks now may come in."""
        if self.taken and len(self.connections) > 1:
            self.refused += 1
            return False
        self.taken = True
        return True

    def follow(self, event: int, connection: int) -> None:
        """Note that a connection was accepted, or that one has gone."""
        if event == zmq.EVENT_ACCEPTED:
            self.connections.add(connection)
        else:
            self.connections.discard(connection)
            self.taken = self.taken and bool(self.connections)


class Gate:
    """Guards the sockets of a lane. Make it before they are bound, `guard` each, then `start`.

    Args:
        context: The context of the sockets.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._log = get_logger()
        self._doors: dict[str, _Door] = {}
        self._monitors: dict[zmq.Socket[bytes], _Door] = {}
        self._zap = context.socket(zmq.REP)
        self._zap.bind(_ZAP_ADDRESS)
        self._stop_receiver = context.socket(zmq.PAIR)
        self._stop_receiver.bind(_STOP_ADDRESS)
        self._stop_sender = context.socket(zmq.PAIR)
        self._stop_sender.connect(_STOP_ADDRESS)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def guard(self, socket: zmq.Socket[bytes], key: str) -> None:
        """Ask for every peer of a socket that is not bound yet; `key` names it in the log."""
        socket.setsockopt_string(zmq.ZAP_DOMAIN, key)
        self._doors[key] = _Door(key)
        self._monitors[socket.get_monitor_socket(_EVENTS)] = self._doors[key]

    def start(self) -> None:
        """Begin to answer; until then nobody is let in."""
        self._thread.start()

    def stop(self, sockets: list[zmq.Socket[bytes]]) -> None:
        """End the thread and the monitors of `sockets`."""
        if self._thread.is_alive():
            self._stop_sender.send(b"")
            self._thread.join()
        for socket in sockets:
            socket.disable_monitor()
        for socket in (*self._monitors, self._zap, self._stop_sender, self._stop_receiver):
            socket.close(linger=0)

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._zap, self._stop_receiver, *self._monitors):
            poller.register(socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stop_receiver in ready:
                return
            self._follow_monitors()
            if self._zap in ready:
                self._answer()

    def _follow_monitors(self) -> None:
        """Take note of all that happened before the question that is answered next."""
        for monitor, door in self._monitors.items():
            while monitor.poll(0):
                event = recv_monitor_message(monitor)
                door.follow(event["event"], event["value"])

    def _answer(self) -> None:
        """Answer one ZAP request: version, request id, domain, address, identity, mechanism, .."""
        version, request_id, domain, *_ = self._zap.recv_multipart()
        self._follow_monitors()
        door, now = self._doors[domain.decode()], time.monotonic()
        admitted = door.admit()
        status, text = (b"200", b"OK") if admitted else (b"400", b"another peer is connected")
        self._zap.send_multipart([version, request_id, status, text, b"", b""])
        if not admitted and now - door.reported_at > _REPORT_EVERY_S:
            door.reported_at = now
            self._log.warning("second_peer_refused", endpoint=door.key, refused=door.refused)
