"""Sockets that are connected when they are handed out, and corrections sorted by patch."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import zmq

from rtqec.client.control import PatchPlace
from rtqec.client.keys import Keys, show
from rtqec.client.messages import Correction
from rtqec.errors import NoPeerError
from rtqec.units import MS_PER_S

_RECONNECT_MS = 10
_RECONNECT_MS_MAX = 100
"""A lane that died is back within milliseconds."""
_QUEUE = 100_000
SETTLE_S = 0.1
"""Twice the default of [feed] takeover_ms: so long a daemon drops what another source sends."""


def milliseconds(seconds: float) -> int:
    """As ZeroMQ takes times."""
    return round(seconds * MS_PER_S)


def connect(
    context: zmq.Context[Any], kind: int, endpoint: str, keys: Keys | None, timeout_s: float
) -> zmq.Socket[bytes]:
    """Connect, and wait until the daemon has let this client in.

    Raises:
        NoPeerError: It does not.
    """
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.set_hwm(_QUEUE)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS_MAX)
    socket.setsockopt(zmq.SNDTIMEO, milliseconds(timeout_s))
    if kind == zmq.REQ:
        # A question that nobody answered in time must not forbid the next one.
        socket.setsockopt(zmq.REQ_RELAXED, 1)
        socket.setsockopt(zmq.REQ_CORRELATE, 1)
    show(socket, endpoint, keys)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    try:
        socket.connect(endpoint)
        there = monitor.poll(milliseconds(timeout_s))
    finally:
        socket.disable_monitor()
        monitor.close(linger=0)
    if not there:
        socket.close(linger=0)
        raise nobody(endpoint, timeout_s)
    return socket


def nobody(endpoint: str, timeout_s: float) -> NoPeerError:
    """What to say where a daemon does not answer."""
    return NoPeerError(
        f"{endpoint} was tried for {timeout_s:g} s, but no daemon let this client in or answered.\n"
        "Is it running? Does it serve another controller there, or ask for another key? Its log says so."
    )


@dataclass
class LaneConnection:
    """Both sockets of a lane, and the corrections that have come but were not asked for yet.

    A lane has one peer at each end, so that all its patches are reached through one of these.

    Attributes:
        unclaimed: Corrections of patches that were not opened.
        reading: Who waits for the next message, of several that may at once.
    """

    feed: Any
    publish: Any
    queues: dict[int, deque[Correction]] = field(default_factory=dict)
    unclaimed: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, message: bytes) -> None:
        """Sort one message."""
        correction = Correction.parse(message)
        if correction.patch_id in self.queues:
            self.queues[correction.patch_id].append(correction)
        else:
            self.unclaimed += 1

    def close(self) -> None:
        """Disconnect."""
        self.feed.close(linger=0)
        self.publish.close(linger=0)


def open_lane(context: zmq.Context[Any], place: PatchPlace, keys: Keys | None, timeout_s: float) -> LaneConnection:
    """Connect to the lane of a patch.

    Raises:
        NoPeerError: It does not let this client in.
    """
    publish = connect(context, zmq.PULL, place.publish, keys, timeout_s)
    try:
        feed = connect(context, zmq.PUSH, place.feed, keys, timeout_s)
    except NoPeerError:
        publish.close(linger=0)
        raise
    return LaneConnection(feed, publish)
