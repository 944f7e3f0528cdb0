"""Frames of CUDA-Q Realtime as a client sends and reads them, and the order in which answers come. No sockets.

Little-endian, packed, bits LSB first. Source: NVIDIA cudaq-qec, `decoder_rpc_wire_format.h` and `MESSAGE_FORMAT.md`.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtqec.errors import ExitCode, RtqecError
from rtqec.layout import bytes_for_bits
from rtqec.wire import REQUEST_MAGIC, RESPONSE_MAGIC, RPC_HEADER_BYTES, fnv1a32

_REQUEST = struct.Struct("<IIIIQ")
"""Magic, function, bytes of arguments, request id, timestamp."""
_RESPONSE = struct.Struct("<IiIIQ")
"""Magic, status, bytes of the result, request id, timestamp."""
_ENQUEUE = struct.Struct("<qqqq")
"""Decoder, counter, syndrome mapping (always 0), bits."""
_GET = struct.Struct("<qqB")
"""Decoder, bits of a correction, whether to reset."""
_RESET = struct.Struct("<q")
"""Decoder."""
assert _REQUEST.size == _RESPONSE.size == RPC_HEADER_BYTES

ENQUEUE, GET, RESET = (fnv1a32(name) for name in ("enqueue_syndromes", "get_corrections", "reset_decoder"))
SLOT_BYTES = 256
"""CUDA-Q's default: of a request, and of an answer."""


class CudaqStatus(IntEnum):
    """What a decoding server answers."""

    OK = 0
    INVALID_DECODER = 1
    BAD_REQUEST = 2
    INTERNAL_ERROR = 3
    NOT_READY = 4
    BUSY = 5
    SYNDROMES_DROPPED = 6


class CudaqStatusError(RtqecError):
    """The server answered a request with another status than OK."""

    exit_code = ExitCode.FAILED

    def __init__(self, status: int) -> None:
        """Name the status."""
        self.status = status
        known = CudaqStatus(status).name if status in CudaqStatus.__members__.values() else "unknown"
        super().__init__(f"the decoding server answered with status {status} ({known})")


@dataclass(frozen=True)
class CudaqResponse:
    """One answer."""

    status: int
    request_id: int
    ptp_timestamp: int
    result: bytes


def enqueue_request(request_id: int, decoder_id: int, measurements: ArrayLike, counter: int = 0) -> bytes:
    """Some raw measurements of a shot, of 0 and 1."""
    bits = np.asarray(measurements, np.bool_).ravel()
    arguments = _ENQUEUE.pack(decoder_id, counter, 0, len(bits)) + np.packbits(bits, bitorder="little").tobytes()
    return _request(ENQUEUE, request_id, arguments)


def get_request(request_id: int, decoder_id: int, num_observables: int, reset: bool) -> bytes:
    """Ask for the corrections."""
    return _request(GET, request_id, _GET.pack(decoder_id, num_observables, reset))


def reset_request(request_id: int, decoder_id: int) -> bytes:
    """Forget measurements, corrections and failures."""
    return _request(RESET, request_id, _RESET.pack(decoder_id))


def parse_response(datagram: bytes) -> CudaqResponse:
    """Read an answer, padded or not.

    Raises:
        ValueError: It is none.
    """
    if len(datagram) < _RESPONSE.size:
        raise ValueError(f"{len(datagram)} bytes, but an answer has at least {_RESPONSE.size}")
    magic, status, size, request_id, timestamp = _RESPONSE.unpack_from(datagram)
    if magic != RESPONSE_MAGIC or size > len(datagram) - _RESPONSE.size:
        raise ValueError(f"magic {magic:#x} with a result of {size} bytes in {len(datagram)} is no answer")
    return CudaqResponse(status, request_id, timestamp, datagram[_RESPONSE.size : _RESPONSE.size + size])


def _request(function: int, request_id: int, arguments: bytes) -> bytes:
    return _REQUEST.pack(REQUEST_MAGIC, function, len(arguments), request_id, 0) + arguments


class Conversation:
    """Requests to one decoder, and the answers that are still to come: exactly one each, in order.

    Args:
        decoder_id: The decoder.
        num_observables: Bits of its corrections.
        slot_bytes: Longest request; longer records travel in several.
    """

    def __init__(self, decoder_id: int, num_observables: int, slot_bytes: int = SLOT_BYTES) -> None:
        self._decoder_id, self._num_observables = decoder_id, num_observables
        self._bits_max = 8 * (slot_bytes - _REQUEST.size - _ENQUEUE.size)
        if self._bits_max <= 0 or _RESPONSE.size + bytes_for_bits(num_observables) > slot_bytes:
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
        return [enqueue_request(self._next(), self._decoder_id, piece, counter) for piece in pieces]

    def get(self, reset: bool) -> bytes:
        """The request for the corrections."""
        return get_request(self._next(), self._decoder_id, self._num_observables, reset)

    def reset(self) -> bytes:
        """The request to forget everything."""
        return reset_request(self._next(), self._decoder_id)

    def take(self, datagram: bytes) -> CudaqResponse | None:
        """One answer; None for one that nobody waits for any more.

        Raises:
            CudaqStatusError: It says that something is wrong.
            ValueError: It is no answer, or another one was to come before it.
        """
        response = parse_response(datagram)
        if response.request_id not in self._awaited:
            return None
        if response.request_id != self._awaited[0]:
            raise ValueError(
                f"the answer to request {response.request_id} came, but that to {self._awaited[0]} was lost"
            )
        self._awaited.popleft()
        if response.status != CudaqStatus.OK:
            raise CudaqStatusError(response.status)
        return response

    def bits(self, response: CudaqResponse) -> NDArray[np.bool_]:
        """The corrections of an answer, bool, shape (num_observables,)."""
        octets = np.frombuffer(response.result, np.uint8)
        return np.unpackbits(octets, count=self._num_observables, bitorder="little").astype(np.bool_)

    def forget(self) -> None:
        """Wait for nothing any more: what was sent before has no answer that counts."""
        self._awaited.clear()

    def _next(self) -> int:
        self._last_id = (self._last_id + 1) & 0xFFFFFFFF
        self._awaited.append(self._last_id)
        return self._last_id
