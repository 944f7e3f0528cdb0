"""What serves CUDA-Q programs in a lane: a UDP socket per decoder, served by the lane's path thread.

Whoever asks waits for the answer, so that there is nothing to gain from a thread that only receives: the thread that
takes the last measurement of a window decodes it, and no other has to be woken.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from rtqec.config import CudaqTable
from rtqec.cudaq.sessions import Sessions
from rtqec.errors import ConfigError
from rtqec.kernels.datagrams import ADDRESS_WORDS, DECODE, SOCKET, serve
from rtqec.kernels.native import entry_of, timespec
from rtqec.kernels.records import STOP
from rtqec.kernels.session import FROM, GAPS_ARE_DROPS, HAND_WORDS, LATE_IS_BUSY, OPTION_WORDS, SLOT, end_sessions
from rtqec.layout import words_for_bytes
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock

_RECEIVE_TIMEOUT_S = 0.1
"""How long an idle thread sleeps before it looks whether to stop, and beats."""
_RECEIVE_BUFFER_BYTES = 4 << 20
"""Asked of the kernel, which may give less: its default holds 277 padded requests."""
_POLLIN = 1


class Listener:
    """The sockets of a lane's decoders, and what serves them.

    The sockets are bound here, before the lane is forked from the process that stands by: a lane that takes the place
    of one that died has the same ports, and what came in between waits in them.

    Args:
        table: `[listen.cudaq]`.
        sessions: Of the lane's decoders.
        feed: `Intake.feed`, where rounds go; nobody else writes there.
        ring: Of the lane.
        telemetry: Its counters, its journal and `answers`.
        waiting: How to wait for a datagram; see `LaneTable.waiting_ns`.

    Attributes:
        ports: By decoder id.

    Raises:
        ConfigError: A port cannot be bound.
    """

    def __init__(
        self, table: CudaqTable, sessions: Sessions, feed: tuple[Any, ...], ring: Ring, telemetry: TelemetryBlock,
        waiting: np.ndarray[Any, np.dtype[np.int64]], scratch: tuple[Any, Any],
    ) -> None:  # fmt: skip
        """`scratch`: `Intake.events` and `Intake.times`."""
        self._sessions, self._feed, self._ring, self._telemetry = sessions, feed, ring, telemetry
        decoder_ids = sessions.records["decoder_id"].tolist()
        self._sockets = [_bind(table, decoder_id) for decoder_id in decoder_ids]
        self.ports = {
            decoder_id: int(found.getsockname()[1])
            for decoder_id, found in zip(decoder_ids, self._sockets, strict=True)
        }
        num_sockets = len(self._sockets)
        sockets = np.zeros(num_sockets, SOCKET)
        sockets["fd"] = [found.fileno() for found in self._sockets]
        sockets["session"] = np.arange(num_sockets)
        polls = sockets["fd"].astype(np.uint64) | np.uint64(_POLLIN << 32)
        datagram = np.zeros(words_for_bytes(table.slot_bytes), np.uint64)
        answer = np.zeros(words_for_bytes(table.slot_bytes), np.uint64)
        self._hand = np.zeros(HAND_WORDS, np.int64)
        self._hand[FROM] = -1
        options = np.zeros(OPTION_WORDS, np.int64)
        options[[SLOT, LATE_IS_BUSY, GAPS_ARE_DROPS]] = table.slot_bytes, table.late_is_busy, table.gaps_are_drops
        addresses = np.zeros((num_sockets, ADDRESS_WORDS), np.uint64)
        self._mail = (
            sockets, addresses, np.zeros(num_sockets, np.int32), polls, datagram, datagram.view(np.uint8), answer,
            self._hand, options,
        )  # fmt: skip
        self._books = (
            telemetry.journal, telemetry.journal_sent, telemetry.written, telemetry.path_counters, telemetry.answers,
        )  # fmt: skip
        self._events, self._times = scratch
        self._waiting, self._spec = waiting, timespec()
        self._serve: Callable[..., int] = serve
        self._end: Callable[..., None] = end_sessions

    def warm(self) -> None:
        """Compile the loop, without receiving."""
        stopped = np.zeros_like(self._ring.control)
        stopped[STOP] = 1
        self._serve = entry_of(serve, *self._args(stopped))
        self._end = entry_of(end_sessions, *self._end_args(stopped))

    def open(self) -> list[int]:
        """Go on where a lane before has left the sessions.

        Returns:
            The decoders that answer nothing until they are reset.
        """
        telemetry = self._telemetry
        newest = [
            max((int(found) for found in telemetry.corrections_of(p, 0, 1 << 62)["shot_id"]), default=0)
            for p in range(len(telemetry.patch_ids))
        ]
        return self._sessions.take_up(bool(telemetry.header["starts"][0]), telemetry.written, newest)

    def run(self, carry: Callable[[], bool]) -> None:
        """Serve requests until `Ring.stop`, then end the shots that are open.

        Args:
            carry: Decodes windows that have closed; False where there are none.
        """
        arguments = self._args(self._ring.control)
        while self._serve(*arguments) == DECODE:
            while carry():
                pass
        self._end(*self._end_args(self._ring.control))

    def close(self) -> None:
        """Close the sockets of this process."""
        for found in self._sockets:
            found.close()

    def _args(self, control: Any) -> tuple[Any, ...]:
        return (
            self._mail, self._sessions.desk, self._feed, self._books, control, self._events, self._times, self._waiting,
            self._spec,
        )  # fmt: skip

    def _end_args(self, control: Any) -> tuple[Any, ...]:
        return self._sessions.desk, self._feed, self._hand, control, self._times


def _bind(table: CudaqTable, decoder_id: int) -> socket.socket:
    """The socket of one decoder.

    Raises:
        ConfigError: The port is taken, or the address is not this machine's.
    """
    version = ipaddress.ip_address(table.address).version
    found = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    port = table.port_of(decoder_id)
    try:
        found.bind((table.address, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            "[listen.cudaq] port", f"{port} of {table.address} cannot be bound for decoder {decoder_id}: "
            f"{error.strerror}.", "Each decoder has a port of its own: port, plus its id.",
            "Stop whoever has it, or choose another port or address; port = 0 takes what is free.",
        ) from error  # fmt: skip
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    timeout_us = round(1e6 * _RECEIVE_TIMEOUT_S)
    found.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, np.array([0, timeout_us], np.int64).tobytes()
    )  # struct timeval
    return found
