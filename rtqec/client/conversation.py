"""A client of CUDA-Q's decoding server: which requests are under way, and which answer comes next. No sockets."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtqec.cudaq.frames import (
    BITS_OFFSET,
    HEADER_BYTES,
    SLOT_BYTES,
    Response,
    Status,
    enqueue_syndromes,
    get_corrections,
    read_response,
    reset_decoder,
    result_bytes,
)
from rtqec.errors import ExitCode, RtqecError


class CudaqStatusError(RtqecError):
    """The server answered a request with another status than OK."""

    exit_code = ExitCode.FAILED

    def __init__(self, status: int) -> None:
        """Name the status."""
        self.status = status
        known = Status(status).name if status in Status.__members__.values() else "unknown"
        super().__init__(f"the decoding server answered with status {status} ({known})")


class Conversation:
    """Requests to one decoder, and the answers that are still to come: exactly one each, in order.

    Args:
        decoder_id: The decoder.
        num_observables: Bits of its corrections.
        slot_bytes: Longest request; longer records travel in several.
    """

    def __init__(self, decoder_id: int, num_observables: int, slot_bytes: int = SLOT_BYTES) -> None:
        self._decoder_id, self._num_observables = decoder_id, num_observables
        self._bits_max = 8 * (slot_bytes - BITS_OFFSET)
        if self._bits_max <= 0 or HEADER_BYTES + result_bytes(num_observables) > slot_bytes:
            raise ValueError(f"slot_bytes is {slot_bytes}; no measurement, or no correction, fits into so few")
        self._last_id = 0
        self._awaited: deque[int] = deque()

    @property
    def awaited(self) -> int:
        """Answers that are still to come."""
        return len(self._awaited)

    def enqueue(self, measurements: ArrayLike, counter: int = 0) -> list[bytes]:
        """The requests that carry some measurements."""
        bits = np.asarray(measurements, np.bool_).ravel()
        pieces = [bits[start : start + self._bits_max] for start in range(0, len(bits), self._bits_max)]
        return [enqueue_syndromes(self._decoder_id, piece, self._next(), counter) for piece in pieces]

    def get(self, reset: bool) -> bytes:
        """The request for the corrections."""
        return get_corrections(self._decoder_id, self._num_observables, self._next(), reset)

    def reset(self) -> bytes:
        """The request to forget everything."""
        return reset_decoder(self._decoder_id, self._next())

    def take(self, datagram: bytes) -> Response | None:
        """One answer; None for one that nobody waits for any more.

        Raises:
            CudaqStatusError: It says that something is wrong.
            ValueError: It is no answer, or another one was to come before it.
        """
        response = read_response(datagram)
        if response.request_id not in self._awaited:
            return None
        if response.request_id != self._awaited[0]:
            raise ValueError(
                f"the answer to request {response.request_id} came, but that to {self._awaited[0]} was lost"
            )
        self._awaited.popleft()
        if response.status != Status.OK:
            raise CudaqStatusError(response.status)
        return response

    def bits(self, response: Response) -> NDArray[np.bool_]:
        """The corrections of an answer, bool, shape (num_observables,)."""
        return response.bits(self._num_observables)

    def forget(self) -> None:
        """Wait for nothing any more: what was sent before has no answer that counts."""
        self._awaited.clear()

    def _next(self) -> int:
        self._last_id = (self._last_id + 1) & 0xFFFFFFFF
        self._awaited.append(self._last_id)
        return self._last_id
