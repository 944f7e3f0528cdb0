"""Clients of a decoding server that speaks CUDA-Q Realtime over UDP: rtqec's listener, or NVIDIA's own server.

As CUDA-Q's own client does it, measurements are sent without waiting for their answers, up to as many requests as the
server has slots; corrections are waited for. A datagram that is lost is noticed by its answer, and ends the shot: begin
anew with `reset`.
"""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtqec.client.conversation import Conversation
from rtqec.cudaq.frames import SLOT_BYTES, Response
from rtqec.errors import NoPeerError

_DATAGRAM_BYTES_MAX = 65_535
_SLOTS = 2
"""As many as CUDA-Q's client uses."""


class CudaqClient:
    """One decoder.

    Args:
        address: Host and port of the decoder.
        decoder_id: Its number.
        num_observables: Bits of its corrections.
        slot_bytes: Longest request that the server takes.
        slots: Requests that may be under way.
        timeout_s: How long to wait for an answer.
    """

    def __init__(
        self, address: tuple[str, int], decoder_id: int = 0, num_observables: int = 1, *,
        slot_bytes: int = SLOT_BYTES, slots: int = _SLOTS, timeout_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._talk = Conversation(decoder_id, num_observables, slot_bytes)
        self._address, self._slots, self._timeout_s = address, slots, timeout_s
        self._socket = _open(address)
        self._socket.settimeout(timeout_s)

    def enqueue(self, measurements: ArrayLike, counter: int = 0) -> None:
        """Send some raw measurements of a shot, of 0 and 1.

        Raises:
            CudaqStatusError: An earlier request was answered with another status than OK.
            NoPeerError: Nobody answers.
        """
        for request in self._talk.enqueue(measurements, counter):
            self._send(request)
            self._drain(self._slots - 1)

    def get_corrections(self, reset: bool = True) -> NDArray[np.bool_]:
        """The corrections of the shot that has been sent, bool, shape (num_observables,).

        Args:
            reset: Whether they begin at 0 again; else those of the next shot are added to them.

        Raises:
            CudaqStatusError: There are none, or something is wrong.
            NoPeerError: Nobody answers.
        """
        self._drain(0)
        self._send(self._talk.get(reset))
        return self._talk.bits(self._receive())

    def decode(self, measurements: ArrayLike) -> NDArray[np.bool_]:
        """Send a whole shot, and wait for its corrections."""
        self.enqueue(measurements)
        return self.get_corrections()

    def reset(self) -> None:
        """Let the decoder forget measurements, corrections and failures.

        Raises:
            NoPeerError: Nobody answers.
        """
        self._talk.forget()
        self._send(self._talk.reset())
        self._receive()

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()

    def __enter__(self) -> CudaqClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drain(self, left: int) -> None:
        while self._talk.awaited > left:
            self._receive()

    def _send(self, request: bytes) -> None:
        try:
            self._socket.send(request)
        except ConnectionRefusedError:
            raise _nobody(self._address, self._timeout_s) from None

    def _receive(self) -> Response:
        while True:
            try:
                found = self._talk.take(self._socket.recv(_DATAGRAM_BYTES_MAX))
            except (TimeoutError, ConnectionRefusedError):
                raise _nobody(self._address, self._timeout_s) from None
            if found is not None:
                return found


class AsyncCudaqClient:
    """One decoder, from an event loop; as `CudaqClient`, with `await`."""

    def __init__(
        self, address: tuple[str, int], decoder_id: int = 0, num_observables: int = 1, *,
        slot_bytes: int = SLOT_BYTES, slots: int = _SLOTS, timeout_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._talk = Conversation(decoder_id, num_observables, slot_bytes)
        self._address, self._slots, self._timeout_s = address, slots, timeout_s
        self._socket = _open(address)
        self._socket.setblocking(False)

    async def enqueue(self, measurements: ArrayLike, counter: int = 0) -> None:
        """See `CudaqClient.enqueue`."""
        for request in self._talk.enqueue(measurements, counter):
            await self._send(request)
            await self._drain(self._slots - 1)

    async def get_corrections(self, reset: bool = True) -> NDArray[np.bool_]:
        """See `CudaqClient.get_corrections`."""
        await self._drain(0)
        await self._send(self._talk.get(reset))
        return self._talk.bits(await self._receive())

    async def decode(self, measurements: ArrayLike) -> NDArray[np.bool_]:
        """Send a whole shot, and wait for its corrections."""
        await self.enqueue(measurements)
        return await self.get_corrections()

    async def reset(self) -> None:
        """See `CudaqClient.reset`."""
        self._talk.forget()
        await self._send(self._talk.reset())
        await self._receive()

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()

    async def __aenter__(self) -> AsyncCudaqClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    async def _drain(self, left: int) -> None:
        while self._talk.awaited > left:
            await self._receive()

    async def _send(self, request: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, request)
        except ConnectionRefusedError:
            raise _nobody(self._address, self._timeout_s) from None

    async def _receive(self) -> Response:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    datagram = await loop.sock_recv(self._socket, _DATAGRAM_BYTES_MAX)
            except (TimeoutError, ConnectionRefusedError):
                raise _nobody(self._address, self._timeout_s) from None
            found = self._talk.take(datagram)
            if found is not None:
                return found


def _open(address: tuple[str, int]) -> socket.socket:
    """A UDP socket that talks to this address only."""
    family, kind, protocol, _, where = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
    found = socket.socket(family, kind, protocol)
    found.connect(where)
    return found


def _nobody(address: tuple[str, int], timeout_s: float) -> NoPeerError:
    return NoPeerError(
        f"no decoding server answered at {address[0]}:{address[1]} within {timeout_s:g} s.\n"
        "Is it running, and is that the port of this decoder? A lost datagram looks the same: call reset, and send the "
        "shot anew."
    )
